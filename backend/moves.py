"""Data movement: views that cost nothing, and strided copies where a view will not do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..passes.partition import Kernel
from ..passes.rows import operand
from .code import Block, Builder, Pending, nest, window
from .context import Context, array_of, machine_dtype
from .views import View, collapse

#: One transfer: from one view to another of the same shape.
Copy = tuple[View, View]


class CopyKernel:
    """Copies between views of DRAM; none where every output is a view of its input."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        self.copies = copies

    def emit(self, builder: Builder) -> None:
        """Write the transfers and one barrier."""
        for source, target in self.copies:
            builder.begin_kernel()
            write_copy(builder, source, target)
        if self.copies:
            builder.emit("barrier")


def write_copy(builder: Builder, source: View, target: View) -> None:
    """Write the nest that copies one view to another of the same shape, in the order the source lies in memory."""
    order = sorted(range(len(source.shape)), key=lambda axis: -abs(source.strides[axis]))
    shape = [source.shape[axis] for axis in order]
    strides = [[view.strides[axis] for axis in order] for view in (source, target)]
    dims = collapse(shape, strides)
    inner = dims[-2:]
    while len(inner) < 2:
        inner = [(1, (0, 0)), *inner]
    (rows, by_row), (cols, by_col) = inner
    size = rows * cols if (by_row[1], by_col[1]) == (cols * target.itemsize, target.itemsize) else 0
    loops = [
        loop.over("chunk", "elements of the result's place", size, step=own[1] // target.itemsize)
        for loop, (_, own) in zip(builder.loops(*(size for size, _ in dims[:-2])), dims[:-2], strict=True)
    ]
    ends = []
    for place, view in enumerate((source, target)):
        steps = [step for loop, (_, own) in zip(loops, dims[:-2], strict=True) for step in loop.step(own[place])]
        repeated = by_col[place] == 0 and cols > 1
        extent = (1 if by_row[place] == 0 else rows, 1 if repeated else cols)
        pitch = (by_row[place], by_col[place] or view.itemsize)
        ends.append(window(view.storage.space, view.dtype, view.address, extent, pitch, steps))
    body: list[Pending | Block] = [Pending("copy", {"dst": ends[1], "src": ends[0]}, {"channel": 0})]
    builder.write(nest(loops, body))


Viewer = Callable[[ir.Node, View], Sequence[View | None]]


def _ints(value: ir.Value | None) -> list[int]:
    return [] if value is None else [int(each) for each in array_of(value).reshape(-1)]


def _reshaped(node: ir.Node, view: View) -> Sequence[View | None]:
    return [view.reshape(shape_of(node.outputs[0]))]


def _transposed(node: ir.Node, view: View) -> Sequence[View | None]:
    return [view.transpose(node.attributes.get_ints("perm", list(reversed(range(len(view.shape))))))]


def _expanded(node: ir.Node, view: View) -> Sequence[View | None]:
    return [view.broadcast(shape_of(node.outputs[0]))]


def _sliced(node: ir.Node, view: View) -> Sequence[View | None]:
    starts, _ends = _ints(node.inputs[1]), _ints(node.inputs[2])
    axes = _ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(len(starts)))
    steps = _ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1] * len(starts)
    out = shape_of(node.outputs[0])
    for start, axis, step in zip(starts, axes, steps, strict=True):
        size, place = view.shape[axis], axis % len(out)
        low, high = (0, size) if step > 0 else (0, size - 1)
        first = min(max(start + size if start < 0 else start, low), high)
        view = view.slice(place, first, out[place], step)
    return [view]


def _split(node: ir.Node, view: View) -> Sequence[View | None]:
    axis, start, parts = node.attributes.get_int("axis", 0) % len(view.shape), 0, []
    for output in node.outputs:
        length = shape_of(output)[axis]
        parts.append(view.slice(axis, start, length))
        start += length
    return parts


VIEWERS: dict[str, Viewer] = {
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Identity": _reshaped,
    "Transpose": _transposed,
    "Expand": _expanded,
    "Slice": _sliced,
    "Split": _split,
}


def dense_copy(value: ir.Value, context: Context) -> View:
    """Return room for a copy of a value without gaps, for the present kernel and whoever views it."""
    storage = context.scratch(f"{value.name}/dense", max(1, math.prod(shape_of(value))) * context.view(value).itemsize)
    return View.dense(storage, machine_dtype(value), shape_of(value))


def view_kernel(kernel: Kernel, context: Context) -> CopyKernel:
    """Plan a node that only moves data: as views, or as copies into dense storage first where no view will do."""
    node = kernel.nodes[0]
    source = node.inputs[0]
    assert source is not None
    copies: list[Copy] = []
    views = VIEWERS[node.op_type](node, context.view(source))
    if any(view is None for view in views):
        dense = dense_copy(source, context)
        copies.append((context.view(source), dense))
        views = VIEWERS[node.op_type](node, dense)
    for output, view in zip(node.outputs, views, strict=True):
        assert view is not None
        if output.is_graph_output() and view.storage.space == "const":
            copies.append((view, context.output(output)))
        else:
            context.set(output, view)
    return CopyKernel(copies)


def concat_kernel(kernel: Kernel, context: Context) -> CopyKernel:
    """Plan a concatenation: a view where the operands lie evenly one behind the other, else copies of such runs."""
    node = kernel.nodes[0]
    value = node.outputs[0]
    axis = node.attributes.get_int("axis", 0) % len(shape_of(value))
    views = [context.view(each) for each in node.inputs if each is not None]
    parts = joined([view for view in views if view.shape[axis]], axis)
    if len(parts) == 1 and parts[0].storage.space == "dram":
        context.set(value, parts[0])
        return CopyKernel([])
    out = context.output(value, memory_order(views[0]))
    start, copies = 0, []
    for view in parts:
        copies.append((view, out.slice(axis, start, view.shape[axis])))
        start += view.shape[axis]
    return CopyKernel(copies)


def joined(views: Sequence[View], axis: int) -> list[View]:
    """Return as few views as can stand for these, side by side along an axis."""
    parts: list[View] = []
    for view in views:
        both = _side_by_side(parts[-1], view, axis) if parts else None
        parts[-1:] = [both] if both is not None else [*parts[-1:], view]
    return parts


def _side_by_side(left: View, right: View, axis: int) -> View | None:
    """Return one view of two, or None where the right one does not go on as the left one began."""
    distance = right.offset - left.offset
    stride = distance // left.shape[axis]
    uneven = any(view.shape[axis] > 1 and view.strides[axis] != stride for view in (left, right))
    if uneven or distance != stride * left.shape[axis]:
        return None
    shape = (*left.shape[:axis], left.shape[axis] + right.shape[axis], *left.shape[axis + 1 :])
    strides = (*left.strides[:axis], stride, *left.strides[axis + 1 :])
    wanted = replace(right, shape=shape, strides=strides, offset=left.offset)
    whole = replace(left, shape=shape, strides=strides)
    others = [place for place in range(len(shape)) if place != axis]
    same = all(left.shape[i] == right.shape[i] and left.strides[i] == right.strides[i] for i in others)
    return whole if same and whole == wanted else None


def memory_order(view: View) -> list[int]:
    """Return the dimensions of a view from the outermost to the innermost in memory."""
    return sorted(range(len(view.shape)), key=lambda axis: -abs(view.strides[axis]))


def pad_kernel(kernel: Kernel, context: Context) -> CopyKernel:
    """Plan a Pad with one value: the operand is copied to its place, the value all around it."""
    node = kernel.nodes[0]
    view, given = context.view(operand(node)), node.inputs[2] if len(node.inputs) > 2 else None
    out = context.output(node.outputs[0], memory_order(view))
    fill = _zero(operand(node), context) if given is None else _scalar(given, context)
    pads, rank, inside = _ints(node.inputs[1]), len(view.shape), out
    copies: list[Copy] = []
    for axis in range(rank):
        before, size = pads[axis], view.shape[axis]
        after = inside.shape[axis] - before - size
        sides = (inside.slice(axis, 0, before), inside.slice(axis, before + size, after))
        copies += [(fill.broadcast(part.shape), part) for part in sides if part.size]
        inside = inside.slice(axis, before, size)
    return CopyKernel([*copies, (view, inside)])


def _zero(like: ir.Value, context: Context) -> View:
    assert like.dtype is not None
    return context.constant(f"{like.name}/zero", np.zeros((), like.dtype.numpy()))


def _scalar(value: ir.Value, context: Context) -> View:
    view = context.view(value).reshape(())
    assert view is not None
    return view


class GatherKernel:
    """Rows of a table picked by indices: an embedding."""

    def __init__(self, node: ir.Node, context: Context) -> None:
        table, index = operand(node), operand(node, 1)
        shape = shape_of(table)
        self.copies: list[Copy] = []
        self.index = self._even(index, (math.prod(shape_of(index)),), context)
        self.table = self._even(table, (shape[0], math.prod(shape[1:])), context)
        self.out = context.output(node.outputs[0])

    def _even(self, value: ir.Value, shape: tuple[int, ...], context: Context) -> View:
        """Return a value under another shape, copied first where it does not lie evenly in memory."""
        view = context.view(value)
        even = view.reshape(shape)
        if even is None:
            copy = dense_copy(value, context)
            self.copies.append((view, copy))
            even = copy.reshape(shape)
        assert even is not None
        return even

    def emit(self, builder: Builder) -> None:
        """Write one gather and a barrier, and before it what makes its operands even."""
        CopyKernel(self.copies).emit(builder)
        builder.begin_kernel()
        index, table = self.index, self.table
        picks = window(
            index.storage.space, index.dtype, index.address, (index.size, 1), (index.strides[0], index.itemsize)
        )
        rows = window(
            table.storage.space,
            table.dtype,
            table.address,
            (table.shape[0], table.shape[1]),
            (table.strides[0], table.strides[1]),
        )
        out = window("dram", self.out.dtype, self.out.address, (index.size, table.shape[1]))
        builder.write([Pending("gather", {"dst": out, "table": rows, "index": picks}, {"channel": 0})])
        builder.emit("barrier")


def gather_kernel(kernel: Kernel, context: Context) -> CopyKernel | GatherKernel:
    """Plan a Gather: a view where one constant index is picked, rows of a table otherwise."""
    node = kernel.nodes[0]
    source, index = node.inputs
    assert source is not None
    assert index is not None
    if index.const_value is None or index.const_value.size != 1:
        return GatherKernel(node, context)
    view = context.view(source)
    axis = node.attributes.get_int("axis", 0) % len(view.shape)
    place = int(array_of(index).reshape(-1)[0]) % view.shape[axis]
    picked = view.slice(axis, place, 1).reshape(shape_of(node.outputs[0]))
    assert picked is not None
    context.set(node.outputs[0], picked)
    return CopyKernel([])

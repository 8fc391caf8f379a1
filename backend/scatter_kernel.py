"""Rows written at places known at run time: into the storage of what they change, where nobody needs that any more."""

from __future__ import annotations

import onnx_ir as ir

from ..frontend.states import STATE_KEY
from ..passes.partition import Kernel
from ..passes.rows import operand
from .code import Builder, Pending, nest, window
from .context import Context
from .moves import VIEWERS, Copy, CopyKernel, dense_copy
from .views import View, collapse


class ScatterKernel:
    """A ScatterND whose indices are numbers of rows of the first dimension."""

    def __init__(self, node: ir.Node, context: Context) -> None:
        data, index, updates = operand(node), operand(node, 1), operand(node, 2)
        self.copies: list[Copy] = []
        self.index = _even(index, context, self.copies)
        self.updates = context.view(updates)
        if may_overwrite(data, context):
            self.out = context.set(node.outputs[0], context.view(data))
        else:
            self.out = context.output(node.outputs[0])
            self.copies.append((context.view(data), self.out))

    def emit(self, builder: Builder) -> None:
        """Write the copies, the transfers of the rows and a barrier."""
        CopyKernel(self.copies).emit(builder)
        if not self.updates.size:
            return
        builder.begin_kernel()
        index, out = self.index, self.out
        dims = collapse(out.shape[1:], [self.updates.strides[1:], out.strides[1:]]) or [(1, (0, 0))]
        (cols, pitches), outer = dims[-1], dims[:-1]
        loops = builder.loops(*(size for size, _ in outer))
        ends = []
        for place, view in enumerate((self.updates, out)):
            steps = [step for loop, (_, own) in zip(loops, outer, strict=True) for step in loop.step(own[place])]
            pitch = (view.strides[0], pitches[place] or view.itemsize)
            ends.append(window(view.storage.space, view.dtype, view.address, (view.shape[0], cols), pitch, steps))
        places = window(index.storage.space, index.dtype, index.address, (index.size, 1), (index.strides[0], 0))
        operands = {"dst": ends[1], "src": ends[0], "index": places}
        builder.write(nest(loops, [Pending("scatter", operands, {"channel": 0})]))
        builder.emit("barrier")


def may_overwrite(value: ir.Value, context: Context) -> bool:
    """Return whether nobody needs the storage of a value any more once its only reader has run.

    That is a state, which is to become something else anyway, or what a node has made; or a view of it alone.
    """
    view = context.view(value)
    if view.storage.space != "dram":
        return False
    while len(value.uses()) == 1 and not value.is_graph_output():
        producer = value.producer()
        if producer is None:
            return value.is_graph_input() and STATE_KEY in value.metadata_props
        source = producer.inputs[0] if producer.op_type in VIEWERS else None
        if source is None or context.view(source).storage is not view.storage:
            return True
        if len(producer.outputs) > 1:
            return False
        value = source
    return False


def scatter_kernel(kernel: Kernel, context: Context) -> ScatterKernel:
    """Plan a ScatterND."""
    return ScatterKernel(kernel.nodes[0], context)


def _even(index: ir.Value, context: Context, copies: list[Copy]) -> View:
    """Return indices as one row after the other, copied first where they do not lie evenly in memory."""
    view = context.view(index)
    even = view.reshape((view.size,))
    if even is None:
        copy = dense_copy(index, context)
        copies.append((view, copy))
        even = copy.reshape((view.size,))
    assert even is not None
    return even

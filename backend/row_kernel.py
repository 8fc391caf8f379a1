"""Row kernels: chains of elementwise and row operations, a few rows at a time through the buffer.

While the vector unit works on one chunk, one DMA channel brings the next and the other takes the last one away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.operators import OPERATORS
from ..isa.machine import Machine
from ..passes.partition import Kernel, only_user
from ..passes.rows import is_elementwise, operand, reduced_axes, result
from .boxes import Box, boxes
from .code import Builder, DoesNotFit, busy
from .context import Context, machine_dtype
from .moves import Copy, CopyKernel, dense_copy
from .row_chunk import RowChunk
from .views import Dim, View, collapse

#: Whole numbers up to here are exact as the float32 immediate of an instruction.
EXACT_IMMEDIATE = 1 << 24
#: Operators that take every operand row by row, numbers too: their columns do not correspond.
INDEXED = ("GatherElements", "ScatterElements")
#: A chunk should be worth the latency of its transfer.
GOOD_CHUNK_BYTES = 8192


@dataclass(frozen=True)
class Access:
    """A value in DRAM as the kernel visits it: byte strides over the row space, and its columns.

    In a loop over turns (see :mod:`.recurrence`), that of the next turn lies ``by`` bytes further.
    """

    view: View
    strides: tuple[int, ...]
    cols: int
    col_stride: int
    by: int = 0

    @property
    def fixed_rows(self) -> bool:
        """Whether all rows are the same one."""
        return not any(self.strides)


Source = ir.Value | Access | float | None


class RowKernel:
    """Plans and emits one row kernel."""

    def __init__(self, kernel: Kernel, context: Context) -> None:
        self.kernel = kernel
        self.machine: Machine = context.machine
        self.forms = kernel.forms
        self.rows = next(iter(self.forms.values())).rows
        self.copied: dict[ir.Value, Copy] = {}
        self.roots = self._find_roots()
        self.sources = [[self._source(node, value, context) for value in node.inputs] for node in kernel.nodes]
        read = dict.fromkeys(each for sources in self.sources for each in sources if isinstance(each, Access))
        #: Operands that are in the buffer already, and those that must be brought.
        self.given = [each for each in read if each.view.storage.space == "buf"]
        self.loads = [each for each in read if each not in self.given]
        self.pure = self._cut_anywhere()
        #: Operands that are columns of another one: they lie in the buffer with that.
        self.within = {} if self.pure else within(self.loads)
        self.loads = [each for each in self.loads if each not in self.within]
        self.stores = self._plan_outputs(context)

    def _cut_anywhere(self) -> bool:
        """Return whether columns may be cut, too."""
        return is_elementwise(self.kernel.nodes, self.forms)

    def _find_roots(self) -> dict[ir.Value, ir.Value]:
        """Map each value to the one whose rows it shares: views inside a kernel cost nothing."""
        roots: dict[ir.Value, ir.Value] = {}
        for node in self.kernel.nodes:
            output = result(node)
            is_view = OPERATORS[node.op_type].kind == "view"
            roots[output] = roots[node.inputs[0]] if is_view and node.inputs[0] in roots else output
        return roots

    def _source(self, node: ir.Node, value: ir.Value | None, context: Context) -> Source:
        if value is None or OPERATORS[node.op_type].kind == "view":
            return None
        if value in self.roots:
            return self.roots[value]
        if value is not node.inputs[0] and OPERATORS[node.op_type].kind == "reduce":
            return None
        zero_point = node.op_type == "QuantizeLinear" and value is node.inputs[-1] is not node.inputs[1]
        number = immediate(value, uniform=zero_point)
        if number is not None and node.op_type not in INDEXED:
            return number
        return self._access(node, value, context.view(value), context)

    def _access(self, node: ir.Node, value: ir.Value, view: View, context: Context) -> Access:
        kind = OPERATORS[node.op_type].kind
        if node.op_type in INDEXED or (kind in ("reduce", "row_axis", "pick") and value is node.inputs[0]):
            view = self._whole(node, value, view, context)
        if kind == "reduce":
            return _reduced(node, view)
        if kind in ("concat", "pick"):
            return wide_access(view, shape_of(value))
        if kind == "matmul":
            return _factor(node, view, first=value is node.inputs[0])
        if node.op_type == "QuantizeLinear" and value is not node.inputs[0]:
            rows = shape_of(operand(node))[:-1]
            one = view.reshape(()) if view.size == 1 else view
            assert one is not None
            return wide_access(one.broadcast(rows), rows, bare=True)
        shape = shape_of(result(node))
        return wide_access(view.broadcast(shape), shape, bare=self.forms[result(node)].bare)

    def _whole(self, node: ir.Node, value: ir.Value, view: View, context: Context) -> View:
        """Return a view with all rows and columns there and even: a copy where some are repeated or scattered."""
        repeated = any(stride == 0 and size > 1 for size, stride in zip(view.shape, view.strides, strict=True))
        if not repeated and (OPERATORS[node.op_type].kind != "reduce" or len(_over(node, view)) <= 1):
            return view
        if value not in self.copied:
            self.copied[value] = (view, dense_copy(value, context))
        return self.copied[value][1]

    def _plan_outputs(self, context: Context) -> dict[ir.Value, Access]:
        stores: dict[ir.Value, Access] = {}
        for value in self.kernel.outputs():
            root = self.roots[value]
            if root not in stores:
                made = context.output(root, self._order(root))
                stores[root] = wide_access(made, made.shape, bare=self.forms[root].bare)
            if value is not root:
                view = stores[root].view.reshape(shape_of(value))
                assert view is not None
                context.set(value, view)
        return stores

    def _order(self, value: ir.Value) -> list[int] | None:
        """Return the order of dimensions in memory: as the largest input lies, or as the one reader wants it."""
        shape = shape_of(value)
        full = [each for each in (*self.given, *self.loads) if all(each.strides) and each.cols > 1]
        if not self.pure or not full:
            return wanted_order(value)
        by_axis = dict(zip([axis for axis, size in enumerate(shape[:-1]) if size > 1], full[0].strides, strict=True))
        by_axis[len(shape) - 1] = full[0].col_stride
        units = [axis for axis in range(len(shape)) if axis not in by_axis]
        return units + sorted(by_axis, key=lambda axis: -by_axis[axis])

    def cycles(self) -> int:
        """Return about how many cycles the kernel takes: chunk after chunk, as far as its transfers do not overlap.

        Those of the next chunk are issued when the vector unit's queue has room for what comes before them.
        """
        accesses, total = self._accesses(), 0
        for box in self._boxes(accesses):
            _, loads, stores = (chunk := self._chunk(Builder(self.machine), box, accesses)).dry_run()
            work = [busy(each, self.machine) for each in chunk.code]
            coming, leaving = (sum(busy(each, self.machine) for each in moves) for moves in (loads, stores))
            queued = sum(work[-self.machine.control.queue_depth :])
            pace = max(sum(work) + max(0, coming + leaving - queued), coming, leaving)
            total += coming + box.turns * pace + leaving
        return total

    def emit(self, builder: Builder) -> None:
        """Write the kernel's code."""
        CopyKernel(list(self.copied.values())).emit(builder)
        accesses = self._accesses()
        for box in self._boxes(accesses):
            builder.begin_kernel()
            self._chunk(builder, box, accesses).emit()
            builder.emit("barrier")

    def _accesses(self) -> list[Access]:
        """Return everything in DRAM that the kernel visits."""
        return [*self.loads, *self.stores.values()]

    def _chunk(self, builder: Builder, box: Box, accesses: Sequence[Access]) -> RowChunk:
        return RowChunk(self, builder, box, accesses)

    def _boxes(self, accesses: Sequence[Access]) -> list[Box]:
        width = len(accesses) + 1
        sizes, strides = list(self.rows), [list(each.strides) for each in accesses]
        logical = dense_strides(self.rows)
        cols = 0
        if self.pure:
            cols = next(iter(self.forms.values())).cols
            sizes.append(cols)
            for each, own in zip(accesses, strides, strict=True):
                own.append(each.col_stride if each.cols > 1 else 0)
            logical = dense_strides(tuple(sizes))
        order = self._visit_order(len(sizes), strides)
        dims = collapse([sizes[i] for i in order], [[own[i] for i in order] for own in (*strides, list(logical))])
        return boxes(dims, width, cols, lambda rows, wide: self._chunk_rows(rows, wide), self._most_cols())

    def _visit_order(self, rank: int, strides: list[list[int]]) -> list[int]:
        full = [own for own in strides if all(own)]
        if not self.pure or not full:
            return list(range(rank))
        return sorted(range(rank), key=lambda axis: -full[0][axis])

    def _most_cols(self) -> int:
        most = 4096
        while most > 64 and not self._fits(1, most):
            most //= 2
        return most

    def _chunk_rows(self, rows: int, cols: int) -> int:
        """Return how many rows a chunk has: as many as fit, but no fewer than four chunks where they are worth it."""
        if not self._fits(1, cols):
            raise DoesNotFit("one row of the kernel is larger than the buffer")
        row_bytes = sum((cols or each.cols) * each.view.itemsize for each in self._accesses())
        wish = min(rows, max(-(-rows // 4), -(-GOOD_CHUNK_BYTES // max(1, row_bytes))))
        low, high = 1, wish + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle, cols) else (low, middle)
        return low

    def _fits(self, rows: int, cols: int) -> bool:
        """Return whether a chunk of that size fits the buffer, both slots of everything that moves included."""
        accesses = self._accesses()
        moves = tuple(0 if each.fixed_rows and not (self.pure and each.cols > 1) else 1 for each in accesses)
        box = Box(((2, (*moves, 1)),), rows, (*moves, 1), cols, (1,) * (len(accesses) + 1), (0,) * (len(accesses) + 1))
        try:
            self._chunk(Builder(self.machine), box, accesses).dry_run()
        except DoesNotFit:
            return False
        return True


def dense_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a dense tensor."""
    return tuple(math.prod(sizes[place + 1 :]) for place in range(len(sizes)))


def within(loads: Sequence[Access]) -> dict[Access, tuple[Access, int]]:
    """Return the operands that are columns of another one in the same rows: (that one, their first column there).

    The halves of a rotary embedding are, of the whole that is multiplied by the cosines.
    """
    found: dict[Access, tuple[Access, int]] = {}
    for part in loads:
        for whole in loads:
            first = _first_column(part, whole)
            if part is not whole and whole not in found and first is not None:
                found[part] = whole, first
                break
    return found


def _first_column(part: Access, whole: Access) -> int | None:
    """Return where in the columns of ``whole`` those of ``part`` begin, or None where they are not among them."""
    alike = (part.view.storage, part.strides, part.by, part.view.dtype, part.col_stride) == (
        whole.view.storage,
        whole.strides,
        whole.by,
        whole.view.dtype,
        whole.col_stride,
    )
    first, rest = divmod(part.view.offset - whole.view.offset, whole.col_stride)
    inside = not rest and part.cols < whole.cols and 0 <= first <= whole.cols - part.cols
    return first if alike and inside else None


def wide_access(view: View, shape: tuple[int, ...], *, bare: bool = False) -> Access:
    """Return how a view already broadcast to ``shape`` is visited: its last dimension is the columns, unless bare."""
    outer = len(shape) if bare or not shape else len(shape) - 1
    strides = tuple(view.strides[axis] for axis in range(outer) if shape[axis] != 1)
    if outer == len(shape) or view.shape[-1] == 1 or view.strides[-1] == 0:
        return Access(view, strides, 1, view.itemsize)
    return Access(view, strides, shape[-1], view.strides[-1])


def _over(node: ir.Node, view: View) -> list[Dim]:
    """Return the dimensions that a reduction runs over, as few as they can be: their order does not matter."""
    order = sorted(reduced_axes(node), key=lambda axis: -view.strides[axis])
    return collapse([view.shape[axis] for axis in order], [[view.strides[axis] for axis in order]])


def _reduced(node: ir.Node, view: View) -> Access:
    """Return how the operand of a reduction is visited: the dimensions it runs over are the columns."""
    merged = _over(node, view)
    size, (stride,) = merged[0] if merged else (1, (view.itemsize,))
    keep = len(view.shape) - len(reduced_axes(node))
    strides = tuple(view.strides[axis] for axis in range(keep) if view.shape[axis] != 1)
    return Access(view, strides, size, stride)


def _factor(node: ir.Node, view: View, *, first: bool) -> Access:
    """Return how a factor of a product of rows with a vector is visited: the vector repeats as a row."""
    shape = shape_of(operand(node))
    rank = len(view.shape)
    turned = view if first else view.transpose((*range(rank - 2), rank - 1, rank - 2))
    return wide_access(turned.broadcast(shape), shape)


def immediate(value: ir.Value, *, uniform: bool = False) -> float | None:
    """Return the number that an instruction can hold in place of a constant scalar, or None.

    With ``uniform`` also in place of an array in which every number is the same, such as a zero point of every row.
    """
    tensor = value.const_value
    if tensor is None or not (tensor.size == 1 or (uniform and tensor.size)):
        return None
    numbers = tensor.numpy().reshape(-1)
    if machine_dtype(value) not in ("f32", "i32", "i64", "i8", "u8") or np.any(numbers != numbers[0]):
        return None
    number = float(numbers[0])
    return number if machine_dtype(value) == "f32" or abs(number) < EXACT_IMMEDIATE else None


def wanted_order(value: ir.Value) -> list[int] | None:
    """Return the order of dimensions that the only reader, a Transpose that keeps the last one, makes dense."""
    reader = only_user(value)
    if reader is None or reader.op_type != "Transpose":
        return None
    perm = list(reader.attributes.get_ints("perm", list(reversed(range(len(shape_of(value)))))))
    return perm if perm[-1] == len(perm) - 1 else None

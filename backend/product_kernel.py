"""Products of two activations on the array: one operand is written into the cells as dense INT8 weights, head by head.

The columns of the written operand lie in DRAM with K innermost, just as a dense tile holds them, so that a tile comes
with one strided transfer and no other rearrangement. Every batch index (a head) is one part of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from ..frontend.edit import shape_of
from ..isa.streams import Step
from ..passes.estimate import estimate
from ..passes.layout import aligned
from ..passes.mapping import Mapping, groups_of
from ..passes.partition import Kernel
from ..passes.product_cost import column_boxes, writing
from .code import Builder, DoesNotFit, Loop, Pending, Tree, nest, window
from .context import Context
from .linear_body import Job, LinearBody, Result
from .linear_kernel import CellAllocator, Chain, output_taps, results, row_boxes
from .moves import Copy, CopyKernel
from .row_kernel import dense_strides, wanted_order
from .tail_code import TailRun
from .tail_kernel import TailKernel
from .views import Dim, View, collapse

#: Batch dimensions that do not form one loop are gone through by code for each of their indices, up to so many.
_MOST_NESTS = 16


@dataclass(frozen=True)
class Box:
    """Rows and columns of the result that one mapping serves."""

    row: int
    blocks: int
    column: int
    mapping: Mapping


class ProductKernel:
    """MatMulInteger of two tensors made at run time, scaled by rows and columns."""

    def __init__(self, kernel: Kernel, context: Context, cells: CellAllocator) -> None:
        self.chain, self.machine, self.context = Chain.of(kernel), context.machine, context
        self.shape = shape_of(self.chain.output)
        self.batch, (self.m, self.n) = self.shape[:-2], self.shape[-2:]
        self.k = shape_of(self.chain.source)[-1]
        self.copies: list[Copy] = []
        left, right = context.view(self.chain.source), context.view(self.chain.weight)
        self.left = self._innermost(left).broadcast((*self.batch, self.m, self.k))
        swapped = right.transpose([*range(len(right.shape) - 2), len(right.shape) - 1, len(right.shape) - 2])
        self.right = self._innermost(swapped).broadcast((*self.batch, self.n, self.k))
        assert self.chain.column is not None, "its sums are scaled by rows"
        assert self.chain.scales is not None, "its sums are scaled by columns"
        self.by_row = context.view(self.chain.column).broadcast((*self.batch, self.m, 1))
        self.by_column = context.view(self.chain.scales).broadcast((*self.batch, 1, self.n))
        self.tail = self._plan_tail(kernel)
        self.boxes = list(self._boxes())
        if not self.boxes:
            raise DoesNotFit(f"{self.k} x {self.n} cannot be mapped")
        self.unit = cells.spare()
        self.out = self._plan_output()
        if self._nests() > _MOST_NESTS:
            self._straighten()

    def _plan_tail(self, kernel: Kernel) -> TailKernel | None:
        if kernel.tail is None:
            return None
        tail = TailKernel(kernel, self.context, [results(self.chain, self.shape)], self.m, 4 * self.n)
        if tail.branches > 1:
            raise DoesNotFit("branches of columns made at run time")
        return tail

    def _plan_output(self) -> View:
        if self.tail is not None:
            return results(self.chain, self.shape)
        return self.context.output(self.chain.output, wanted_order(self.chain.output))

    def cycles(self) -> int:
        """Return about how many cycles the kernel takes."""
        machine, times = writing(self.machine), prod(self.batch)
        total = 0
        for box in self.boxes:
            rows = times * box.blocks * box.mapping.resident_rows
            every = replace(box.mapping, shape=replace(box.mapping.shape, rows=rows))
            total += estimate(every, groups_of(every, machine), machine)
        return total

    def _innermost(self, view: View) -> View:
        """Return a view whose last dimension has no gaps: a copy where it has."""
        return view if view.strides[-1] == 1 or view.shape[-1] == 1 else self._copied(view)

    def _copied(self, view: View) -> View:
        storage = self.context.scratch(f"{self.chain.product.name}/copy{len(self.copies)}", view.size * view.itemsize)
        dense = View.dense(storage, view.dtype, view.shape)
        self.copies.append((view, dense))
        return dense

    def _boxes(self) -> Iterator[Box]:
        cost = None if self.tail is None else self.tail.cost(self.n)
        for column, shape in column_boxes(self.m, self.k, self.n, self.machine, cost):
            for row, blocks, mapping in row_boxes(shape, writing(self.machine), f"node '{self.chain.product.name}'"):
                yield Box(row, blocks, column, mapping)

    def _parts(self) -> list[Dim]:
        """Return the batch dimensions as few loops: byte strides of all operands, and elements of the result."""
        views = (self.left, self.right, self.by_row, self.by_column, self.out)
        tail = [] if self.tail is None else self.tail.by_batch(self.batch)
        return collapse(self.batch, [*(view.strides[:-2] for view in views), dense_strides(self.shape)[:-2], *tail])

    def _nests(self) -> int:
        count = 1
        for size, _ in self._parts()[:-1]:
            count *= size
        return count

    def _straighten(self) -> None:
        """Lay everything out densely, so that all batch dimensions are one loop."""
        self.left, self.right = self._copied(self.left), self._copied(self.right)
        self.by_row, self.by_column = self._copied(self.by_row), self._copied(self.by_column)
        if self.tail is not None:
            raise DoesNotFit("the row work after a product of many separate matrices")
        strides = View.dense(self.out.storage, self.out.dtype, self.shape).strides
        self.out = self.context.set(self.chain.output, replace(self.out, strides=strides))

    def emit(self, builder: Builder) -> None:
        """Write the kernel's code: batch dimensions that form one loop, box after box."""
        CopyKernel([*self.copies, *([] if self.tail is None else self.tail.copied.values())]).emit(builder)
        width = 6 + (0 if self.tail is None else len(self.tail.layout.row))
        *outer, inner = self._parts() or [(1, (0,) * width)]
        for place in product(*(range(size) for size, _ in outer)):
            start = [
                sum(index * own[which] for index, (_, own) in zip(place, outer, strict=True)) for which in range(width)
            ]
            for box in self.boxes:
                builder.begin_kernel()
                LinearBody(self._job(box, start, inner, builder), builder).write()

    def _job(self, box: Box, start: Sequence[int], part: Dim, builder: Builder) -> Job:
        mapping, by_row = box.mapping, self.by_row
        parts, (left, right, row_scales, column_scales, out, elements, *tail) = part
        row_pitch, scale_pitch = self.out.strides[-2], by_row.strides[-2]
        address = self.out.address + start[4] + box.row * row_pitch + 4 * box.column
        base = start[5] + box.row * self.n + box.column
        taps = (output_taps(self.chain, base, self.n, 1),)
        rows = mapping.resident_rows if scale_pitch else 1
        scales = window(
            by_row.storage.space,
            "f32",
            by_row.address + start[2] + box.row * scale_pitch,
            (rows, 1),
            (scale_pitch or 4, 4),
        )
        return Job(
            mapping,
            box.blocks,
            parts,
            box.row,
            0,
            Result("dram", address, row_pitch, out, taps, elements),
            scales,
            (rows * scale_pitch, row_scales),
            None,
            self._fetch_rows(box, start[0], left),
            self._fetch_columns(box, (start[1], start[3]), (right, column_scales), builder),
            self._row_slots(box, parts),
            self.unit,
            box.column,
            start[5] // (self.m * self.n),
            self._tail_run(tuple(tail), box, tuple(start[6:])),
        )

    def _tail_run(self, part: tuple[int, ...], box: Box, start: tuple[int, ...]) -> TailRun | None:
        if self.tail is None:
            return None
        return TailRun(self.tail, part, start).starting(box.row, box.column)

    def _row_slots(self, box: Box, parts: int) -> int:
        """Return 2 where blocks of vectors can take turns in the buffer."""
        mapping = box.mapping
        more = aligned(mapping.resident_rows * mapping.k_padded) + aligned(4 * mapping.resident_rows)
        fits = mapping.buffer_bytes(resident=False) + more <= self.machine.buffer.bytes
        return 2 if parts * box.blocks > 1 and fits else 1

    def _fetch_rows(self, box: Box, start: int, part_pitch: int) -> Callable[[int, Sequence[Step], Loop, Loop], Tree]:
        mapping, left, pitch = box.mapping, self.left, self.left.strides[-2]
        shape = (mapping.resident_rows, self.k)

        def fetch(address: int, turns: Sequence[Step], part: Loop, block: Loop) -> Tree:
            inside = window("buf", "i8", address, shape, (mapping.k_padded, 1), turns)
            steps = part.step(part_pitch) + block.step(mapping.resident_rows * pitch)
            base = left.address + start + box.row * pitch
            outside = window(left.storage.space, "i8", base, shape, (pitch, 1), steps)
            return [Pending("copy", {"dst": inside, "src": outside}, {"channel": 0})]

        return fetch

    def _fetch_columns(
        self, box: Box, start: tuple[int, int], part_pitch: tuple[int, int], builder: Builder
    ) -> Callable[[int, Sequence[Step], Loop, Loop], Tree]:
        mapping, right, by_column = box.mapping, self.right, self.by_column
        pitch, scale_pitch = right.strides[-2], by_column.strides[-1]
        depth, tile = mapping.depth, mapping.macros * mapping.tile_bytes
        whole, rest = divmod(self.k, depth)

        def fetch(address: int, turns: Sequence[Step], part: Loop, group: Loop) -> Tree:
            loop = builder.loops(whole)[0].over("K step", "K", depth, limit=self.k)
            code: Tree = []
            for first, width, each in ((0, depth, loop), (whole, rest, None)):
                if not width or (each is not None and not whole):
                    continue
                steps = part.step(part_pitch[0]) + group.step(mapping.columns * pitch)
                base = right.address + start[0] + box.column * pitch + first * depth
                outside = window(
                    right.storage.space,
                    "i8",
                    base,
                    (mapping.width, width),
                    (pitch, 1),
                    steps + (each.step(depth) if each else []),
                )
                inside = window(
                    "buf",
                    "i8",
                    address + aligned(mapping.scale_bytes) + first * tile,
                    (mapping.width, width),
                    (depth, 1),
                    [*turns, *(each.step(tile) if each else [])],
                )
                copy: Tree = [Pending("copy", {"dst": inside, "src": outside}, {"channel": 0})]
                code += nest([each], copy) if each else copy
            builder.end_loops([loop])
            return [*code, scales(address, turns, part, group)]

        def scales(address: int, turns: Sequence[Step], part: Loop, group: Loop) -> Pending:
            cols = mapping.width if scale_pitch else 1
            steps = part.step(part_pitch[1]) + group.step(mapping.columns * scale_pitch)
            base = by_column.address + start[1] + box.column * scale_pitch
            outside = window(by_column.storage.space, "f32", base, (1, cols), (4, scale_pitch or 4), steps)
            inside = window("buf", "f32", address, (1, mapping.width), None, turns)
            return Pending("copy", {"dst": inside, "src": outside}, {"channel": 0})

        return fetch

"""Tails: row work on the results of an array kernel, done before they leave the buffer.

The results of the whole array kernel are seen as a view on room that does not exist; only a piece of them, or a block
of whole rows, is ever there. What the row work reads and writes besides comes and goes as in any row kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..passes.partition import Kernel
from ..passes.tail_cost import TailCost
from .boxes import Box, Strides
from .code import Builder, DoesNotFit, busy
from .context import Context
from .moves import view_kernel
from .row_kernel import GOOD_CHUNK_BYTES, Access, RowKernel, dense_strides
from .tail_chunk import TailChunk
from .views import Dim, View, collapse

#: Vectors of which whole rows are worked on at a time while the work is estimated, at least; code takes what fits.
_ROWS = 16


class Unfusable(Exception):
    """An array kernel, named by its first node, whose row work must have a kernel of its own."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node


@dataclass(frozen=True)
class Layout:
    """How the operands of a tail move: for each dimension, the strides of the results, of every access, of the value.

    ``batch`` are matrices of results, ``row`` one vector's results to the next, ``inner`` dimensions within these;
    a tail by pieces has one, the columns.
    """

    batch: tuple[Dim, ...]
    row: Strides
    inner: tuple[Dim, ...]


class TailKernel(RowKernel):
    """Plans the row work after an array kernel whose results have ``vectors`` rows a matrix, ``pitch`` bytes each.

    ``branches`` are equal parts of the columns that the row work combines column by column: the results of linears
    that run together, or parts of one's results.
    """

    def __init__(self, kernel: Kernel, context: Context, results: Sequence[View], vectors: int, pitch: int) -> None:
        """Plan it; ``results`` are those of every product of the kernel.

        Raises:
            Unfusable: the operands do not lie as the results of an array kernel come.
        """
        assert kernel.tail is not None
        self.tail, self.head, self.vectors, self.pitch = kernel.tail, kernel.nodes[0], vectors, pitch
        for value, view in zip(kernel.results, results, strict=True):
            context.set(value, view)
        for node in self.tail.views:
            self._check(not view_kernel(Kernel("view", "dma", "", [node]), context).copies)
        row = Kernel("row", "vector", "", list(self.tail.nodes), dict(self.tail.forms), kept=kernel.kept)
        super().__init__(row, context)
        copied = [view.storage for view, _ in self.copied.values()]
        self._check(bool(self.given) and not any(view.storage in copied for view in results))
        self._check(all(each.view.offset < pitch for each in self.given))
        self.layout = self._layout()
        self.branches = len(results) if self.tail.whole else self._branches()

    def _cut_anywhere(self) -> bool:
        return not self.tail.whole

    def _check(self, condition: bool) -> None:
        if not condition:
            raise Unfusable(self.head)

    def _branches(self) -> int:
        """Return how many branches a tail by pieces combines, each all its columns, side by side in all operands."""
        columns, strides = self.layout.inner[0]
        size = columns * self.given[0].view.itemsize
        self._check(self.pitch % size == 0 and all(each.view.offset % size == 0 for each in self.given))
        self._check(len({each.cols for each in self.given}) == 1)
        self._check(all(stride in (0, each.view.itemsize) for stride, each in zip(strides, self.moving, strict=False)))
        return self.pitch // size

    @property
    def moving(self) -> list[Access]:
        """All operands, in the order of their strides: first the results, then what comes and goes."""
        return [self.given[0], *self._accesses()]

    def _layout(self) -> Layout:
        accesses = self.moving
        self._check(len({each.strides for each in self.given}) == 1)
        sizes, strides = list(self.rows), [list(each.strides) for each in accesses]
        logical = dense_strides(self.rows)
        if not self.tail.whole:
            cols = next(iter(self.forms.values())).cols
            sizes.append(cols)
            for each, own in zip(accesses, strides, strict=True):
                own.append(each.col_stride if each.cols > 1 else 0)
            logical = dense_strides(tuple(sizes))
        strides.append(list(logical))
        order = sorted(range(len(sizes)), key=lambda axis: -strides[0][axis])
        self._check(all(strides[0][axis] > 0 for axis in order if sizes[axis] > 1))
        parts = []
        for outer in (True, False):
            axes = [axis for axis in order if (strides[0][axis] >= self.pitch) is outer]
            parts.append(collapse([sizes[axis] for axis in axes], [[own[axis] for axis in axes] for own in strides]))
        batch, row = self._rows(parts[0], (0,) * len(strides))
        self._check(self.tail.whole or len(parts[1]) == 1)
        return Layout(tuple(batch), row, tuple(parts[1]))

    def _rows(self, outer: list[Dim], still: Strides) -> tuple[list[Dim], Strides]:
        """Take the dimension of a matrix's vectors off the outer ones."""
        if self.vectors == 1:
            return outer, still
        self._check(bool(outer))
        *batch, (size, strides) = outer
        self._check(strides[0] == self.pitch and size % self.vectors == 0)
        if size > self.vectors:
            batch.append((size // self.vectors, tuple(stride * self.vectors for stride in strides)))
        return batch, strides

    def by_batch(self, batch: Sequence[int]) -> list[Strides]:
        """Return how each operand moves with the dimensions of a batch of matrices.

        Raises:
            Unfusable: they are other dimensions to the row work.
        """
        left, still = list(self.layout.batch), (0,) * len(self.layout.row)
        every: list[Strides] = []
        for size in reversed(batch):
            if size == 1:
                every.insert(0, still)
                continue
            self._check(bool(left) and left[-1][0] % size == 0)
            count, own = left.pop()
            every.insert(0, own)
            if count > size:
                left.append((count // size, tuple(size * stride for stride in own)))
        self._check(not left)
        return [tuple(own[place] for own in every) for place in range(len(still))]

    def cost(self, columns: int) -> TailCost:
        """Return what the tail costs on vectors of so many columns a branch, by its instructions' durations."""
        builder = Builder(replace(self.machine, buffer=replace(self.machine.buffer, bytes=1 << 40)))
        moved = sum(each.cols * each.view.itemsize for each in self._accesses())
        rows = min(self.vectors, max(_ROWS, -(-GOOD_CHUNK_BYTES // max(1, moved))))
        box = self.rows_box(rows, 2) if self.tail.whole else self.piece_box(rows, columns, [(2, self.layout.row)])
        inside = (0, len(box.loops) if self.tail.whole else 0)
        chunk = TailChunk(self, builder, box, builder.loops(*(count for count, _ in box.loops)), inside)
        first, loads, stores = chunk.dry_run()
        if not self.tail.whole:  # what is the same for all vectors still comes with every column group
            loads = [*first, *loads]
        turns = box.turns // 2
        coming = [*((1, each) for each in chunk.kept), *((turns, each) for each in loads)]
        times = [busy(each, self.machine) for each in chunk.code]
        return TailCost(
            whole=self.tail.whole,
            rows=rows,
            vector=turns * sum(times),
            last=turns * sum(times[-self.machine.control.queue_depth :]),
            loads=tuple(times * each.streams["dst"].bytes // rows for times, each in coming),
            stores=tuple(turns * each.streams["src"].bytes // rows for each in stores),
            room=-(-builder.buffer(0) // rows),
        )

    def rows_box(self, rows: int, chunks: int, outer: Sequence[Dim] = (), start: Strides | None = None) -> Box:
        """Return the box that works on whole rows of a block, ``rows`` vectors a chunk, inside loops around it.

        Where there is one vector only, what lies within it are the rows.
        """
        layout = self.layout
        still = (0,) * len(layout.row)
        inner, row = list(layout.inner), layout.row
        loops = [*outer, (chunks, tuple(rows * stride for stride in row))]
        if rows == 1 and inner:
            rows, row = inner.pop()
        return Box((*loops, *inner), rows, row, 0, still, still if start is None else start)

    def piece_box(self, rows: int, columns: int, outer: Sequence[Dim], start: Strides | None = None) -> Box:
        """Return the box that works on pieces of ``rows`` vectors and some columns, inside loops around it."""
        row, (_, col) = self.layout.row, self.layout.inner[0]
        return Box(tuple(outer), rows, row, columns, col, (0,) * len(row) if start is None else start)


@contextmanager
def fused(kernel: Kernel) -> Iterator[None]:
    """Say of an array kernel whose tail turns out not to fit that it must do without."""
    try:
        yield
    except DoesNotFit as reason:
        if kernel.tail is None:
            raise
        raise Unfusable(kernel.nodes[0]) from reason

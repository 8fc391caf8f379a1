"""Where the code of a tail stands in that of its array kernel: after every piece of results, or after every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..isa.streams import Stream
from ..passes.mapping import Mapping, Run
from .boxes import Strides, cut, even_chunk, over
from .code import Builder, DoesNotFit, Loop, Tree, nest, window
from .column_groups import ColumnGroups
from .moves import Copy
from .tail_chunk import TailChunk
from .tail_kernel import TailKernel, Unfusable
from .views import Dim

#: A job that is one block of vectors has at least so many chunks, so that transfers overlap with work.
_FEWEST_CHUNKS = 4


@dataclass(frozen=True)
class TailRun:
    """A tail in one job: how its operands move from one part to the next, and where those of the first vector lie."""

    kernel: TailKernel
    part: Strides
    start: Strides

    @classmethod
    def of(cls, kernel: TailKernel) -> TailRun:
        """Return a tail in a kernel whose results are one matrix.

        Raises:
            Unfusable: they are not.
        """
        if kernel.layout.batch:
            raise Unfusable(kernel.head)
        still = (0,) * len(kernel.layout.row)
        return cls(kernel, still, still)

    def starting(self, rows: int = 0, columns: int = 0, at: Strides | None = None) -> TailRun:
        """Return the tail as it begins so many vectors and columns further, and ``at`` that place besides."""
        layout = self.kernel.layout
        col = layout.inner[0][1] if columns else (0,) * len(layout.row)
        moved = zip(self.start if at is None else at, layout.row, col, strict=True)
        return replace(self, start=tuple(a + rows * b + columns * c for a, b, c in moved))

    @property
    def whole(self) -> bool:
        """Whether it works on whole rows."""
        return self.kernel.tail.whole

    def extent(self, mapping: Mapping) -> tuple[int, int]:
        """Return the vectors and columns of results that are in the buffer at once."""
        return (mapping.resident_rows, mapping.shape.n) if self.whole else (mapping.vectors, mapping.width)


def copies_of(run: TailRun | None) -> list[Copy]:
    """Return the copies of operands that must be made before a tail."""
    return [] if run is None else list(run.kernel.copied.values())


class TailCode:
    """The code of a tail in one job.

    ``early`` comes before a block of vectors and ``block`` after it; a tail by pieces has its code in :meth:`piece`.
    """

    def __init__(self, run: TailRun, mapping: Mapping, builder: Builder, outer: Sequence[Loop], address: int) -> None:
        self.run, self.mapping, self.builder, self.outer, self.address = run, mapping, builder, outer, address
        self.like: TailChunk | None = None
        self.early: Tree = []
        self.block: Tree = []
        if run.whole:
            self._plan_block()

    def _around(self) -> list[Dim]:
        """Return how operands move with parts and blocks of vectors."""
        row = self.run.kernel.layout.row
        block = tuple(self.mapping.resident_rows * stride for stride in row)
        return [(self.outer[0].count, self.run.part), (self.outer[1].count, block)]

    def piece(self, run: Run, piece: Loop, groups: ColumnGroups) -> tuple[Tree, Tree]:
        """Return what comes before the products of a piece, and what follows its dequantisation.

        The pieces are in the loops over column ``groups``.
        """
        if self.run.whole:
            return [], []
        kernel, mapping = self.run.kernel, self.mapping
        row, (_, col) = kernel.layout.row, kernel.layout.inner[0]
        around = [*self._around(), *groups.dims(tuple(mapping.branch_columns * stride for stride in col))]
        outer = [*around, (run.count, tuple(run.step * stride for stride in row))]
        start = self.run.starting(run.start, groups.first * mapping.branch_columns).start
        box = kernel.piece_box(run.size, mapping.branch_width, outer, start)
        chunk = TailChunk(kernel, self.builder, box, [*self.outer, *groups.loops, piece], (self.address, 0), self.like)
        self.like = self.like or chunk
        loads, stores = chunk.begin()
        return [*loads], [*chunk.code, *stores]

    def held(self, run: Run, piece: Loop, groups: ColumnGroups, branch: int, dtype: str) -> Stream:
        """Return where the results of a piece lie for the tail: one branch after the other, or in their whole rows."""
        mapping, width = self.mapping, self.mapping.branch_width
        if not self.run.whole:
            return window("buf", dtype, self.address + 4 * branch * run.size * width, (run.size, width))
        n, columns = mapping.shape.n, mapping.branch_columns
        first = branch * (n // mapping.shape.branches) + groups.first * columns
        steps = groups.step(4 * columns) + piece.step(run.step * 4 * n)
        return window("buf", dtype, self.address + 4 * (run.start * n + first), (run.size, width), (4 * n, 4), steps)

    def _plan_block(self) -> None:
        kernel, cuts = self.run.kernel, self._cuts(self._chunk_rows())
        for (count, _), size, offset in cuts:
            start = tuple(a + b for a, b in zip(self.run.start, offset, strict=True))
            box = kernel.rows_box(size, count, self._around(), start)
            inside = self.builder.loops(*(count for count, _ in box.loops[2:]))
            first = self.address + offset[0]
            chunk = TailChunk(kernel, self.builder, box, [*self.outer, *inside], (first, len(inside)))
            loads, stores = chunk.begin()
            outer, *inner = over(replace(box, loops=box.loops[2:]), inside, 0)
            turning = any(loop.level is not None for loop in inner)
            before, moving = (chunk.kept, loads) if turning else (loads, [])
            body = chunk.around(nest(inner, [*moving, *chunk.code, *stores]))
            if len(cuts) == 1 and count == 1:
                self.early, before = [*before], []
            self.block += nest([outer], [*before, *body])

    def _chunk_rows(self) -> int:
        """Return how many whole rows are worked on at a time: as many as fit, several chunks in the whole job."""
        most = self.mapping.resident_rows
        if self.outer[0].count * self.outer[1].count < _FEWEST_CHUNKS:
            most = -(-most // _FEWEST_CHUNKS)
        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(even_chunk(self.mapping.resident_rows, middle)) else (low, middle)
        if not low:
            raise DoesNotFit("one row of the row work is larger than what is left of the buffer")
        return even_chunk(self.mapping.resident_rows, low)

    def _cuts(self, rows: int) -> list[tuple[Dim, int, Strides]]:
        """Return the chunks of so many rows of a block, and the chunk that is left over, if any."""
        row = self.run.kernel.layout.row
        return list(cut((self.mapping.resident_rows, row), rows, (0,) * len(row)))

    def _fits(self, rows: int) -> bool:
        machine, top = self.builder.machine, self.builder.buffer(0)
        left = replace(machine, buffer=replace(machine.buffer, bytes=machine.buffer.bytes - top))
        trial, kernel = Builder(left), self.run.kernel
        try:
            for _, size, _ in self._cuts(rows):
                box = kernel.rows_box(size, 2)
                TailChunk(
                    kernel, trial, box, trial.loops(*(count for count, _ in box.loops)), (0, len(box.loops))
                ).dry_run()
        except DoesNotFit:
            return False
        return True

"""Streams: what an operand is. A strided two-dimensional window on one memory that moves with the loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

#: The memories. ``const`` and ``dram`` are both DRAM: the first holds what the object file brings and is read only.
#: ``buf`` is the on-chip buffer, ``acc`` the accumulators beside the macros, ``cells`` the macros' weight sets.
SPACES = ("const", "dram", "buf", "acc", "cells")

#: Element types and their size in bytes. ``b8`` is a truth value, one byte, 0 or 1.
DTYPES = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "i64": 8, "f16": 2, "f32": 4, "b8": 1}


@dataclass(frozen=True)
class Step:
    """Moves a stream by ``stride`` bytes an iteration of loop ``level``.

    With a ``period`` it goes round a ring of so many places: then iterations are counted on, modulo the period, when
    an outer loop enters this one again (a count that starts when the outermost loop does).
    """

    level: int
    stride: int
    period: int = 0

    def offset(self, iteration: int) -> int:
        """Return the bytes added in that iteration."""
        return (iteration % self.period if self.period else iteration) * self.stride

    def reach(self, trips: int) -> tuple[int, int]:
        """Return the least and the greatest offset over that many iterations."""
        last = (min(trips, self.period) if self.period else trips) - 1
        return min(0, last * self.stride), max(0, last * self.stride)


@dataclass(frozen=True)
class Stream:
    """Rows x columns of one element type in one memory.

    Element (i, j) lies at ``base + i * row_pitch + j * col_pitch`` bytes plus the offsets of the steps.
    In ``acc`` the address of accumulator (vector v, macro p, column c) is ``4 * ((v * macros + p) * columns + c)``;
    in ``cells`` a unit is the weights of one macro in one weight set, at ``set * macros + macro``.
    """

    space: str
    dtype: str
    base: int
    rows: int
    cols: int
    row_pitch: int
    col_pitch: int
    steps: tuple[Step, ...] = ()

    @classmethod
    def dense(cls, space: str, dtype: str, base: int, rows: int, cols: int) -> Stream:
        """Return a stream without gaps: what the ``stream`` instruction sets."""
        size = DTYPES[dtype]
        return cls(space, dtype, base, rows, cols, cols * size, size)

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return DTYPES[self.dtype]

    @property
    def elements(self) -> int:
        """Rows times columns."""
        return self.rows * self.cols

    @property
    def bytes(self) -> int:
        """Bytes of all elements, gaps not counted."""
        return self.elements * self.itemsize

    @property
    def is_dense(self) -> bool:
        """Whether the pitches are the ones that ``stream`` sets."""
        return self.col_pitch == self.itemsize and self.row_pitch == self.cols * self.itemsize

    def with_pitch(self, row: int, col: int) -> Stream:
        """Return the stream with other pitches."""
        return replace(self, row_pitch=row, col_pitch=col)

    def with_step(self, step: Step) -> Stream:
        """Return the stream with one step added, or replaced when its level has one."""
        others = [old for old in self.steps if old.level != step.level]
        return replace(self, steps=tuple(sorted([*others, step], key=lambda each: each.level)))

    def address(self, iterations: Sequence[int], running: Sequence[int]) -> int:
        """Return the byte address of element (0, 0).

        ``iterations`` holds the iteration of every loop level, ``running`` the iterations of every level since the
        outermost loop began.
        """
        return self.base + sum(step.offset((running if step.period else iterations)[step.level]) for step in self.steps)

    def extent(self) -> tuple[int, int]:
        """Return the first byte and the one after the last, relative to element (0, 0)."""
        corners = [i * self.row_pitch + j * self.col_pitch for i in (0, self.rows - 1) for j in (0, self.cols - 1)]
        return min(corners), max(corners) + self.itemsize

    def runs(self) -> tuple[int, int]:
        """Return (number, bytes) of the contiguous runs the elements form, as a DMA sees them."""
        if self.col_pitch != self.itemsize and self.cols > 1:
            return self.elements, self.itemsize
        if self.row_pitch == self.cols * self.itemsize or self.rows == 1:
            return 1, self.bytes
        return self.rows, self.cols * self.itemsize

"""Boxes: the rows x columns that a kernel visits, cut into equal chunks that fit the buffer, and what is left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .code import Loop
from .views import Dim

Strides = tuple[int, ...]


@dataclass(frozen=True)
class Box:
    """A perfect nest of loops around one chunk of rows x cols.

    Strides and ``offset`` have one entry for each operand (bytes) and a last one for the position in the graph's
    value (elements, or rows where ``cols`` is 0: every operand then has its own columns).
    """

    loops: tuple[Dim, ...]
    rows: int
    row_strides: Strides
    cols: int
    col_strides: Strides
    offset: Strides

    @property
    def turns(self) -> int:
        """Iterations of the whole nest."""
        total = 1
        for count, _ in self.loops:
            total *= count
        return total


def over(box: Box, loops: Sequence[Loop], limit: int = 0) -> list[Loop]:
    """Return the loops of a box (or one of one turn) saying which rows or elements of the value they work on.

    ``limit``: how many there are in all. What nested loops add to the first row or element adds up.
    """
    size = box.rows if box.row_strides[-1] == 1 and not box.cols else 0
    if box.cols and box.col_strides[-1] == 1:
        size = box.cols * (box.rows if box.rows == 1 or box.row_strides[-1] == box.cols else 0)
    named: list[Loop] = []
    unit = "elements" if box.cols else "rows"
    start = box.offset[-1]
    for loop, (count, strides) in zip(reversed(loops), reversed(box.loops), strict=True):
        size = size if strides[-1] == size else 0
        named.append(loop.over("chunk", unit, size, step=strides[-1], start=start, limit=limit))
        size, start = size * count, 0
    return named[::-1] or [Loop(1, None).over("chunk", unit, size, start=start, limit=limit)]


def _scaled(strides: Strides, factor: int) -> Strides:
    return tuple(stride * factor for stride in strides)


def _sum(a: Strides, b: Strides) -> Strides:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def divisor(number: int, most: int) -> int:
    """Return the greatest divisor of ``number`` that is at most ``most``."""
    return next(each for each in range(min(number, most), 0, -1) if number % each == 0)


def even_chunk(number: int, most: int) -> int:
    """Return a chunk of at most ``most``: a divisor where a large one exists, so that nothing is left over."""
    even = divisor(number, most)
    return even if 2 * even > most or even == number else most


def cut(dim: Dim, chunk: int, offset: Strides) -> Iterator[tuple[Dim, int, Strides]]:
    """Yield (loop, chunk, offset) of the whole chunks of a dimension, and of the rest."""
    size, strides = dim
    whole = size // chunk
    if whole:
        yield (whole, _scaled(strides, chunk)), chunk, offset
    if size % chunk:
        yield (1, strides), size % chunk, _sum(offset, _scaled(strides, whole * chunk))


def boxes(
    dims: Sequence[Dim], width: int, cols: int, chunk_rows: Callable[[int, int], int], most_cols: int
) -> list[Box]:
    """Return the boxes that visit all of ``dims``.

    ``cols`` 0: the dims are rows only. Otherwise the last dim is the columns, at most ``most_cols`` a chunk.
    ``chunk_rows(rows, cols)`` says how many of so many rows fit a chunk; ``width`` is the length of the strides.
    """
    zero = (0,) * width
    left = list(dims)
    if cols:
        if len(left) == 1 and left[0][0] > 1:
            left = _fold(left[0], most_cols)
        col_dim = left.pop() if left else (1, zero)
        return [
            box
            for loop, wide, offset in cut(col_dim, even_chunk(col_dim[0], most_cols), zero)
            for box in _row_boxes([*left, loop], wide, col_dim[1], offset, chunk_rows, moved=True)
        ] + _fold_rest(dims, width, most_cols)
    return _row_boxes(left, 0, zero, zero, chunk_rows, moved=False)


def _fold(dim: Dim, most: int) -> list[Dim]:
    size, strides = dim
    wide = even_chunk(size, min(most, 1024))
    return [(size // wide, _scaled(strides, wide)), (wide, strides)]


def _fold_rest(dims: Sequence[Dim], width: int, most: int) -> list[Box]:
    if len(dims) != 1 or dims[0][0] == 1:
        return []
    size, strides = dims[0]
    wide = even_chunk(size, min(most, 1024))
    rest = size % wide
    if not rest:
        return []
    return [Box((), 1, (0,) * width, rest, strides, _scaled(strides, size - rest))]


def _row_boxes(
    dims: Sequence[Dim],
    cols: int,
    col_strides: Strides,
    offset: Strides,
    chunk_rows: Callable[[int, int], int],
    *,
    moved: bool,
) -> list[Box]:
    """Make the boxes of the row dims; with ``moved`` the last of them is the loop over column chunks."""
    rows_at = len(dims) - (2 if moved else 1)
    row_dim: Dim = dims[rows_at] if rows_at >= 0 else (1, (0,) * len(offset))
    outer = [dim for place, dim in enumerate(dims) if place != rows_at]
    chunk = even_chunk(row_dim[0], chunk_rows(row_dim[0], cols))
    found = []
    for loop, rows, start in cut(row_dim, chunk, offset):
        loops = tuple(dim for dim in (*outer, loop) if dim[0] > 1)
        found.append(Box(loops, rows, row_dim[1], cols, col_strides, start))
    return found


def ring(loops: Sequence[Loop]) -> Loop | None:
    """Return the loop with which two slots of a buffer take turns: the innermost that turns at all."""
    return next((loop for loop in reversed(loops) if loop.level is not None), None)

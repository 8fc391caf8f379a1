"""Boxes visit every element exactly once, in chunks no larger than asked for."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexc.backend.boxes import Box, boxes, cut, divisor, even_chunk, ring
from flexc.backend.code import Loop
from flexc.backend.row_kernel import dense_strides
from flexc.backend.views import Dim, collapse

SIZES = st.lists(st.integers(1, 13), max_size=4)


def visited(box: Box) -> Iterator[int]:
    """Yield the element numbers that a box visits (the only operand's strides are those of a dense tensor)."""
    columns = [j * box.col_strides[0] for j in range(box.cols or 1)]
    for place in itertools.product(*(range(count) for count, _ in box.loops)):
        start = box.offset[0] + sum(i * own[0] for i, (_, own) in zip(place, box.loops, strict=True))
        for row in range(box.rows):
            yield from (start + row * box.row_strides[0] + column for column in columns)


def dims_of(sizes: list[int]) -> list[Dim]:
    return [
        (size, (stride, stride)) for size, stride in zip(sizes, dense_strides(tuple(sizes)), strict=True) if size > 1
    ]


@settings(max_examples=40)
@given(SIZES, st.booleans(), st.integers(1, 9), st.integers(1, 9))
def test_every_element_once(sizes: list[int], with_columns: bool, most_rows: int, most_cols: int) -> None:
    dims = collapse(sizes, [dense_strides(tuple(sizes))] * 2) if with_columns else dims_of(sizes)
    cols = sizes[-1] if with_columns and sizes else 0
    found = boxes(dims, 2, cols, lambda rows, _cols: min(rows, most_rows), most_cols)
    count = Counter(number for box in found for number in visited(box))
    assert count == Counter(range(math.prod(sizes)))
    assert all(box.rows <= most_rows and box.cols <= max(1, most_cols) for box in found)
    assert all(count > 1 for box in found for count, _ in box.loops)
    assert sum(box.turns * box.rows * (box.cols or 1) for box in found) == math.prod(sizes)


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 200))
def test_cut_covers_a_dimension(size: int, chunk: int) -> None:
    parts = list(cut((size, (3,)), chunk, (7,)))
    places = [offset + 3 * chunk_ * i for (count, _), chunk_, (offset,) in parts for i in range(count)]
    lengths = [chunk_ for (count, _), chunk_, _ in parts for _ in range(count)]
    assert places == [7 + 3 * sum(lengths[:i]) for i in range(len(lengths))]
    assert sum(lengths) == size
    assert all((stride,) == (3 * chunk_,) for (count, (stride,)), chunk_, _ in parts if count > 1)


@settings(max_examples=40)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_chunks_are_even_where_that_costs_little(number: int, most: int) -> None:
    even, best = even_chunk(number, most), divisor(number, most)
    assert 1 <= even <= most
    assert number % best == 0
    assert even in (best, most)
    if 2 * best > most:
        assert number % even == 0


@pytest.mark.parametrize(
    ("loops", "turning"),
    [
        ([Loop(3, 0), Loop(2, 1)], Loop(2, 1)),
        ([Loop(3, 0), Loop(1, None)], Loop(3, 0)),
        ([Loop(1, None)], None),
        ([], None),
    ],
)
def test_the_innermost_loop_that_turns_changes_slots(loops: list[Loop], turning: Loop | None) -> None:
    assert ring(loops) == turning

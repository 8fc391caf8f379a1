"""Vector operations along a row: their values, and that their cost grows with what they look at."""

from __future__ import annotations

import numpy as np
import pytest

from flexc.emulator.timing import time_program
from flexc.isa.encoding import instr
from tests.emulator import programs as p
from tests.emulator.test_vector import execute, same

TIES = np.array([[3, 1, 3, 2], [0, 0, 0, 0]], np.float32)[None]


@pytest.mark.parametrize(("least", "expected"), [(0, [[0, 2, 3], [0, 1, 2]]), (1, [[1, 3, 0], [0, 1, 2]])])
def test_equal_ones_rank_in_order_of_column(least: int, expected: list[list[int]]) -> None:
    same(execute("vrank", "i64", (2, 3), {"a": TIES}, least=least), np.array([expected]))


def test_nan_ranks_first() -> None:
    a = np.array([[[1, np.nan, np.inf, -np.inf]]], np.float32)
    same(execute("vrank", "i32", (1, 4), {"a": a}), np.array([[[1, 2, 0, 3]]], np.int32))


def test_picking_wraps_then_clamps() -> None:
    a = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    index = np.array([[[0, -1, 9], [2, 2, -9]]], np.int64)
    same(execute("vpick", "f32", (2, 3), {"a": a, "index": index}), np.array([[[0, 3, 3], [6, 6, 4]]], np.float32))


def test_putting_keeps_the_last_and_the_rest() -> None:
    a = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    index = np.array([[[0, -1, 0], [1, 1, 9]]], np.int32)
    expected = np.array([[[3, 0, 0, 2], [0, 5, 0, 6]]], np.float32)
    same(execute("vput", "f32", (2, 4), {"a": a, "index": index}), expected)


@pytest.mark.parametrize("dtype", ["f32", "i32", "i64"])
def test_running_sums(dtype: str) -> None:
    a = np.array([[[1, 2, 3], [4, -5, 6]]], {"f32": np.float32, "i32": np.int32, "i64": np.int64}[dtype])
    same(execute("vscan", dtype, (2, 3), {"a": a}), np.cumsum(a, axis=2, dtype=a.dtype))


@pytest.mark.parametrize(("cols", "places", "passes"), [(64, 1, 1), (64, 8, 8), (64, 64, 21), (1, 1, 1)])
def test_ranking_takes_a_pass_a_place_or_a_sorting_network(cols: int, places: int, passes: int) -> None:
    code = [
        p.stream(0, "buf", "i32", 0x4000, 64, places),
        p.stream(1, "buf", "f32", 0, 64, cols),
        instr("vfill", dst=1, imm=0.0),
        instr("vrank", dst=0, a=1),
    ]
    with_it, without = (time_program(p.program(each)).cycles for each in (code, code[:3]))
    assert with_it - without == pytest.approx(cols * 2 * passes, abs=2)

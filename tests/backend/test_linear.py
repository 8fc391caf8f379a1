"""Linears: every pattern and machine, sizes that divide nothing, exact sums by numpy alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.frontend.load import load
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program, Tile
from flexc.isa.verifier import verify
from flexc.passes.pattern import DENSE, NM
from flexc.passes.prune import NM_KEY
from flexc.passes.quantise import quantise
from tests.backend.compare import SMALL, small_machine
from tests.backend.models import check, engines, parsed

Array = npt.NDArray[Any]

PATTERNS = [DENSE, *(NM(n, m) for m in (2, 4, 8, 16) for n in range(1, m + 1))]
#: (vectors, K, N): one vector, K no multiple of a block or a tile, N no multiple of 32, more than accumulators hold.
SHAPES = ((1, 7, 5), (3, 130, 33), (37, 200, 100), (130, 31, 32), (5, 1025, 31), (259, 48, 65))


def sparse_codes(k: int, n: int, pattern: NM, rng: np.random.Generator) -> Array:
    """Return weights [k, n] within 127 that reach 127 in every column, at most N in every block of M along k."""
    rank = rng.random((-(-k // pattern.m), pattern.m, n)).argsort(axis=1).reshape(-1, n)[:k]
    codes = rng.integers(-126, 127, (k, n)) * (rank < pattern.n)
    codes[np.argmax(rank < pattern.n, axis=0), np.arange(n)] = 127
    return codes


def linear(rows: int, codes: Array, pattern: NM) -> ir.Model:
    """Return a quantised linear whose weight scales are 1."""
    model = load(
        parsed(f"(float[{rows},{len(codes)}] x) => (float[] y) {{ y = MatMul(x, w) }}", w=codes.astype(np.float32))
    )
    next(iter(model.graph)).metadata_props[NM_KEY] = str(pattern)
    return quantise(model)


def assert_exact(shape: tuple[int, int, int], pattern: NM, machine: Machine) -> None:
    """Run a linear on whole numbers that reach 127 in every vector, so that all scales are 1, and compare the sums."""
    rows, k, n = shape
    rng = np.random.default_rng(rows + k + n)
    codes, x = sparse_codes(k, n, pattern, rng), rng.integers(-127, 128, (2, rows, k))
    x[:, :, rng.integers(k)] = 127
    program = lower(linear(rows, codes, pattern), machine)
    assert not verify(program)
    assert time_program(program) == time_program(program, jump=False)
    result = Executor(program).run({"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(result, (x @ codes).astype(np.float32))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("preset", ["edge", "server", "resident"])
def test_every_pattern_on_every_preset(pattern: NM, preset: str) -> None:
    place = PATTERNS.index(pattern) + len(preset)
    assert_exact(SHAPES[place % len(SHAPES)], pattern, load_machine(preset))


@pytest.mark.parametrize("size", SMALL, ids=str)
@pytest.mark.parametrize("pattern", ["dense", "1:4", "3:8", "1:16"])
def test_machines_too_small_to_hold_anything_twice(size: tuple[int, int, int], pattern: str) -> None:
    for shape in ((1, 260, 70), (70, 130, 33)):
        assert_exact(shape, NM.parse(pattern), small_machine(*size))


@pytest.mark.parametrize("rows", [65, 83, 129, 191, 197, 259])
@pytest.mark.parametrize("sets", [0, 1, 2])
def test_vectors_that_do_not_divide_into_pieces(rows: int, sets: int) -> None:
    """A last shorter piece raced for the slot of the one before."""
    for n in (32, 300):
        assert_exact((rows, 40, n), DENSE, small_machine(64, 4, sets))


def test_an_odd_number_of_pieces_in_each_of_several_column_groups() -> None:
    """The last groups have loops of their own; slots for results go on taking turns."""
    weight = np.random.default_rng(0).standard_normal((128, 512)).astype(np.float32)
    graph = quantise(load(parsed("(float[784,128] x) => (float[] y) { y = MatMul(x, w) }", w=weight)))
    assert not verify(lower(graph, load_machine("edge")))


def test_batches_are_rows() -> None:
    weight = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float32)
    program = check("(float[3,5,20] x) => (float[] y) { y = MatMul(x, w) }", w=weight)
    assert engines(program) == ["vector", "array"]


def test_one_quantised_activation_serves_all_linears_that_read_it() -> None:
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 20, 33)).astype(np.float32)
    program = check(
        "(float[5,20] x) => (float[] a, float[] b, float[] c)"
        "{ a = MatMul(x, q)  b = MatMul(x, k)  r = MatMul(x, v)  c = Relu(r) }",
        q=q,
        k=k,
        v=v,
    )
    assert engines(program) == ["vector", "array", "array", "array"]


@pytest.mark.parametrize("shape", ["35", "5,7", "7,5", "5,7,1", "1,5,1,7", "35,1"])
def test_a_result_reshaped_in_any_way(shape: str) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
    check(
        f"(float[5,6] x) => (float[] y) <int64[{shape.count(',') + 1}] shape = {{{shape}}}>"
        "{ z = MatMul(x, w)  y = Reshape(z, shape) }",
        w=weight,
    )


def test_a_bias_behind_a_reshape_is_added_by_the_array_kernel() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((6, 40)).astype(np.float32), rng.standard_normal(40).astype(np.float32)
    program = check("(float[2,3,6] x) => (float[] y) { z = MatMul(x, w)  y = Add(b, z) }", w=weight, b=bias)
    assert engines(program) == ["vector", "array"]


@pytest.mark.parametrize("summand", ["row", "column"])
def test_what_is_no_bias_is_added_afterwards(summand: str) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    other = np.arange(200 if summand == "row" else 5, dtype=np.float32).reshape(5, -1)
    program = check("(float[5,6] x) => (float[] y) { z = MatMul(x, w)  y = Add(z, b) }", w=weight, b=other)
    assert engines(program) == ["vector", "array"]


def test_a_result_that_is_an_output_and_is_used_inside() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    check("(float[5,6] x) => (float[] y, float[] z) { y = MatMul(x, w)  z = MatMul(y, w) }", w=weight)


def test_a_weight_read_by_two_linears() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    check("(float[5,6] x, float[2,6] u) => (float[] y, float[] z) { y = MatMul(x, w)  z = MatMul(u, w) }", w=weight)


@pytest.mark.parametrize("shape", [(259, 1025, 300), (3, 130, 33)])
def test_tile_coordinates_say_where_results_go(shape: tuple[int, int, int]) -> None:
    """The taps, which --check holds to the values, and the coordinates of the loops around them agree."""
    rows, k, n = shape
    codes = sparse_codes(k, n, NM(2, 4), np.random.default_rng(1))
    program = lower(linear(rows, codes, NM(2, 4)), load_machine("edge"))
    around = {tap: dict(open_tiles(program, tap.pc)) for tap in program.debug.taps if tap.operand == "acc"}
    assert around
    for tap, tiles in around.items():
        groups = [tile for tile in tiles.values() if tile.unit.startswith("columns")]
        assert [tile.step for tile in groups] == [step.stride for step in tap.col_steps]
        assert [tile.limit for tile in groups[:1]] == [n] * len(groups[:1])
        moves = {step.level: step.stride // n for step in tap.steps}
        vectors = {level: tile.step for level, tile in tiles.items() if "vectors" in tile.unit}
        assert vectors == {level: by for level, by in moves.items() if level in vectors}
        assert set(moves) == set(tiles) - {level for level, tile in tiles.items() if tile.unit == "K"}
    steps = [tile for tile in program.debug.tiles if tile.what == "K step"]
    assert all(tile.count * tile.size >= k > (tile.count - 1) * tile.size and tile.limit == k for tile in steps)


def open_tiles(program: Program, pc: int) -> Iterator[tuple[int, Tile]]:
    """Yield the levels that are open at an instruction, with the coordinates of their loops."""
    known = {tile.pc: tile for tile in program.debug.tiles if tile.count > 1}
    opened: list[int] = []
    for place, instruction in enumerate(program.code[:pc]):
        if instruction.mnemonic == "loop":
            opened.append(place)
        elif instruction.mnemonic == "endloop":
            opened.pop()
    yield from ((program.code[place].integer("level"), known[place]) for place in opened)

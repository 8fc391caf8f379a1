"""Products of two activations on the array: sizes that divide nothing, shared heads, layouts, machines; exact sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.frontend.load import load
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from flexc.isa.verifier import verify
from flexc.passes.product_cost import place_products
from flexc.passes.quantise import quantise
from flexc.passes.session import Session
from tests.backend.compare import SMALL, small_machine
from tests.backend.models import engines, parsed, random_feeds

Array = npt.NDArray[Any]

#: Batch, M, K, N: one row, more rows than accumulators hold, K beyond a tile and no multiple of one, N likewise.
SHAPES = ((1, 1, 7, 5), (2, 20, 16, 33), (3, 130, 64, 64), (2, 5, 200, 40), (1, 33, 230, 129), (5, 17, 130, 32))


def lowered(model: onnx.ModelProto, machine: Machine) -> tuple[Any, Program]:
    """Return the graph with its products in integer form, and its verified program."""
    graph = quantise(load(model))
    place_products(graph, machine, lambda _node: "array")
    program = lower(graph, machine)
    assert not verify(program)
    assert time_program(program) == time_program(program, jump=False)
    return graph, program


def assert_exact(text: str, machine: Machine, **constants: Array) -> Program:
    """Run a graph of exact operators and products of its inputs, and compare with onnxruntime bit by bit."""
    model = parsed(text, **constants)
    graph, program = lowered(model, machine)
    assert [op.engine for op in program.debug.ops].count("array") == 1
    feeds = random_feeds(model)
    results, session = Executor(program).run(feeds), Session(graph)
    for window in range(2):
        for name, expected in session.run({name: each[window] for name, each in feeds.items()}).items():
            np.testing.assert_array_equal(results[name][window], expected, err_msg=f"{name}, window {window}")
    return program


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", SMALL[1:], ids=str)
def test_sizes(shape: tuple[int, int, int, int], size: tuple[int, int, int]) -> None:
    batch, m, k, n = shape
    text = f"(float[{batch},{m},{k}] a, float[{batch},{k},{n}] b) => (float[] y) {{ y = MatMul(a, b) }}"
    assert_exact(text, small_machine(*size))


@pytest.mark.parametrize("target", ["edge", "resident", "server"])
def test_presets(target: str) -> None:
    text = "(float[3,40,64] a, float[3,64,200] b) => (float[] y) { y = MatMul(a, b) }"
    assert_exact(text, load_machine(target))


def test_a_transposed_operand_is_quantised_as_it_lies() -> None:
    text = """(float[1,40,3,16] q, float[1,50,3,16] k) => (float[] y) {
        a = Transpose <perm = [0, 2, 1, 3]> (q) b = Transpose <perm = [0, 2, 3, 1]> (k) y = MatMul(a, b)
    }"""
    assert_exact(text, load_machine("edge"))


def test_heads_that_share_a_key_share_its_codes() -> None:
    text = """(float[1,2,40,16] k, float[1,6,9,16] q) => (float[] y) {
        wide = Unsqueeze(k, two) many = Expand(wide, five) heads = Reshape(many, four)
        turned = Transpose <perm = [0, 1, 3, 2]> (heads) y = MatMul(q, turned)
    }"""
    shapes = {"five": [1, 2, 3, 40, 16], "four": [1, 6, 40, 16], "two": [2]}
    program = assert_exact(
        text, load_machine("edge"), **{name: np.array(value, np.int64) for name, value in shapes.items()}
    )
    quantised = [tap.shape for tap in program.debug.taps if tap.dtype == "i8"]
    assert (1, 2, 40, 16) in quantised
    assert (1, 6, 40, 16) not in quantised


def test_shared_values_of_heads_are_transposed_before_they_are_repeated() -> None:
    text = """(float[1,2,40,16] v, float[1,6,9,40] p) => (float[] z) {
        wide = Unsqueeze(v, two) many = Expand(wide, five) heads = Reshape(many, four) y = MatMul(p, heads)
        t = Transpose <perm = [0, 2, 1, 3]> (y) z = Reshape(t, flat)
    }"""
    shapes = {"five": [1, 2, 3, 40, 16], "four": [1, 6, 40, 16], "two": [2], "flat": [1, 9, 96]}
    program = assert_exact(
        text, load_machine("edge"), **{name: np.array(value, np.int64) for name, value in shapes.items()}
    )
    assert (1, 2, 16, 40) in [tap.shape for tap in program.debug.taps if tap.dtype == "i8"]


@pytest.mark.parametrize(
    ("left", "right"),
    [("3,2,9,16", "2,16,40"), ("2,3,9,16", "2,1,16,40"), ("9,16", "2,16,40"), ("20,2,9,16", "1,2,16,8")],
)
def test_operands_repeat_over_batches(left: str, right: str) -> None:
    text = f"(float[{left}] a, float[{right}] b) => (float[] y) {{ y = MatMul(a, b) }}"
    assert_exact(text, load_machine("edge"))


def test_a_result_that_is_only_read_transposed_is_written_that_way() -> None:
    text = """(float[2,3,40,20] p, float[2,3,20,32] v) => (float[] y) {
        o = MatMul(p, v) t = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape(t, flat)
    }"""
    program = assert_exact(text, load_machine("edge"), flat=np.array([2, 40, 96], np.int64))
    assert "dma" not in engines(program)


def test_factors_are_applied_before_quantising() -> None:
    text = """(float[1,2,9,16] q, float[1,2,40,16] k) => (float[] y) {
        t = Transpose <perm = [0, 1, 3, 2]> (k) s = Mul(t, factor) y = MatMul(q, s)
    }"""
    program = assert_exact(text, load_machine("edge"), factor=np.array(-0.25, np.float32))
    assert (1, 2, 40, 16) in [tap.shape for tap in program.debug.taps if tap.dtype == "i8"]


def test_writing_cells_at_run_time_takes_time_where_weights_are_resident() -> None:
    text = "(float[3,40,64] a, float[3,64,64] b) => (float[] y) { y = MatMul(a, b) }"
    _, program = lowered(parsed(text), load_machine("resident"))
    timing = time_program(program)
    assert timing.busy["weights"] == 3 * 32
    assert timing.counters["cell_write"] == 3 * 64 * 64


def test_integer_products_of_others_without_scales_run_on_the_host() -> None:
    text = "(int8[2,9,16] a, int8[2,16,8] b) => (int32[] y) { y = MatMulInteger(a, b) }"
    program = lower(load(parsed(text)), load_machine("edge"))
    assert engines(program) == ["host"]


def test_runs_of_fewer_windows_follow_runs_of_more() -> None:
    model = parsed("(float[2,9,16] a, float[2,16,8] b) => (float[] y) { y = MatMul(a, b) }")
    _, program = lowered(model, load_machine("edge"))
    feeds, executor = random_feeds(model, 3), Executor(program)
    every = executor.run(feeds)["y"]
    for part in (slice(0, 2), slice(2, 3), slice(0, 3)):
        again = executor.run({name: array[part] for name, array in feeds.items()})["y"]
        np.testing.assert_array_equal(again, every[part])

"""Linears of the same vectors in one kernel: which, when it pays, and that each is still seen by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

import flexc
from flexc.backend.fusion import Fusion
from flexc.backend.linear_weights import group_image
from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.frontend.load import load
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from flexc.passes.layout import aligned
from flexc.passes.mapping import LinearShape, candidates, choose
from flexc.passes.partition import partition
from flexc.passes.pattern import DENSE, NM
from flexc.passes.prune import prune
from flexc.passes.quantise import quantise
from flexc.passes.rows import operand
from flexc.passes.tail_cost import TailCost
from flexc.passes.tails import Tails, saved
from tests.backend.compare import assert_same, small_machine
from tests.backend.models import parsed, random_feeds

Array = npt.NDArray[Any]

EDGE, RESIDENT = load_machine("edge"), load_machine("resident")

#: A gated block, its graph inputs and the weights u, v: [k, n] and d: [n, k].
GATED = "u0 = MatMul(x, u)  v0 = MatMul(x, v)  s = Sigmoid(u0)  g = Mul(s, u0)  p = Mul(g, v0)  y = MatMul(p, d)"


def sparse(shape: tuple[int, int], pattern: NM, seed: int) -> Array:
    """Return a weight [k, n] that has just a pattern along k."""
    rng = np.random.default_rng(seed)
    blocks = rng.random((shape[0] // pattern.m, pattern.m, shape[1]))
    kept = blocks.argsort(axis=1).argsort(axis=1) < pattern.n
    weight: Array = rng.uniform(0.5, 1, shape) * rng.choice([-1, 1], shape) * kept.reshape(shape)
    return weight.astype(np.float32)


def gated(
    rows: int, k: int, n: int, patterns: tuple[NM, NM] = (DENSE, DENSE), body: str = GATED, outputs: str = "y"
) -> onnx.ModelProto:
    """Return a model of a gated block."""
    text = f"(float[{rows},{k}] x, float[{rows},{k}] z) => (float[] {outputs}) {{ {body} }}"
    u, v = (sparse((k, n), pattern, place) for place, pattern in enumerate(patterns))
    return parsed(text, u=u, v=v, d=sparse((n, k), DENSE, 2))


def compiled(model: onnx.ModelProto, machine: Machine) -> Program:
    graph = load(model)
    prune(graph, "keep")
    return lower(quantise(graph), machine)


def linears(program: Program) -> list[str]:
    """Return the names of the ops on the array."""
    return [op.name for op in program.debug.ops if op.engine == "array"]


@pytest.mark.parametrize("machine", [EDGE, RESIDENT], ids=lambda each: each.name)
def test_a_gate_and_what_it_gates_are_one_kernel_and_cost_less(machine: Machine, monkeypatch: Any) -> None:
    model = gated(256, 256, 512)
    together = assert_same(model, machine, random_feeds(model, 2), {"y": False})
    assert linears(together) == ["MatMul + MatMul_1", "MatMul_2"]
    with monkeypatch.context() as patch:
        patch.setattr("flexc.backend.fusion.Fusion._together", lambda _fusion, _place: None)
        apart = compiled(model, machine)
    assert linears(apart) == ["MatMul", "MatMul_1", "MatMul_2"]
    assert time_program(together).cycles < time_program(apart).cycles
    moved, before = (time_program(each).counters["dram_byte"] for each in (together, apart))
    assert before - moved >= 2 * 4 * 256 * 512, "what is combined neither leaves nor comes back"
    feeds = random_feeds(model)
    assert Executor(together).run(feeds)["y"].tobytes() == Executor(apart).run(feeds)["y"].tobytes()


@pytest.mark.parametrize("machine", [EDGE, RESIDENT, small_machine(64, 2, 2)], ids=lambda each: each.name)
@pytest.mark.parametrize(
    ("patterns", "common"),
    [
        ((NM(2, 4), NM(1, 4)), "2:4"),
        ((NM(1, 2), NM(3, 8)), "4:8"),
        ((NM(1, 8), NM(1, 2)), "4:8"),
        ((NM(2, 8), DENSE), "dense"),
    ],
    ids=str,
)
def test_weights_of_different_patterns_share_the_one_that_holds_both(
    patterns: tuple[NM, NM], common: str, machine: Machine
) -> None:
    model = gated(192, 64, 128, patterns)
    program = assert_same(model, machine, random_feeds(model, 2), {"y": False})
    op = next(op for op in program.debug.ops if op.engine == "array")
    assert (op.name, op.nm) == ("MatMul + MatMul_1", f"{patterns[0]} + {patterns[1]}")
    groups = next(each for each in program.code[op.first : op.last] if each.mnemonic == "groups")
    assert str(NM(groups.integer("n"), groups.integer("m"))) == common


def test_every_layer_is_seen_and_found() -> None:
    program = compiled(gated(256, 96, 256), EDGE)
    op = next(op for op in program.debug.ops if op.engine == "array")
    assert {"MatMul", "MatMul_1", "MatMul/multiply", "MatMul_1/multiply"} <= set(op.names)
    seen = {tap.value for tap in program.debug.taps if op.first <= tap.pc < op.last}
    assert {"u0", "v0", "s", "g", "p", "MatMul/multiply", "MatMul_1/multiply"} <= seen


def test_a_third_linear_does_not_keep_two_apart() -> None:
    body = GATED + "  t = MatMul(x, u)"
    program = compiled(gated(256, 96, 256, body=body, outputs="y, float[] t"), EDGE)
    assert sorted(linears(program)) == ["MatMul + MatMul_1", "MatMul_2", "MatMul_3"]


def test_linears_of_other_widths_run_apart() -> None:
    body = "a = MatMul(x, u)  b = MatMul(x, v)  c = Relu(b)  y = Concat<axis = 1>(a, c)"
    model = parsed(
        f"(float[256,96] x) => (float[] y) {{ {body} }}", u=sparse((96, 256), DENSE, 0), v=sparse((96, 64), DENSE, 1)
    )
    assert linears(assert_same(model, RESIDENT, random_feeds(model), {"y": False})) == ["MatMul", "MatMul_1"]


def test_sums_scaled_by_other_numbers_run_apart() -> None:
    """The codes of the vectors are the same, but what one unit of them is worth is not."""
    graph = quantise(load(gated(256, 96, 256)))
    (scaled,) = [node for node in graph.graph if node.name == "MatMul_1/times_activation_scale"]
    scale = operand(scaled, 1)
    twice = ir.Node("", "Add", [scale, scale], name="twice")
    twice.outputs[0].shape, twice.outputs[0].type = scale.shape, scale.type
    twice.outputs[0].name = "twice"
    graph.graph.insert_before(scaled, twice)
    scaled.replace_input_with(1, twice.outputs[0])
    assert linears(lower(graph, EDGE)) == ["MatMul", "MatMul_1", "MatMul_2"]


def test_where_time_does_not_decide_traffic_does(monkeypatch: Any) -> None:
    """Weights of one pattern are as many together as apart; in a common one they may be more, which must be saved."""
    monkeypatch.setattr(Fusion, "_cycles", lambda _fusion, head, _row: 100 * len(head.chains) if head else 0)
    patterns = NM(2, 4), NM(1, 4)
    assert linears(compiled(gated(1, 256, 64), EDGE))[0] == "MatMul + MatMul_1"
    assert linears(compiled(gated(1, 256, 64, patterns), EDGE))[0] == "MatMul"
    assert linears(compiled(gated(64, 256, 64, patterns), EDGE))[0] == "MatMul + MatMul_1"
    monkeypatch.setattr(Fusion, "_cycles", lambda _fusion, head, _row: 100 if head else 0)
    assert linears(compiled(gated(1, 256, 64, patterns), EDGE))[0] == "MatMul", "faster, but for more weights"
    assert linears(compiled(gated(1, 256, 64, patterns), RESIDENT))[0] == "MatMul + MatMul_1", "they never move there"


def test_what_is_saved_counts_every_linear() -> None:
    kernels = partition(quantise(load(gated(64, 32, 128))), 1 << 16)
    tails = Tails(kernels)
    first = next(place for place, kernel in enumerate(kernels) if kernel.kind == "linear")
    places = tails.together(first)
    assert [kernels[place].nodes[0].name for place in places] == ["MatMul/multiply", "MatMul_1/multiply"]
    assert not tails.together(places[1]), "the first one has run by then"
    by_rows = list(tails.of(*places))[-1]
    assert saved(by_rows) == 2 * 2 * 4 * 64 * 128


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ((256, 96), "a = MatMul(x, u)  b = MatMul(x, v)"),
        ((256, 96), "z = MatMul(x, w)  a, b = Split<axis = 1, num_outputs = 2>(z)"),
        ((1, 8, 16, 16), "z = Conv(x, k)  a, b = Split<axis = 1, num_outputs = 2>(z)"),
    ],
    ids=["linears", "halves of a linear", "halves of a convolution"],
)
def test_every_element_of_every_branch_is_checked(shape: tuple[int, ...], body: str) -> None:
    rng = np.random.default_rng(0)
    sizes = {"u": (96, 512), "v": (96, 512), "w": (96, 1024), "k": (512, 8, 3, 3)}
    weights = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items() if f"{name})" in body}
    text = f"(float{[*shape]} x) => (float[] y) {{ {body}  c = Sigmoid(b)  y = Mul(a, c) }}"
    program = flexc.compile(parsed(text, **weights))
    (op,) = [op for op in program.image.debug.ops if op.engine == "array"]
    assert op.tail == 2
    assert [tile for tile in program.image.debug.tiles if tile.what == "column group" and tile.count > 1]
    verdict = program.check({"x": rng.standard_normal(shape).astype(np.float32)})
    assert verdict.passed
    assert not verdict.notes


@pytest.mark.parametrize(
    ("body", "outputs"),
    [(GATED.replace("(x, v)", "(z, v)"), "y"), (GATED, "y, float[] u0")],
    ids=["other vectors", "seen from outside"],
)
def test_what_does_not_belong_together_runs_apart(body: str, outputs: str) -> None:
    program = compiled(gated(256, 96, 256, body=body, outputs=outputs), EDGE)
    assert linears(program) == ["MatMul", "MatMul_1", "MatMul_2"]


def test_one_vector_gains_nothing_by_denser_weights() -> None:
    """What a linear saves in traffic of results is then less than what its weights take more."""
    sparse_alone = gated(1, 256, 256, (NM(1, 16), DENSE))
    assert linears(compiled(sparse_alone, EDGE)) == ["MatMul", "MatMul_1", "MatMul_2"]


@pytest.mark.parametrize("machine", [small_machine(16, 1, 1), small_machine(6, 2, 1)], ids=["one macro", "no room"])
def test_a_machine_without_room_for_both_runs_them_apart(machine: Machine) -> None:
    model = gated(64, 64, 96)
    program = assert_same(model, machine, random_feeds(model, 2), {"y": False})
    assert not [name for name in linears(program) if "+" in name]


@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("machine", [EDGE, RESIDENT], ids=lambda each: each.name)
def test_a_column_group_has_as_many_columns_of_each_branch(branches: int, machine: Machine) -> None:
    shape = LinearShape(40, 200, 96 * branches, DENSE, branches=branches)
    for mapping in candidates(shape, DENSE, machine, machine.array.macros):
        assert mapping.macros * mapping.slices <= machine.array.macros
        assert mapping.branch_columns * branches == mapping.columns == 32 * mapping.macros
        assert mapping.branch_columns * mapping.col_groups >= 96 >= mapping.branch_width
    chosen = choose(shape, machine)
    assert chosen is not None
    assert chosen.buffer_bytes(machine.array.resident) <= machine.buffer.bytes


def test_several_column_groups_are_whole_tiles_of_each_branch() -> None:
    """A tail by pieces sees no padding between the groups: 48 columns a branch are one and a half tiles."""
    tail = TailCost(whole=False, rows=16, vector=10, last=10, loads=(), stores=(4,), room=64)
    shape = LinearShape(40, 200, 96, DENSE, tail=tail, branches=2)
    assert not list(candidates(shape, DENSE, EDGE, 2))
    assert {mapping.col_groups for mapping in candidates(shape, DENSE, EDGE, 4)} == {1}


def test_a_column_group_holds_its_columns_of_every_branch() -> None:
    shape = LinearShape(8, 4, 2 * 40, DENSE, branches=2)
    mapping = next(each for each in candidates(shape, DENSE, EDGE, 2) if each.col_groups == 2)
    scales = np.arange(80, dtype=np.float32)
    codes = np.repeat(np.arange(80, dtype=np.int8)[:, None], 4, axis=1)
    image = group_image(mapping, 1, codes, scales, -scales)
    columns = np.zeros(64, np.float32)
    columns[:8], columns[32:40] = np.arange(32, 40), np.arange(72, 80)
    np.testing.assert_array_equal(image[:512].view(np.float32), np.concatenate([columns, -columns]))
    tiles = image[aligned(512) :].view(np.int8)[: 64 * mapping.depth].reshape(64, mapping.depth)
    np.testing.assert_array_equal(tiles[:, 0], columns)

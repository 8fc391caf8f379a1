"""Layers that are alike become one loop, and nothing else changes: values, names, and what every layer costs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from flexc.backend import lower
from flexc.backend.roll import Written
from flexc.emulator.run import Executor
from flexc.emulator.timing import OpTiming, time_program
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import EVERY, Program
from tests.backend.compare import assert_same, compiled, small_machine
from tests.backend.layers import stacked
from tests.backend.models import random_feeds

EDGE = load_machine("edge")


def unrolled(model: onnx.ModelProto, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return the program of a model without loops around whole ops."""

    def as_it_is(code: Written, _machine: Machine) -> Written:
        return code

    with monkeypatch.context() as patch:
        patch.setattr(lower, "roll", as_it_is)
        return compiled(model, machine)[1]


def turns(program: Program) -> list[int]:
    """Return the iterations of loops around whole ops, in the order of the code."""
    inside = {op.first for op in program.debug.ops if op.iteration != EVERY}
    loops = [tile for tile in program.debug.tiles if tile.what == "turn"]
    return [tile.count for tile in loops if any(tile.pc < first for first in inside)]


def cost(timing: OpTiming) -> tuple[Counter[str], Counter[str]]:
    """Return what the code of an op does: without what control does, which sets other registers."""
    counters = Counter({name: count for name, count in timing.counters.items() if name != "control_instruction"})
    return Counter(timing.busy), counters


@pytest.mark.parametrize("machine", [EDGE, load_machine("resident"), small_machine(16, 2, 2)], ids=lambda m: m.name)
def test_layers_become_a_loop_and_nothing_else_changes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stacked(7, 48, 64)
    feeds = random_feeds(model, 2)
    program = assert_same(model, machine, feeds, {"h6": False})
    flat = unrolled(model, machine, monkeypatch)
    assert max(turns(program)) >= 4
    assert len(program.code) < 0.75 * len(flat.code)
    assert [(op.name, op.nodes, op.nm) for op in program.debug.ops] == [
        (op.name, op.nodes, op.nm) for op in flat.debug.ops
    ]
    one, other = time_program(program), time_program(flat)
    assert [cost(op) for op in one.ops] == [cost(op) for op in other.ops]
    assert sum(op.cycles for op in one.ops) == one.cycles < 1.001 * other.cycles
    assert all(op.cycles for op in one.ops)
    assert one.instructions < 1.01 * other.instructions
    results = [Executor(each).run(feeds)["h6"] for each in (program, flat)]
    assert results[0].tobytes() == results[1].tobytes()


def test_few_layers_and_a_weight_that_two_share() -> None:
    """The weight of the fourth layer lies where that of the first does: the loop ends before it."""
    model = stacked(8, 48, 64, same={"a3": "a0"})
    program = assert_same(model, EDGE, random_feeds(model), {"h7": False})
    assert len(turns(program)) == 2
    assert sum(turns(program)) <= 7


def test_two_like_linears_side_by_side_are_a_loop_already() -> None:
    model = stacked(1, 48, 64)
    program = assert_same(model, EDGE, random_feeds(model), {"h0": False})
    assert turns(program) == [2]
    inside = [(op.nodes[0], op.iteration) for op in program.debug.ops if op.iteration != EVERY]
    assert inside == [("MatMul_1/multiply", 0), ("MatMul_2/multiply", 1)]


def test_taps_hold_in_their_own_iteration() -> None:
    program = compiled(stacked(6, 48, 64), EDGE)[1]
    taps = program.debug.taps
    assert {tap.iteration for tap in taps} >= {EVERY, *range(max(turns(program)))}
    sums = [tap.value for tap in taps if tap.operand == "acc"]
    assert len(sums) == len(set(sums)) == 3 * 6 + 1
    tap = next(tap for tap in taps if tap.iteration == 2)
    assert [tap.value_at([n, 0]) for n in (1, 2)] == ["", tap.value]


def test_code_is_below_a_percent_of_the_weights_of_many_layers() -> None:
    program = compiled(stacked(16, 128, 256), EDGE)[1]
    assert 16 * len(program.code) < 0.01 * program.weight_bytes
    assert np.count_nonzero(program.const[: program.weight_bytes]) > program.weight_bytes // 2

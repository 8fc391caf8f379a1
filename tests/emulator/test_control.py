"""Loops, rings and stream registers: what an instruction sees in each iteration."""

from __future__ import annotations

import numpy as np
import pytest

from flexc.emulator.run import run
from flexc.emulator.walk import Loop, build, visits
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.instruction import Instr
from tests.emulator import programs as p


def written(code: list[Instr], size: int = 16) -> list[float]:
    """Return what a program leaves in the first floats of DRAM."""
    program = p.program(code, outputs=[p.tensor("y", "f32", (size,), 0)])
    values: list[float] = run(program, {})["y"][0].tolist()
    return values


def fill(number: int, value: float) -> Instr:
    return instr("vfill", dst=number, imm=value)


def test_loops_move_streams() -> None:
    code = [
        p.stream(0, "dram", "f32", 0, 1, 1),
        instr("step", stream=0, level=1, by=4),
        instr("step", stream=0, level=3, by=16),
        instr("loop", level=3, count=2),
        instr("loop", level=1, count=3),
        fill(0, 1.0),
        instr("endloop", level=1),
        instr("endloop", level=3),
        fill(0, 2.0),  # outside the loops their levels do not count
    ]
    assert written(code, 8) == [2, 1, 1, 0, 1, 1, 1, 0]


def test_a_ring_counts_on_when_its_loop_is_entered_again() -> None:
    code = [
        p.stream(0, "dram", "f32", 0, 1, 1),
        instr("step", stream=0, level=1, by=4, mod=4),
        p.stream(1, "buf", "f32", 0, 1, 1),
        fill(1, 0.0),
        instr("loop", level=0, count=2),
        instr("loop", level=1, count=3),
        instr("vadd", dst=1, a=1, imm=1.0),
        instr("vmov", dst=0, a=1),
        instr("endloop", level=1),
        instr("endloop", level=0),
    ]
    assert written(code, 5) == [5, 6, 3, 4, 0]  # places 0 1 2, then 3 0 1


def test_a_body_that_changes_a_stream_it_used_before_has_two_forms() -> None:
    code = [
        p.stream(0, "dram", "f32", 0, 1, 1),
        instr("loop", level=0, count=3),
        instr("vadd", dst=0, a=0, imm=1.0),
        p.stream(0, "dram", "f32", 8, 1, 1),
        instr("endloop", level=0),
    ]
    (loop,) = [node for node in build(p.program(code)).root.nodes if isinstance(node, Loop)]
    assert loop.first is not loop.rest
    assert written(code, 4) == [1, 0, 2, 0]


def test_a_body_that_sets_its_streams_first_has_one_form() -> None:
    code = [instr("loop", level=0, count=3), p.stream(0, "dram", "f32", 0, 1, 1), fill(0, 1), instr("endloop", level=0)]
    tree = build(p.program(code))
    (loop,) = [node for node in tree.root.nodes if isinstance(node, Loop)]
    assert loop.first is loop.rest
    assert {leaf.pc: times for leaf, times in visits(tree.root)} == {0: 1, 1: 3, 2: 3, 4: 1}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ([fill(3, 1)], "pc 0: vfill uses s3, which no `stream` has set"),
        ([instr("pitch", stream=3, row=1, col=1)], "pc 0: pitch uses s3"),
        ([instr("loop", level=0, count=2)], "this loop has no endloop"),
        ([instr("endloop", level=0)], "ends no open loop"),
        ([instr("loop", level=0, count=2), instr("halt"), instr("endloop", level=0)], "halt stands inside a loop"),
        (
            [*[instr("loop", level=1, count=2)] * 2, *[instr("endloop", level=1)] * 2],
            "loop level L1 is already open",
        ),
        ([p.stream(0, "dram", "f32", 65532, 1, 2), fill(0, 1)], "lies outside dram, which has 65536 bytes"),
        ([p.stream(0, "const", "f32", 0, 1, 1), fill(0, 1)], "lies outside const"),
        ([instr("host", segment=3)], "no host segment 3"),
    ],
)
def test_mistakes_are_named(code: list[Instr], message: str) -> None:
    with pytest.raises(FlexcError, match=message):
        run(p.program(code), {})


def test_operands_that_do_not_fit_are_named() -> None:
    code = [p.stream(0, "dram", "f32", 0, 2, 3), p.stream(1, "dram", "f32", 64, 2, 4), instr("vadd", dst=0, a=1, b=1)]
    with pytest.raises(FlexcError, match=r"pc 2 \(vadd\): operands do not fit together"):
        run(p.program(code), {})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((1, 3), np.float32), "z": np.zeros(1)}, "no input 'z'"),
        ({"x": np.zeros((1, 4), np.float32)}, r"must be float32\[windows, 3\]"),
        ({"x": np.zeros((1, 3))}, r"not float64\[1, 3\]"),
    ],
)
def test_wrong_inputs_are_named(
    feeds: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], message: str
) -> None:
    with pytest.raises(FlexcError, match=message):
        run(p.program([], inputs=[p.tensor("x", "f32", (3,), 0)]), feeds)

"""States: what stays in DRAM from run to run is declared, written, read back and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flexc.isa.assembly.assembler import assemble
from flexc.isa.assembly.disassembler import disassemble
from flexc.isa.errors import FlexcError
from flexc.isa.object_file import load, save
from flexc.isa.program import Program, State
from flexc.isa.verifier import verify

COUNTER = """
.target edge
.dram 64
.input  step  dtype=f32 shape=[4] address=0
.input  past  dtype=f32 shape=[4] address=16
.output present dtype=f32 shape=[4] address=16
.state past, present
.code
    stream s0, dram, f32 base=step rows=1 cols=4
    stream s1, buf, f32 base=0 rows=1 cols=4
    stream s2, dram, f32 base=past rows=1 cols=4
    stream s3, buf, f32 base=64 rows=1 cols=4
    copy s1, s0, ch0
    copy s3, s2, ch0
    barrier
    vadd s3, s3 b=s1
    barrier
    copy s2, s3, ch0
    halt
"""


def program() -> Program:
    return assemble(COUNTER)


def said(changed: Program) -> list[str]:
    return [str(problem).removeprefix("program: ") for problem in verify(changed)]


def test_a_state_survives_the_listing_and_the_file(tmp_path: Path) -> None:
    made = program()
    assert made.states == (State("past", "present"),)
    assert assemble("\n".join(disassemble(made))).states == made.states
    save(made, tmp_path / "a.fxc")
    assert load(tmp_path / "a.fxc").states == made.states
    assert verify(made) == []


def test_a_state_in_two_places_is_refused() -> None:
    moved = replace(program().outputs[0], address=32)
    assert said(replace(program(), outputs=(moved,))) == [
        "state 'past' -> 'present' does not stay in place: type, shape, address or strides of its two ends differ"
    ]


def test_a_state_of_tensors_that_are_not_there_is_refused() -> None:
    assert said(replace(program(), states=(State("last", "next"),))) == [
        "state 'last' -> 'next': the program has no input 'last'",
        "state 'last' -> 'next': the program has no output 'next'",
    ]


def test_a_tensor_of_two_states_is_refused() -> None:
    found = said(replace(program(), states=program().states * 2))
    assert found == ["input 'past' belongs to two states", "output 'present' belongs to two states"]


@pytest.mark.parametrize("address", [12, 28, 20])
def test_what_shares_memory_with_a_state_is_refused(address: int) -> None:
    step, past = program().inputs
    size = (1,) if address == 20 else step.shape
    found = said(replace(program(), inputs=(replace(step, address=address, shape=size), past)))
    assert found[0] == "state 'past' shares memory with 'step'"


def test_a_state_needs_two_names() -> None:
    with pytest.raises(FlexcError):
        assemble(COUNTER.replace(".state past, present", ".state past"))

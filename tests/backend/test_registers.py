"""Stream registers: what a kernel has set is used again by later ones as long as it is there."""

from __future__ import annotations

import pytest

from flexc.backend.code import Builder, DoesNotFit
from flexc.isa.instruction import STREAMS
from flexc.isa.machine import load_machine
from flexc.isa.streams import Stream


def stream(number: int) -> Stream:
    return Stream.dense("buf", "f32", 64 * number, 2, 4)


def started() -> Builder:
    return Builder(load_machine("edge"))


def test_a_register_is_set_once_for_several_kernels() -> None:
    builder = started()
    first = builder.stream(stream(0))
    builder.begin_kernel()
    builder.stream(stream(1))
    assert builder.stream(stream(0)) == first
    assert [each.mnemonic for each in builder.code] == ["stream", "stream"]


def test_the_register_used_longest_ago_is_set_anew() -> None:
    builder = started()
    registers = [builder.stream(stream(number)) for number in range(STREAMS)]
    assert sorted(registers) == list(range(STREAMS))
    builder.begin_kernel()
    builder.stream(stream(0))
    assert builder.stream(stream(STREAMS)) == registers[1]
    assert builder.stream(stream(0)) == registers[0]
    assert len(builder.code) == STREAMS + 1


def test_a_kernel_keeps_its_own_registers() -> None:
    builder = started()
    for number in range(STREAMS):
        builder.stream(stream(number))
    with pytest.raises(DoesNotFit, match=f"{STREAMS + 1} streams"):
        builder.stream(stream(STREAMS))


def test_turns_set_their_own_registers() -> None:
    """In a later turn a register holds what the turn before has left there, not what was set before the loop."""
    builder = started()
    builder.stream(stream(0))
    builder.begin_turns(4, ())
    builder.stream(stream(0))
    builder.end_turns()
    builder.stream(stream(0))
    assert [each.mnemonic for each in builder.code].count("stream") == 3

"""Stream registers: what is set once serves as long as it pays to leave it there."""

from __future__ import annotations

import pytest

from flexc.backend.assign import assign
from flexc.backend.code import Builder, DoesNotFit, Pending
from flexc.emulator.walk import build, visits
from flexc.isa.encoding import instr
from flexc.isa.instruction import STREAMS
from flexc.isa.machine import load_machine
from flexc.isa.streams import Step, Stream
from tests.emulator import programs


def stream(number: int, *steps: Step) -> Stream:
    return Stream("buf", "f32", 64 * number, 2, 4, 16, 4, steps)


def started() -> Builder:
    return Builder(load_machine("edge"))


def fill(builder: Builder, *streams: Stream) -> None:
    """Write one unit that uses these streams."""
    builder.write([Pending("vfill", {"dst": each}) for each in streams])


def finished(builder: Builder) -> list[str]:
    """Return the mnemonics of the code, after looking that every instruction finds the streams that it was given."""
    code = assign(builder.units, builder.machine).code
    lines = [line for unit in builder.units for line in unit.lines if line.streams]
    leaves = [leaf for leaf, _ in visits(build(programs.program([*code, instr("halt")])).root) if leaf.streams]
    assert [dict(leaf.streams) for leaf in leaves] == [line.streams for line in lines]
    return [each.mnemonic for each in code]


def test_a_register_is_set_once_for_several_kernels() -> None:
    builder = started()
    for numbers in ((0,), (1,), (0, 1)):
        builder.begin_kernel()
        fill(builder, *map(stream, numbers))
    assert finished(builder).count("stream") == 2


def test_the_register_needed_again_last_is_set_anew() -> None:
    """Streams that come in turn, more than there are registers: all but the last of them stay, every time round."""
    builder = started()
    for number in 2 * [*range(STREAMS + 1)]:
        fill(builder, stream(number))
    assert finished(builder).count("stream") == STREAMS + 2


def test_a_unit_keeps_its_own_registers() -> None:
    builder = started()
    fill(builder, stream(STREAMS))
    fill(builder, *map(stream, range(STREAMS)))
    fill(builder, stream(STREAMS))
    assert finished(builder).count("stream") == STREAMS + 2
    with pytest.raises(DoesNotFit, match=f"{STREAMS + 1} streams"):
        fill(builder, *map(stream, range(STREAMS + 1)))


def test_what_all_turns_of_a_loop_need_is_set_before_it() -> None:
    builder = started()
    builder.begin_turns(4, ())
    fill(builder, stream(0, Step(0, 64)))
    builder.end_turns()
    assert finished(builder) == ["slide", "loop", "vfill", "endloop"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (Stream.dense("buf", "f32", 0, 2, 4), ["stream"]),
        (stream(0, Step(0, 64, 2)), ["slide"]),
        (stream(0, Step(0, -64), Step(1, 8)), ["slide", "step"]),
        (stream(0, Step(0, 64, 16)), ["stream", "step"]),
        (stream(0, Step(0, 64, 16), Step(1, 8)), ["slide", "step"]),
        (Stream("dram", "f32", 1 << 32, 2, 4, 16, 4, (Step(0, 64),)), ["stream", "step"]),
        (Stream("buf", "f32", 0, 2, 4, 32, 4, (Step(0, 1 << 31),)), ["stream", "pitch", "step"]),
        (Stream("buf", "f32", 0, 2, 4, 32, 4, (Step(0, 16),)), ["slide", "pitch"]),
    ],
)
def test_a_stream_is_set_by_as_few_instructions_as_there_is_room_for(given: Stream, code: list[str]) -> None:
    builder = started()
    fill(builder, given)
    assert finished(builder) == [*code, "vfill"]


def test_turns_find_registers_as_every_turn_leaves_them() -> None:
    """In a later turn a register holds what the turn before has left there: what has no room is set in every turn."""
    builder = started()
    fill(builder, stream(0))
    builder.begin_turns(4, ())
    for number in range(2 * STREAMS):
        fill(builder, stream(number))
    builder.end_turns()
    fill(builder, stream(0))
    code = finished(builder)
    assert code.index("loop") > STREAMS // 2
    assert code.count("stream") == 2 * STREAMS + 2

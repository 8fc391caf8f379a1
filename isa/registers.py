"""What control's instructions set: streams as ``stream``, ``pitch`` and ``step`` leave them, and the groups."""

from __future__ import annotations

from .instruction import Groups, Instr
from .streams import Step, Stream


def stream_of(instruction: Instr) -> Stream:
    """Return the stream that a ``stream`` instruction sets."""
    word, whole = instruction.word, instruction.integer
    return Stream.dense(word("space"), word("dtype"), whole("base"), whole("rows"), whole("cols"))


def changed(stream: Stream, instruction: Instr) -> Stream:
    """Return a stream as ``pitch`` or ``step`` changes it."""
    if instruction.mnemonic == "pitch":
        return stream.with_pitch(instruction.integer("row"), instruction.integer("col"))
    return stream.with_step(Step(instruction.integer("level"), instruction.integer("by"), instruction.integer("mod")))


def groups_of(instruction: Instr) -> Groups:
    """Return the state that a ``groups`` instruction sets."""
    whole, word = instruction.integer, instruction.word
    return Groups(whole("n"), whole("m"), whole("blocks"), whole("index"), word("packing"), word("select"))

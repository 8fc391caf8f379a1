"""What control sets: streams as ``stream``, ``slide``, ``pitch`` and ``step`` leave them, and the groups."""

from __future__ import annotations

from .instruction import Groups, Instr
from .streams import Step, Stream

#: Instructions that set a stream whatever it was, and those that change one.
SETTING = ("stream", "slide")
CHANGING = ("pitch", "step")


def stream_of(instruction: Instr) -> Stream:
    """Return the stream that one of ``SETTING`` sets."""
    word, whole = instruction.word, instruction.integer
    stream = Stream.dense(word("space"), word("dtype"), whole("base"), whole("rows"), whole("cols"))
    return stream.with_step(_step(instruction)) if instruction.mnemonic == "slide" else stream


def changed(stream: Stream, instruction: Instr) -> Stream:
    """Return a stream as one of ``CHANGING`` changes it."""
    if instruction.mnemonic == "pitch":
        return stream.with_pitch(instruction.integer("row"), instruction.integer("col"))
    return stream.with_step(_step(instruction))


def _step(instruction: Instr) -> Step:
    return Step(instruction.integer("level"), instruction.integer("by"), instruction.integer("mod"))


def groups_of(instruction: Instr) -> Groups:
    """Return the state that a ``groups`` instruction sets."""
    whole, word = instruction.integer, instruction.word
    return Groups(whole("n"), whole("m"), whole("blocks"), whole("index"), word("packing"), word("select"))

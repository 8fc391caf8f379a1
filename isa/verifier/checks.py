"""Verifier, checks: one instruction with its operands, inside the loops around it.

Addresses are intervals over all iterations of the open loops. What was found is remembered: the same instruction on the
same operands comes again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..instruction import Groups, Instr
from ..program import Program
from ..streams import Step, Stream
from .access import Access, access_of
from .flow import Loop
from .memory import sizes
from .operands import Context, operand_problems

#: Places of a stream in cells that are looked at one by one.
_MOST_PLACES = 1 << 10


@dataclass(frozen=True, slots=True)
class Checked:
    """What there is to know about an instruction on its operands.

    ``inside``: all operands stay in their memories; ``reached``: first byte and one after the last of each;
    ``uses``: what it touches; ``work``: the elements, or multiplications, that one execution works on.
    """

    problems: tuple[str, ...]
    inside: bool
    reached: Mapping[str, tuple[int, int]]
    uses: Mapping[Access, None]
    work: int


class Checks:
    """Checks of all instructions of one program."""

    def __init__(self, program: Program) -> None:
        self.machine = program.machine
        self.sizes = sizes(program)
        self.largest = max(self.sizes.values())
        self.opened: Mapping[int, Loop] = {}
        self.totals: Mapping[int, int] = {}
        self.loops: object = ()
        self.streams: dict[Stream, Stream] = {}
        self.known: dict[object, Checked] = {}
        self.most_known = 2 * len(program.code) + 1000

    def same(self, stream: Stream) -> Stream:
        """Return the one object for streams that are equal."""
        return self.streams.setdefault(stream, stream)

    def enter(self, opened: Mapping[int, Loop], totals: Mapping[int, int]) -> None:
        """Note which loops are open, and how many iterations each level makes in all."""
        self.opened, self.totals = opened, totals
        self.loops = tuple((level, loop.count, totals[level]) for level, loop in opened.items())

    def checked(self, instruction: Instr, streams: Mapping[str, Stream], groups: Groups | None) -> Checked:
        """Return what is known about an instruction on these operands, made by :meth:`same`."""
        groups = groups if instruction.mnemonic in ("ldw", "mac") else None
        slices = instruction.values.get("slices")
        key = (instruction.mnemonic, slices, groups, self.loops, *map(id, streams.values()), *streams)
        known = self.known.get(key)
        if known is None:
            if len(self.known) > self.most_known:
                self.known.clear()
            known = self.known[key] = self._check(instruction, streams, groups)
        return known

    def _check(self, instruction: Instr, streams: Mapping[str, Stream], groups: Groups | None) -> Checked:
        reached = {name: self.interval(stream) for name, stream in streams.items()}
        outside = [message for name in streams for message in self.access(name, streams[name], *reached[name])]
        problems = [*outside, *operand_problems(Context(instruction, streams, groups, self.machine))]
        uses = dict.fromkeys(self._uses(instruction, streams))
        return Checked(tuple(problems), not outside, reached, uses, work(instruction, streams, groups))

    def _uses(self, instruction: Instr, streams: Mapping[str, Stream]) -> Iterator[Access]:
        """Yield what an instruction touches; ``const`` is never written, so nothing can go wrong there."""
        for name, stream in streams.items():
            if stream.space != "const":
                writes = name in instruction.spec.writes
                late = writes and instruction.mnemonic == "mac"
                yield access_of(name, stream, self.opened, self.totals, writes=writes, late=late)

    def interval(self, stream: Stream) -> tuple[int, int]:
        """Return the first byte (unit, in cells) that a stream reaches in any iteration, and the one after the last."""
        low, high = (0, stream.rows) if stream.space == "cells" else stream.extent()
        for each in stream.steps:
            least, most = self.reach(each)
            low, high = low + least, high + most
        return stream.base + low, stream.base + high

    def units(self, stream: Stream) -> list[tuple[int, int]]:
        """Return the stretches of units that a stream in cells reaches: one a place, or one in all for very many."""
        places, rest = [stream.base], sorted(stream.steps, key=lambda step: -abs(step.stride))
        while rest and len(places) * self.trips(rest[0]) <= _MOST_PLACES:
            step = rest.pop(0)
            places = [place + turn * step.stride for place in places for turn in range(self.trips(step))]
        low, high = self.interval(replace(stream, base=0, steps=tuple(rest)))
        return [(place + low, place + high) for place in places]

    def trips(self, step: Step) -> int:
        """Return in how many places a step puts a stream: 1 where its loop is not open."""
        loop = self.opened.get(step.level)
        if loop is None:
            return 1
        return min(self.totals[step.level], step.period) if step.period else loop.count

    def reach(self, step: Step) -> tuple[int, int]:
        """Return the least and the greatest offset of a step in any iteration; 0 where its loop is not open."""
        last = (self.trips(step) - 1) * step.stride
        return min(0, last), max(0, last)

    def access(self, name: str, stream: Stream, low: int, high: int) -> Iterator[str]:
        """Check that an operand stays inside its memory, aligned, and has a sensible number of elements."""
        size = self.sizes[stream.space]
        if low < 0 or high > size:
            unit = "units" if stream.space == "cells" else "bytes"
            yield f"{name} reaches {unit} {low:#x}..{high:#x} of {stream.space}, which has {size:#x}"
        item = stream.itemsize
        pitches = [
            pitch for pitch, count in ((stream.row_pitch, stream.rows), (stream.col_pitch, stream.cols)) if count > 1
        ]
        if any(number % item for number in (stream.base, *pitches, *(step.stride for step in stream.steps))):
            yield f"{name} is not aligned to its elements of {item} bytes"
        if stream.bytes > self.largest:
            yield f"{name} has {stream.elements} elements, more than any memory holds"


def work(instruction: Instr, streams: Mapping[str, Stream], groups: Groups | None) -> int:
    """Return the elements, or multiplications, that one execution works on."""
    if instruction.mnemonic == "mac" and groups is not None:
        return streams["acc"].elements * groups.depth
    if instruction.mnemonic == "vmm":
        return streams["dst"].elements * streams["a"].cols
    return max(stream.elements for stream in streams.values())

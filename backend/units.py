"""Code whose streams have no registers yet: lines, in units before which all that they use is set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..isa.fields import Value
from ..isa.instruction import STREAMS
from ..isa.machine import Machine
from ..isa.streams import Stream


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction: its streams by operand, everything else in ``values``."""

    mnemonic: str
    streams: dict[str, Stream]
    values: dict[str, Value]


@dataclass(frozen=True)
class Unit:
    """Lines, loops complete, between which no stream is set; or one ``loop`` or ``endloop`` around units."""

    lines: list[Line]

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """What it uses, in the order of the first use."""
        return tuple(dict.fromkeys(stream for line in self.lines for stream in line.streams.values()))

    @property
    def opens(self) -> bool:
        """Whether it begins a loop around the units that follow."""
        return len(self.lines) == 1 and self.lines[0].mnemonic == "loop"

    @property
    def closes(self) -> bool:
        """Whether it ends a loop around units."""
        return len(self.lines) == 1 and self.lines[0].mnemonic == "endloop"


def register_count(machine: Machine) -> int:
    """Return how many stream registers a machine has."""
    return min(STREAMS, machine.control.streams)

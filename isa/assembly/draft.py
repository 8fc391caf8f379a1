"""A program in the making: what the directives of an assembly file have said so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import FlexcError
from ..program import Debug, Op, Program, Segment, State, Tap, Tensor, Tile
from ..tensors import extent
from .data import Data, joined
from .expressions import Symbols

Each = TypeVar("Each", Op, Tap, Tile)

if TYPE_CHECKING:
    from ..instruction import Instr
    from ..machine import Machine


@dataclass
class Draft:
    """A program in the making; ``here`` is the data that data directives append to (None: instructions)."""

    folder: Path
    symbols: Symbols = field(default_factory=Symbols)
    machine: Machine | None = None
    weights: Data = field(default_factory=Data)
    constants: Data = field(default_factory=Data)
    here: Data | None = None
    finished: bool = False
    dram_bytes: int | None = None
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    segments: list[DraftSegment] = field(default_factory=list)
    blobs: dict[str, Data] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    ops: dict[int, Op] = field(default_factory=dict)
    open_ops: list[int] = field(default_factory=list)
    taps: dict[int, Tap] = field(default_factory=dict)
    tiles: dict[int, Tile] = field(default_factory=dict)
    pc: int = 0
    later: list[Callable[[], None]] = field(default_factory=list)

    def data(self) -> Data:
        """Return where data goes, or raise FlexcError among instructions."""
        if self.here is None:
            raise FlexcError("data among instructions", remedy="open .weights, .constants, .blob or .segment first")
        return self.here

    def address(self, data: Data, offset: int) -> int:
        """Return the const address of a place in the weights or the constants."""
        if data is self.constants:
            if not self.finished:
                raise FlexcError("addresses of constants are known only after all data", remedy="use it in an operand")
            return self.weights.size + offset
        return offset

    def program(self, code: tuple[Instr, ...]) -> Program:
        """Return the finished program, or raise FlexcError where something is missing."""
        if self.machine is None:
            raise FlexcError("no machine", remedy='name one: .target edge, or .target "machine.toml"')
        if self.open_ops:
            raise FlexcError(f".op {self.open_ops[-1]} has no .endop")
        for title, numbered in ((".op", self.ops), (".tap", self.taps), (".tile", self.tiles)):
            if sorted(numbered) != list(range(len(numbered))):
                raise FlexcError(f"the numbers of {title} do not run from 0 to {len(numbered) - 1}")
        return Program(
            code=code,
            machine=self.machine,
            const=joined([*self.weights.parts, *self.constants.parts]),
            weight_bytes=self.weights.size,
            dram_bytes=self._dram(),
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            segments=tuple(each.finish() for each in self.segments),
            states=tuple(self.states),
            debug=Debug(
                ops=_ordered(self.ops),
                taps=_ordered(self.taps),
                tiles=_ordered(self.tiles),
                tensors=tuple(self.tensors),
                labels=dict(sorted(self.labels.items())),
            ),
            meta=dict(sorted(self.meta.items())),
            blobs={name: joined(data.parts) for name, data in sorted(self.blobs.items())},
        )

    def _dram(self) -> int:
        """Without ``.dram``, the DRAM is as large as its tensors need."""
        if self.dram_bytes is not None:
            return self.dram_bytes
        segments = [each for segment in self.segments for each in (*segment.inputs, *segment.outputs)]
        every = [*self.inputs, *self.outputs, *self.tensors, *segments]
        return max((extent(each)[1] for each in every if each.space == "dram"), default=0)


@dataclass
class DraftSegment:
    """A host segment in the making."""

    name: str
    model: Data = field(default_factory=Data)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def finish(self) -> Segment:
        """Return the segment."""
        return Segment(self.name, tuple(self.inputs), tuple(self.outputs), joined(self.model.parts).tobytes())


def _ordered(numbered: dict[int, Each]) -> tuple[Each, ...]:
    return tuple(numbered[number] for number in sorted(numbered))

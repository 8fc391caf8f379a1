"""What an instruction is: the shape of one entry of the table, and one instruction of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeVar

from .fields import Field, Float32, Tokens, Value
from .streams import Stream

if TYPE_CHECKING:
    from .machine import Machine

Result = TypeVar("Result")

WORD_BITS = 128
WORD_BYTES = WORD_BITS // 8
OPCODE_BITS = 8
STREAMS = 64
SEMAPHORES = 64
LEVELS = 8

#: Values of each field that decoder and printer remember: most come again and again.
_REMEMBERED = 4096

#: Engines with a queue, in the order that ``sync`` numbers them. ``control`` fetches and hands out; it has no queue.
ENGINES = ("dma0", "dma1", "weights", "array", "vector", "host")

WAIT = Tokens("wait", 12, "semaphores to take one token from before starting", default=(), count=SEMAPHORES)
POST = Tokens("post", 12, "semaphores to give one token to when the results are there", default=(), count=SEMAPHORES)


@dataclass(frozen=True)
class Groups:
    """How ``groups`` joined the sub-macros: the state that every later ``ldw`` and ``mac`` means."""

    n: int
    m: int
    blocks: int
    index_bits: int
    packing: str
    select: str

    @property
    def slots(self) -> int:
        """Cells of a column in use: N a block."""
        return self.blocks * self.n

    @property
    def depth(self) -> int:
        """Activations a vector: M a block."""
        return self.blocks * self.m

    def tile_bytes(self, columns: int) -> int:
        """Bytes of one macro's weights: a weight byte a cell, then the indices, each column padded to a byte."""
        return columns * (self.slots + -(-self.slots * self.index_bits // 8))


@dataclass(frozen=True)
class Operands:
    """What the duration and counter rules of one executed instruction see."""

    machine: Machine
    values: Mapping[str, Value]
    streams: Mapping[str, Stream]
    groups: Groups | None = None
    segment_bytes: int = 0


@dataclass(frozen=True)
class Duration:
    """Cycles of one instruction.

    ``busy``: until its engine can start the next; ``done``: until its results are there and tokens are posted.
    Of these, ``latency`` cycles pass before the DRAM bus is needed, which is then held for ``bus`` cycles.
    """

    busy: int
    done: int
    latency: int = 0
    bus: int = 0


Counters = dict[str, int]
DurationRule = Callable[[Operands], Duration]
CounterRule = Callable[[Operands], Counters]


@dataclass(frozen=True)
class Instruction:
    """One entry of the table: everything that any room needs to know about one instruction."""

    mnemonic: str
    opcode: int
    engine: str
    operands: tuple[Field, ...]
    meaning: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    duration: DurationRule | None = None
    counters: CounterRule | None = None
    timing: str = ""

    @property
    def queued(self) -> bool:
        """Whether it goes to an engine's queue (and may wait and post); the others are carried out by control."""
        return self.engine != "control"

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Operands, then ``wait`` and ``post`` where the instruction goes to an engine."""
        return (*self.operands, WAIT, POST) if self.queued else self.operands

    @cached_property
    def layout(self) -> tuple[tuple[Field, int], ...]:
        """Each field with its lowest bit: one after the other above the opcode."""
        places, low = [], OPCODE_BITS
        for each in self.fields:
            places.append((each, low))
            low += each.width
        return tuple(places)

    @cached_property
    def parts(self) -> tuple[tuple[str, int, int, Callable[[int], Value]], ...]:
        """For the decoder: each field's name, lowest bit, mask and way to its value, which remembers values."""
        remember = lru_cache(_REMEMBERED)
        return tuple((each.name, low, (1 << each.width) - 1, remember(each.decode)) for each, low in self.layout)

    @cached_property
    def bits(self) -> tuple[tuple[str, int, Value | None, Callable[[Value], int]], ...]:
        """For the encoder: each field's name, lowest bit, default if its bits are 0, and the way to a value's bits."""
        return tuple((each.name, low, _silent(each), _remembering(each, each.encode)) for each, low in self.layout)

    @cached_property
    def writers(self) -> tuple[tuple[str, bool, Value | None, Callable[[Value], str]], ...]:
        """For the printer: each field's name, whether it has a place, its default, and the way to a value's text."""
        return tuple(
            (each.name, each.positional, each.default, _remembering(each, each.format)) for each in self.fields
        )

    @cached_property
    def used_bits(self) -> int:
        """Bits in use; those above must be zero."""
        return OPCODE_BITS + sum(each.width for each in self.fields)

    def engine_of(self, values: Mapping[str, Value]) -> str:
        """Return the engine that one instruction goes to: copies and syncs name theirs."""
        if self.engine == "dma":
            return f"dma{values['channel']}"
        return str(values["engine"]) if self.engine == "any" else self.engine


def _silent(field: Field) -> Value | None:
    return None if field.default is None or field.encode(field.default) else field.default


def _remembering(field: Field, function: Callable[[Value], Result]) -> Callable[[Value], Result]:
    """Return a field's function so that it remembers results; not of numbers: 0.0 and -0.0 are equal but not alike."""
    return function if isinstance(field, Float32) else lru_cache(_REMEMBERED, typed=True)(function)


@dataclass(frozen=True)
class Instr:
    """One instruction of a program: its table entry and the value of each of its fields."""

    spec: Instruction
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def mnemonic(self) -> str:
        """The name in assembly."""
        return self.spec.mnemonic

    def integer(self, name: str) -> int:
        """Return a field that holds a whole number."""
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def word(self, name: str) -> str:
        """Return a field that holds a word."""
        return str(self.values[name])

    def tokens(self, name: str) -> tuple[int, ...]:
        """Return a field that holds semaphores; empty where the instruction has none."""
        value = self.values.get(name, ())
        assert isinstance(value, tuple)
        return value

"""The state of a run as text: streams and memory as typed arrays, cells, groups, tokens, engines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..isa.assembly.source import describe_groups
from ..isa.errors import FlexcError, did_you_mean
from ..isa.fields import parse_integer
from ..isa.instruction import ENGINES, Groups, Instr
from ..isa.program import Program, Tensor
from ..isa.registers import CHANGING, SETTING, changed, stream_of
from ..isa.streams import DTYPES, SPACES, Stream
from .array import FastArray
from .cells import Site, WeightCache, unpack_indices
from .engines import Engines
from .memory import Array, Memories, Position
from .walk import Leaf

#: Rows and columns shown, and with ``all``.
_SHOWN, _ALL = (8, 16), (1 << 12, 1 << 12)
_MOST = 1 << 24
_USAGE = "s3, an operand (dst), a tensor, cells UNIT, or MEMORY ADDRESS TYPE [ROWSxCOLS]; then all for all of it"


class SeenArray(FastArray):
    """The array, and what every unit of its cells was last given: groups and tile bytes, in the first window."""

    def __init__(self, cache: WeightCache) -> None:
        super().__init__(cache)
        self.units: dict[int, tuple[Groups, npt.NDArray[np.uint8]]] = {}

    def load_weights(self, cells: range, src: Array, groups: Groups, site: Site) -> None:
        super().load_weights(cells, src, groups, site)
        for place, unit in enumerate(cells):
            self.units[unit] = groups, src[0, place].astype(np.uint8)


@dataclass
class Inspector:
    """What can be looked at in a run; all values are those of the first window."""

    program: Program
    memories: Memories
    position: Position
    array: SeenArray
    engines: Engines
    streams: dict[int, Stream] = field(default_factory=dict)
    groups: Instr | None = None

    def note(self, instr: Instr) -> None:
        """Follow an instruction of control that has been carried out."""
        match instr.mnemonic:
            case name if name in SETTING:
                self.streams[instr.integer("stream")] = stream_of(instr)
            case name if name in CHANGING:
                number = instr.integer("stream")
                self.streams[number] = changed(self.streams[number], instr)
            case "groups":
                self.groups = instr

    def show(self, words: Sequence[str], leaf: Leaf | None) -> Iterator[str]:
        """Yield what ``p`` prints.

        Args:
            words: a stream, an operand of ``leaf``, a tensor, ``cells UNIT`` or ``MEMORY ADDRESS TYPE [ROWSxCOLS]``;
                then perhaps ``all``.
            leaf: the instruction whose operands have names, if any.

        Raises:
            FlexcError: they name nothing, or memory that is not there.
        """
        full = len(words) > 1 and words[-1] == "all"
        words = words[:-1] if full else words
        limits = _ALL if full else _SHOWN
        if len(words) == 1:
            yield from self._named(words[0], leaf, limits)
        elif len(words) == 2 and words[0] == "cells":
            yield from self._unit(_number(words[1]), limits)
        elif len(words) in (3, 4) and words[0] in SPACES:
            yield from self._stream("", _window(words), limits)
        else:
            raise FlexcError("what is to be printed?", remedy=_USAGE)

    def _named(self, name: str, leaf: Leaf | None, limits: tuple[int, int]) -> Iterator[str]:
        tensors = {each.name: each for each in (*self.program.debug.tensors, *_exchanged(self.program))}
        operands = {} if leaf is None else leaf.streams
        number = parse_integer(name[1:]) if name[:1] == "s" else None
        if name in operands:
            yield from self._stream(name, operands[name], limits)
        elif number is not None and number in self.streams:
            yield from self._stream(name, self.streams[number], limits)
        elif name in tensors:
            yield from self._tensor(tensors[name], limits)
        else:
            known = [*operands, *(f"s{each}" for each in self.streams), *tensors]
            raise FlexcError(f"nothing is called '{name}' here", remedy=did_you_mean(name, known) or _USAGE)

    def _stream(self, name: str, stream: Stream, limits: tuple[int, int]) -> Iterator[str]:
        """Yield a stream at the present position in the loops."""
        address = stream.address(self.position.iterations, self.position.running)
        yield f"{name}: {describe_stream(stream)}, now at {address:#x}" if name else describe_stream(stream)
        if stream.space == "cells":
            for unit in range(address, address + stream.rows * stream.row_pitch, stream.row_pitch):
                yield from self._unit(unit, limits)
            return
        values = self.memories.getter(replace(stream, base=address, steps=()), Position())()
        assert isinstance(values, np.ndarray)
        yield from array_lines(values[0], limits)

    def _tensor(self, tensor: Tensor, limits: tuple[int, int]) -> Iterator[str]:
        values = self.memories.tensor(tensor)[0]
        yield f"{tensor.name}: {tensor.dtype}{list(tensor.shape)} at {tensor.address:#x} of {tensor.space}"
        yield from array_lines(values.reshape(-1, values.shape[-1] if values.ndim else 1), limits)

    def _unit(self, unit: int, limits: tuple[int, int]) -> Iterator[str]:
        """Yield what is in the cells of one macro and weight set: weight@activation, block by block."""
        macros = self.program.machine.array.macros
        name = f"unit {unit} (macro {unit % macros}, weight set {unit // macros})"
        if unit not in self.array.units:
            yield f"{name}: nothing written yet"
            return
        groups, tile = self.array.units[unit]
        yield f"{name}: {groups.n}:{groups.m}, {groups.blocks} blocks, as weight@activation"
        yield from _cell_lines(groups, tile, self.program.machine.array.columns, limits)

    def stream_lines(self) -> Iterator[str]:
        """Yield every stream register that is set."""
        for number, stream in sorted(self.streams.items()):
            address = stream.address(self.position.iterations, self.position.running)
            yield f"s{number}: {describe_stream(stream)}, now at {address:#x}"
        if not self.streams:
            yield "no stream is set"

    def groups_line(self) -> str:
        """Return how the sub-macros are joined."""
        return describe_groups(self.groups, self.program.machine) if self.groups else "no groups are set"

    def token_lines(self) -> Iterator[str]:
        """Yield every semaphore that has had a token: how many are free, and from which cycle."""
        engines = self.engines
        for token, held in enumerate(engines.tokens):
            given, taken = engines.posted[token], engines.waited[token]
            if given or taken:
                times = ", ".join(f"{held[place]}" for place in sorted(held) if place >= taken)
                free = f"{given - taken} free, from cycle {times}" if times else "none free"
                yield f"t{token}: {free} (given {given}, taken {taken})"
        if not any(engines.posted):
            yield "no tokens have been given"

    def engine_lines(self) -> Iterator[str]:
        """Yield where control and every engine are in time."""
        engines = self.engines
        yield f"control: issues next at cycle {engines.clock}"
        for place, name in enumerate(ENGINES):
            queued = sum(start > engines.clock for start in engines.starts[place])
            free, results = engines.free[place], engines.delivered[place]
            yield f"{name}: free from cycle {free}, results until {results}, {queued} waiting in its queue"


def describe_stream(stream: Stream) -> str:
    """Return a stream in words: memory, type, shape, base, and pitches and steps where it has any."""
    text = f"{stream.space} {stream.dtype} {stream.rows} x {stream.cols} at {stream.base:#x}"
    if not stream.is_dense:
        text += f", pitch {stream.row_pitch} and {stream.col_pitch}"
    for step in stream.steps:
        text += f", L{step.level} by {step.stride}" + (f" mod {step.period}" if step.period else "")
    return text


def array_lines(values: Array, limits: tuple[int, int] = _SHOWN) -> Iterator[str]:
    """Yield the rows of a matrix, each with its number; what lies beyond the limits is only counted."""
    rows, cols = values.shape
    texts = [[_text(each) for each in row] for row in values[: limits[0], : limits[1]]]
    width = max((len(text) for row in texts for text in row), default=0)
    for number, row in enumerate(texts):
        more = f"  ... {cols - limits[1]} more" if cols > limits[1] else ""
        yield f"  [{number}] " + " ".join(f"{text:>{width}}" for text in row) + more
    if rows > limits[0]:
        yield f"  ... {rows - limits[0]} more rows"


def _text(value: np.generic) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(int(value))


def _cell_lines(groups: Groups, tile: npt.NDArray[np.uint8], columns: int, limits: tuple[int, int]) -> Iterator[str]:
    split = columns * groups.slots
    weights = tile[:split].view(np.int8).reshape(columns, groups.slots)
    index = np.zeros_like(weights, np.uint8)
    if groups.m > 1:
        index = unpack_indices(tile[split:].reshape(columns, -1), groups)
    for column in range(min(columns, limits[0])):
        blocks = []
        for first in range(0, min(groups.slots, limits[1]), groups.n):
            base = first // groups.n * groups.m
            pairs = zip(weights[column, first : first + groups.n], index[column, first : first + groups.n], strict=True)
            blocks.append(" ".join(f"{weight}@{base + place}" for weight, place in pairs))
        yield f"  column {column}: " + " | ".join(blocks) + ("  ..." if groups.slots > limits[1] else "")
    if columns > limits[0]:
        yield f"  ... {columns - limits[0]} more columns"


def _exchanged(program: Program) -> Iterator[Tensor]:
    for segment in program.segments:
        yield from (*segment.inputs, *segment.outputs)
    yield from (*program.inputs, *program.outputs)


def _window(words: Sequence[str]) -> Stream:
    """Return the stream that ``MEMORY ADDRESS TYPE [ROWSxCOLS]`` means; one element without a shape."""
    space, address, dtype, *shape = words
    if dtype not in DTYPES:
        raise FlexcError(f"'{dtype}' is no element type", remedy=f"one of {', '.join(DTYPES)}")
    sizes = [_number(each) for each in shape[0].split("x")] if shape else [1]
    if len(sizes) > 2 or not 0 < math.prod(sizes) <= _MOST or min(sizes) < 1:
        raise FlexcError(f"'{shape[0]}' is no shape", remedy="write COLS or ROWSxCOLS, as in 4x16")
    rows, cols = sizes if len(sizes) == 2 else (1, sizes[0])
    return Stream.dense(space, dtype, _number(address), rows, cols)


def _number(text: str) -> int:
    value = parse_integer(text)
    if value is None or value < 0:
        raise FlexcError(f"'{text}' is no number", remedy="write 64 or 0x40")
    return value

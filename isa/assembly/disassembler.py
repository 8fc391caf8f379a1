"""A program to assembly text: a listing to read, from which the assembler makes the same program again."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..container import Section
from ..encoding import encode
from ..instruction import WORD_BYTES, Instr
from ..object_file import BLOB, CONSTANTS, SEGMENT, WEIGHTS, Kind, sections
from ..program import Program, Tensor
from ..records import dump, to_record
from ..version import ISA_VERSION
from . import source

Bytes = npt.NDArray[np.uint8]

#: Data of up to so many bytes stand in the text itself.
SMALL = 1024
_LINE_BYTES = 57


@dataclass(frozen=True)
class Options:
    """What a listing shows.

    Attributes:
        source: comments that say what instructions are for: the node, names of addresses, how groups are joined.
        bytes: the offset and the bytes of every instruction.
        range: only instructions from one byte offset to before another.
        node: only the instructions of ops or graph nodes of that name (or with it in their name).
        color: colours for a terminal.
        embed: write all data into the text, so that it needs no other file.
        file: the program file, to which data in the listing refer; without one all data stand in the text.
        folder: where the listing will lie: names of files are relative to it.
    """

    source: bool = True
    bytes: bool = False
    range: tuple[int, int] | None = None
    node: str | None = None
    color: bool = False
    embed: bool = False
    file: Path | None = None
    folder: Path = field(default_factory=Path)


def format_instruction(instruction: Instr) -> str:
    """Return the text of an instruction: operands by place, then ``name=value`` for those not at their default."""
    spec, values = instruction.spec, instruction.values
    places: list[str] = []
    text = ""
    for name, positional, default, write in spec.writers:
        value = values[name]
        if positional:
            places.append(write(value))
        elif value != default or (isinstance(value, float) and str(value) != str(default)):  # -0.0 is not 0.0
            text += f" {name}={write(value)}"
    return f"{spec.mnemonic} {', '.join(places)}{text}" if places else spec.mnemonic + text


def disassemble(program: Program, options: Options | None = None) -> Iterator[str]:
    """Yield the lines of a listing, without line ends.

    A listing of the whole program assembles to the same program; one cut by ``range`` or ``node`` is only to read.

    Raises:
        FlexcError: ``node`` names nothing in the program, or the file that data come from cannot be read.
    """
    options = options or Options()
    if options.range is not None or options.node is not None:
        lines = _part(program, options, source.selected(program, options.range, options.node))
    else:
        lines = _everything(program, options)
    return source.colored(lines) if options.color else lines


def _part(program: Program, options: Options, chosen: set[int]) -> Iterator[str]:
    yield f"; {len(chosen)} of {len(program.code)} instructions: to read, not to assemble"
    yield from _code(program, options, chosen)


def _everything(program: Program, options: Options) -> Iterator[str]:
    data = _Data(program, options)
    yield f"; {program.machine.name}: {program.machine.description}"
    yield f"; {len(program.code)} instructions, {program.weight_bytes} bytes of weights, {len(program.const)} of const"
    yield f".isa {ISA_VERSION}"
    yield f".dram {program.dram_bytes}"
    for directive, tensors in (("input", program.inputs), ("output", program.outputs)):
        for tensor in tensors:
            yield tensor_line(directive, tensor)
    for state in program.states:
        yield f".state {quoted(state.input)}, {quoted(state.output)}"
    yield ""
    yield from _code(program, options, None)
    yield ""
    for tensor in program.debug.tensors:
        yield tensor_line("tensor", tensor)
    yield from data.lines()
    for key, text in sorted(program.meta.items()):
        yield f".meta {quoted(key)}, {quoted(text)}"
    yield ".machine"
    yield from program.machine.to_toml().rstrip("\n").split("\n")
    yield ".end"


def quoted(text: str) -> str:
    """Return a text as JSON writes it."""
    return dump(text).decode()


def tensor_line(directive: str, tensor: Tensor) -> str:
    """Return the directive that declares a tensor."""
    return (
        f".{directive} {quoted(tensor.name)} dtype={tensor.dtype} shape={list(tensor.shape)} space={tensor.space} "
        f"address={tensor.address:#x} strides={list(tensor.strides)}"
    )


def fields_text(record: object, *without: str) -> str:
    """Return a record's fields as ``name=value``, those with their default value left out."""
    return " ".join(f"{name}={_value(value)}" for name, value in to_record(record).items() if name not in without)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return quoted(value) if isinstance(value, str) else str(value)


def _code(program: Program, options: Options, chosen: set[int] | None) -> Iterator[str]:
    """Yield the instructions with their labels, ops and taps; only those chosen, or all."""
    notes = source.Notes(program)
    depth = 0
    for pc, instruction in enumerate(program.code):
        mnemonic = instruction.mnemonic
        depth = max(0, depth - (mnemonic == "endloop"))
        if chosen is None or pc in chosen:
            yield from _before(program, options, notes, pc, chosen)
            for heading in notes.headings(pc, instruction) if options.source else ():
                yield "  " * (depth + 1) + f"; {heading}"
            yield _line(instruction, pc, depth, options, notes)
        depth += mnemonic == "loop"
    if chosen is None:
        yield from _before(program, options, notes, len(program.code), None)


def _before(program: Program, options: Options, notes: source.Notes, pc: int, chosen: set[int] | None) -> Iterator[str]:
    """Yield what stands before an instruction; ends of ops only where something of the op was chosen."""
    for number in notes.closing.get(pc, ()):
        op = program.debug.ops[number]
        if chosen is None or not chosen.isdisjoint(range(op.first, op.last)):
            yield f".endop {number}"
    for number in notes.opening.get(pc, ()):
        op = program.debug.ops[number]
        for line in notes.introduces(op) if options.source else ():
            yield ""
            yield f"; {line}"
        yield f".op {number} {fields_text(op, 'first', 'last')}"
        if op.first == op.last:
            yield f".endop {number}"
    if pc in program.debug.labels:
        yield f"{quoted_label(program.debug.labels[pc])}:"
    for number in notes.taps.get(pc, ()):
        yield f".tap {number} {fields_text(program.debug.taps[number], 'pc')}"
    for number in notes.tiles.get(pc, ()):
        yield f".tile {number} {fields_text(program.debug.tiles[number], 'pc')}"


def quoted_label(name: str) -> str:
    """Return a label as it is written: plain where it looks like a name."""
    plain = name.isascii() and name.replace(".", "_").isidentifier() and not name.startswith(".")
    return name if plain else quoted(name)


def _line(instruction: Instr, pc: int, depth: int, options: Options, notes: source.Notes) -> str:
    text = "  " * (depth + 1) + format_instruction(instruction)
    note = notes.comment(pc, instruction) if options.source else ""
    if note:
        text = f"{text:<64}  ; {note}"
    if not options.bytes:
        return text
    word = encode(instruction).hex()
    return f"{pc * WORD_BYTES:08x}: {word[:8]} {word[8:16]} {word[16:24]} {word[24:]}{text}"


class _Data:
    """The bulk data: in the text where they are small or no file has them, else by reference."""

    def __init__(self, program: Program, options: Options) -> None:
        self.program, self.options = program, options
        self.sections: list[Section] = []
        if options.file is not None and not options.embed:
            self.sections = list(sections(options.file))

    def lines(self) -> Iterator[str]:
        """Yield weights, constants, segments and blobs."""
        program = self.program
        if program.weight_bytes:
            yield ".weights"
            yield from self.content(WEIGHTS, lambda: program.const[: program.weight_bytes])
        if len(program.const) > program.weight_bytes:
            yield ".constants"
            yield from self.content(CONSTANTS, lambda: program.const[program.weight_bytes :])
        for place, segment in enumerate(program.segments):
            yield f".segment {quoted(segment.name)}"
            yield from self.content(SEGMENT, partial(_as_array, segment.model), place)
            for tensor in segment.inputs:
                yield tensor_line("segment_input", tensor)
            for tensor in segment.outputs:
                yield tensor_line("segment_output", tensor)
        for place, name in enumerate(sorted(program.blobs)):
            yield f".blob {quoted(name)}"
            yield from self.content(BLOB, partial(program.blobs.__getitem__, name), place)

    def content(self, kind: Kind, data: Callable[[], Bytes], place: int = 0) -> Iterator[str]:
        """Yield what brings the bytes of the section of a kind at a place among its like."""
        alike = [each for each in self.sections if each.kind == kind.number]
        if self.options.file is None or place >= len(alike) or alike[place].size <= SMALL:
            yield from _embedded(data())
            return
        section = alike[place]
        path = os.path.relpath(self.options.file, self.options.folder)
        yield f".data file={quoted(path)} offset={section.offset} size={section.size} crc={section.crc:#010x}"


def _as_array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def _embedded(data: Bytes) -> Iterator[str]:
    if not data.size:
        return
    yield ".base64"
    for start in range(0, data.size, _LINE_BYTES):
        yield base64.b64encode(data[start : start + _LINE_BYTES].tobytes()).decode()
    yield ".end"

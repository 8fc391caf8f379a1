"""Directives of the assembly language: all that a program holds beside its instructions."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace

import numpy as np

from ..errors import FlexcError
from ..machine import Machine, load_machine
from ..object_file import machine_from
from ..program import Op, State, Tap, Tensor, Tile
from ..streams import DTYPES
from ..version import ISA_VERSION
from .arguments import Arguments
from .data import Data, bits, file_bytes, numbers
from .draft import Draft, DraftSegment
from .shapes import SyntaxFault

Handler = Callable[[Draft, Arguments], None]
Block = Callable[[Draft, list[str], str], None]


@dataclass(frozen=True)
class Directive:
    """One directive: how it is written, what it does. ``block`` takes the lines up to ``.end``, where it has some."""

    syntax: str
    doc: str
    run: Handler
    block: Block | None = None

    @property
    def name(self) -> str:
        """The word it starts with."""
        return self.syntax.split()[0]


def _use(draft: Draft, machine: Machine) -> None:
    if draft.machine is not None:
        raise FlexcError("the machine is named twice")
    draft.machine = machine
    draft.symbols.use_machine(machine)


def _target(draft: Draft, args: Arguments) -> None:
    args.only(1)
    name = args.text(0)
    beside = draft.folder / name
    _use(draft, load_machine(str(beside) if name.endswith(".toml") else name))


def _nothing(_draft: Draft, args: Arguments) -> None:
    args.only(0)


def _machine_block(draft: Draft, lines: list[str], where: str) -> None:
    _use(draft, machine_from("\n".join([*lines, ""]).encode(), where))


def _isa(_draft: Draft, args: Arguments) -> None:
    args.only(1)
    if args.integer(0) != ISA_VERSION:
        raise FlexcError(f"written for version {args.integer(0)} of the instruction set; this is {ISA_VERSION}")


def _equ(draft: Draft, args: Arguments) -> None:
    args.only(2)
    name = args.text(0)
    if not draft.symbols.define(name, lambda: args.number(1)):
        raise SyntaxFault(f"symbol '{name}' is defined twice", args.node(0).place)
    draft.later.append(lambda: draft.symbols.check(name, args.node(0).place))


def _open(title: str) -> Handler:
    def run(draft: Draft, args: Arguments) -> None:
        args.only(0)
        draft.here = {"weights": draft.weights, "constants": draft.constants}.get(title)

    return run


def _blob(draft: Draft, args: Arguments) -> None:
    args.only(1)
    draft.here = draft.blobs.setdefault(args.text(0), Data())


def _segment(draft: Draft, args: Arguments) -> None:
    args.only(1)
    segment = DraftSegment(args.text(0))
    draft.segments.append(segment)
    draft.here = segment.model


def _numbers(dtype: str) -> Handler:
    def run(draft: Draft, args: Arguments) -> None:
        args.only(args.count)
        draft.data().add(numbers(dtype, [args.number(place) for place in range(max(1, args.count))]))

    return run


def _bits(draft: Draft, args: Arguments) -> None:
    args.only(args.count)
    draft.data().add(bits(args.integer(0), [args.number(place) for place in range(1, max(2, args.count))]))


def _fill(draft: Draft, args: Arguments) -> None:
    args.only(2)
    draft.data().fill(args.integer(0), args.integer(1))


def _zero(draft: Draft, args: Arguments) -> None:
    args.only(1)
    draft.data().zero(args.integer(0))


def _align(draft: Draft, args: Arguments) -> None:
    args.only(1)
    draft.data().align(args.integer(0))


def _data(draft: Draft, args: Arguments) -> None:
    args.only(0, "file", "offset", "size", "crc")
    name = args.named_text("file")
    if name is None:
        raise SyntaxFault('.data needs file="..."', args.shape.length)
    offset = args.named_integer("offset") or 0
    draft.data().add(file_bytes(draft.folder / name, offset, args.named_integer("size"), args.named_integer("crc")))


def _base64(draft: Draft, args: Arguments) -> None:
    args.only(0)
    draft.data()


def _base64_block(draft: Draft, lines: list[str], where: str) -> None:
    try:
        data = base64.b64decode("".join(line.strip() for line in lines), validate=True)
    except (binascii.Error, ValueError):
        raise FlexcError("the lines up to .end are not base64", where=where) from None
    draft.data().add(np.frombuffer(data, np.uint8))


def _dram(draft: Draft, args: Arguments) -> None:
    args.only(1)
    draft.dram_bytes = args.integer(0)


def _meta(draft: Draft, args: Arguments) -> None:
    args.only(2)
    draft.meta[args.text(0)] = args.text(1)


def _tensor(draft: Draft, args: Arguments, into: list[Tensor]) -> None:
    args.only(1, "dtype", "shape", "space", "address", "strides")
    name = args.text(0)
    draft.symbols.define(name, lambda: args.named_integer("address") or 0)
    draft.later.append(lambda: into.append(_make_tensor(args, name)))


def _make_tensor(args: Arguments, name: str) -> Tensor:
    """The space is dram, the address 0 and the strides those of a dense array where they are left out."""
    defaults: dict[str, object] = {"space": "dram", "address": 0, "strides": []}
    known = {"name": name} | {key: value for key, value in defaults.items() if args.keyword(key) is None}
    tensor = args.record(Tensor, **known)
    if tensor.dtype not in DTYPES:
        raise FlexcError(f"tensor '{name}' has unknown dtype {tensor.dtype}; allowed: {', '.join(DTYPES)}")
    if "strides" not in known:
        return tensor
    sizes = [DTYPES[tensor.dtype] * math.prod(tensor.shape[place + 1 :]) for place in range(len(tensor.shape))]
    return replace(tensor, strides=tuple(sizes))


def _state(draft: Draft, args: Arguments) -> None:
    args.only(2)
    draft.states.append(State(args.text(0), args.text(1)))


def _last_segment(draft: Draft) -> DraftSegment:
    if not draft.segments:
        raise FlexcError("no segment is open", remedy="write .segment NAME first")
    return draft.segments[-1]


def _number_of(args: Arguments, default: int) -> int:
    args.only(1, *(each.name for each in args.shape.keywords))
    return args.integer(0) if args.count else default


def _op(draft: Draft, args: Arguments) -> None:
    number = _number_of(args, len(draft.ops))
    if number in draft.ops:
        raise FlexcError(f".op {number} is there twice")
    draft.ops[number] = args.record(Op, first=draft.pc, last=draft.pc)
    draft.open_ops.append(number)


def _endop(draft: Draft, args: Arguments) -> None:
    args.only(1)
    number = args.integer(0) if args.count else (draft.open_ops or [-1])[-1]
    if number not in draft.open_ops:
        raise FlexcError(".endop without its .op")
    draft.open_ops.remove(number)
    draft.ops[number] = replace(draft.ops[number], last=draft.pc)


def _tap(draft: Draft, args: Arguments) -> None:
    number = _number_of(args, len(draft.taps))
    if number in draft.taps:
        raise FlexcError(f".tap {number} is there twice")
    draft.taps[number] = args.record(Tap, pc=draft.pc)


def _tile(draft: Draft, args: Arguments) -> None:
    number = _number_of(args, len(draft.tiles))
    if number in draft.tiles:
        raise FlexcError(f".tile {number} is there twice")
    draft.tiles[number] = args.record(Tile, pc=draft.pc)


def _fields(cls: type[Op | Tap | Tile], *without: str) -> str:
    """Return how the fields of a record are written."""
    shown = []
    for each in fields(cls):
        text = f"{each.name}={'[...]' if str(each.type).startswith('tuple') else ''}"
        shown.append(text if each.default is MISSING else f"[{text}]")
    return " ".join(text for text in shown if text.strip("[]=.") not in without)


_TENSOR = "NAME dtype=TYPE shape=[...] [space=dram] [address=0] [strides=[...]]"

DIRECTIVES = (
    Directive(".isa VERSION", "The instruction set that the text is written for.", _isa),
    Directive('.target NAME | "FILE.toml"', "The machine: a preset, or a file beside the text.", _target),
    Directive(".machine", "The machine: TOML lines up to `.end`.", _nothing, _machine_block),
    Directive(".equ NAME EXPRESSION", "A symbol for a number.", _equ),
    Directive(".dram BYTES", "Size of the dram memory; without it as large as the tensors need.", _dram),
    Directive(
        f".input {_TENSOR}", "An input; its name is a symbol for its address.", lambda d, a: _tensor(d, a, d.inputs)
    ),
    Directive(f".output {_TENSOR}", "An output, likewise.", lambda d, a: _tensor(d, a, d.outputs)),
    Directive(
        ".state INPUT, OUTPUT",
        "The input stays in memory from run to run; the output, in the same place, is what it has become.",
        _state,
    ),
    Directive(f".tensor {_TENSOR}", "Another tensor, for debugging, likewise.", lambda d, a: _tensor(d, a, d.tensors)),
    Directive(".segment NAME", "A host segment; the data that follow are its ONNX model.", _segment),
    Directive(
        f".segment_input {_TENSOR}",
        "A tensor that the last segment reads.",
        lambda d, a: _tensor(d, a, _last_segment(d).inputs),
    ),
    Directive(
        f".segment_output {_TENSOR}",
        "A tensor that the last segment writes.",
        lambda d, a: _tensor(d, a, _last_segment(d).outputs),
    ),
    Directive(".code", "Instructions follow.", _open("code")),
    Directive(".weights", "Data follow that belong to the weights: the const memory from address 0.", _open("weights")),
    Directive(
        ".constants",
        "Data follow that belong to the constants: the const memory after the weights.",
        _open("constants"),
    ),
    Directive(".blob NAME", "Data follow that belong to a named byte string.", _blob),
    Directive('.data file="FILE" [offset=0] [size=] [crc=]', "A stretch of a file, found beside the text.", _data),
    Directive(".base64", "Bytes as base64 in the lines up to `.end`.", _base64, _base64_block),
    *(Directive(f".{dtype} NUMBER, ...", f"Numbers of type {dtype}.", _numbers(dtype)) for dtype in DTYPES),
    Directive(
        ".bits WIDTH, NUMBER, ...",
        "Numbers of so many bits each, the first in the lowest bits, padded to whole bytes: the indices of a column.",
        _bits,
    ),
    Directive(".fill COUNT, BYTE", "One byte COUNT times.", _fill),
    Directive(".zero COUNT", "COUNT zero bytes.", _zero),
    Directive(".align MULTIPLE", "Zero bytes up to a multiple.", _align),
    Directive(".meta KEY, TEXT", "Where the program came from.", _meta),
    Directive(
        f".op [NUMBER] {_fields(Op, 'first', 'last')}",
        "A node of the graph starts here; its instructions end at `.endop`.",
        _op,
    ),
    Directive(".endop [NUMBER]", "The instructions of an op end: of the one opened last, or of that number.", _endop),
    Directive(
        f".tap [NUMBER] {_fields(Tap, 'pc')}",
        "An operand of the next instruction is (a part of) a value of the graph.",
        _tap,
    ),
    Directive(
        f".tile [NUMBER] {_fields(Tile, 'pc')}",
        "What the loop that follows counts, or with count 1 what the code from here on works on.",
        _tile,
    ),
)
BY_NAME = {each.name: each for each in DIRECTIVES}

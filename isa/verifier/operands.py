"""Verifier, operands: which memories, element types and shapes each instruction takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..instruction import Groups, Instr
from ..machine import Machine
from ..streams import Stream

Streams = Mapping[str, Stream]

_MOVES = ("const", "dram", "buf")
_NEAR = ("buf", "acc")


@dataclass(frozen=True)
class Context:
    """One instruction with its operands, as the rules see it."""

    instruction: Instr
    streams: Streams
    groups: Groups | None
    machine: Machine

    def __getitem__(self, name: str) -> Stream:
        return self.streams[name]


Rule = Callable[[Context], Iterator[str]]


def operand_problems(context: Context) -> Iterator[str]:
    """Yield what is wrong with the operands of one instruction."""
    mnemonic, engine = context.instruction.mnemonic, context.instruction.spec.engine
    memories = list(_memories(context))
    yield from memories
    for name in context.instruction.spec.writes:
        yield from _separate(name, context[name])
    rule = RULES.get(mnemonic)
    if rule is not None:
        yield from rule(context)
    elif engine == "vector":
        yield from _elementwise(context)
        if mnemonic in ("vsub", "vneg", "vsign") and context["a"].dtype == "b8":
            yield f"{mnemonic} takes numbers, not b8"


def _memories(context: Context) -> Iterator[str]:
    mnemonic = context.instruction.mnemonic
    for name, stream in context.streams.items():
        allowed = _allowed(mnemonic, context.instruction.spec.engine, name)
        if mnemonic == "ldw" and name == "src" and context.machine.array.resident:
            allowed = _MOVES
        if stream.space not in allowed:
            yield f"{name} is in {stream.space}; allowed: {', '.join(allowed)}"
        if stream.space == "const" and name in context.instruction.spec.writes:
            yield f"{name} is in const, which is read only"


def _allowed(mnemonic: str, engine: str, name: str) -> tuple[str, ...]:
    """Return the memories that an operand may be in."""
    if name == "cells":
        return ("cells",)
    if engine == "dma":
        return _MOVES
    if engine == "vector":
        return _NEAR
    return ("acc",) if mnemonic in ("mac", "accum") and name != "act" else ("buf",)


def _separate(name: str, stream: Stream) -> Iterator[str]:
    """A result's elements must not lie on one another."""
    rows = stream.rows > 1 and abs(stream.row_pitch) < stream.itemsize
    cols = stream.cols > 1 and abs(stream.col_pitch) < stream.itemsize
    if stream.space != "cells" and (rows or cols):
        yield f"elements of {name} lie on one another: pitches {stream.row_pitch} and {stream.col_pitch} bytes"


def _shape(stream: Stream) -> str:
    return f"{stream.rows} x {stream.cols}"


def _same(context: Context, name: str, rows: int, cols: int, why: str) -> Iterator[str]:
    stream = context[name]
    if (stream.rows, stream.cols) != (rows, cols):
        yield f"{name} is {_shape(stream)}, not {rows} x {cols}, {why}"


def _typed(context: Context, name: str, *allowed: str) -> Iterator[str]:
    if name in context.streams and context[name].dtype not in allowed:
        yield f"{name} is {context[name].dtype}; allowed: {', '.join(allowed)}"


def _fits(context: Context, name: str) -> Iterator[str]:
    """An operand has the rows and columns of dst, or one that is repeated."""
    if name not in context.streams:
        return
    stream, dst = context[name], context["dst"]
    if stream.rows not in (1, dst.rows) or stream.cols not in (1, dst.cols):
        yield f"{name} is {_shape(stream)} and cannot be repeated to dst, {_shape(dst)}"


def _elementwise(context: Context) -> Iterator[str]:
    for name in context.instruction.spec.reads:
        yield from _fits(context, name)


def _copy(context: Context) -> Iterator[str]:
    yield from _fits(context, "src")
    if context["src"].itemsize != context["dst"].itemsize:
        yield f"src is {context['src'].dtype} and dst {context['dst'].dtype}: element sizes differ"


def _gather(context: Context) -> Iterator[str]:
    table, dst, index = context["table"], context["dst"], context["index"]
    yield from _typed(context, "index", "i32", "i64")
    if table.dtype != dst.dtype:
        yield f"table is {table.dtype} and dst {dst.dtype}: element types differ"
    if table.cols != dst.cols:
        yield f"table has {table.cols} columns and dst {dst.cols}"
    if index.elements != dst.rows:
        yield f"index has {index.elements} elements for {dst.rows} rows of dst"


def _scatter(context: Context) -> Iterator[str]:
    dst, src, index = context["dst"], context["src"], context["index"]
    yield from _typed(context, "index", "i32", "i64")
    if src.dtype != dst.dtype:
        yield f"src is {src.dtype} and dst {dst.dtype}: element types differ"
    if src.cols != dst.cols:
        yield f"src has {src.cols} columns and dst {dst.cols}"
    if index.elements != src.rows:
        yield f"index has {index.elements} elements for {src.rows} rows of src"


def _cells(context: Context) -> Iterator[str]:
    stream, macros = context["cells"], context.machine.array.macros
    if stream.itemsize != 1 or stream.cols != 1 or (stream.rows > 1 and stream.row_pitch != 1):
        yield "cells must be u8 or i8 with one column and a row pitch of 1: one macro a row"
    if stream.rows > macros:
        yield f"cells has {stream.rows} rows; this machine has {macros} macros"


def _ldw(context: Context) -> Iterator[str]:
    yield from _cells(context)
    yield from _typed(context, "src", "u8", "i8")
    groups, cells = context.groups, context["cells"]
    assert groups is not None
    tile = groups.tile_bytes(context.machine.array.columns)
    yield from _same(context, "src", cells.rows, tile, f"one row of tile bytes a macro ({_named(groups)})")


def _named(groups: Groups) -> str:
    return f"{groups.n}:{groups.m}, {groups.blocks} blocks"


def _lda(context: Context) -> Iterator[str]:
    yield from _typed(context, "act", "i8")


def _mac(context: Context) -> Iterator[str]:
    yield from _cells(context)
    yield from _typed(context, "acc", "i32")
    yield from _sums(context, "acc")
    groups, cells, act = context.groups, context["cells"], context["act"]
    assert groups is not None
    slices = context.instruction.integer("slices")
    columns = cells.rows * context.machine.array.columns
    yield from _same(context, "acc", act.rows, columns, "the vectors of act by the columns of the macros")
    if cells.rows % slices:
        yield f"{cells.rows} macros do not form {slices} equal slices"
    if act.cols != slices * groups.depth:
        yield f"act has {act.cols} columns, not {slices * groups.depth}: slices x blocks x m ({_named(groups)})"


def _sums(context: Context, name: str) -> Iterator[str]:
    """The array reaches its accumulators a vector at a time: columns side by side, vectors a row of all macros on."""
    stream, array = context[name], context.machine.array
    a_vector = 4 * array.macros * array.columns
    if (stream.rows > 1 and stream.row_pitch != a_vector) or (stream.cols > 1 and stream.col_pitch != 4):
        yield (
            f"{name} has pitches {stream.row_pitch} and {stream.col_pitch} bytes; sums of a vector lie side by side, "
            f"those of vectors {a_vector} bytes apart"
        )


def _accum(context: Context) -> Iterator[str]:
    dst = context["dst"]
    yield from _sums(context, "dst")
    yield from _sums(context, "src")
    yield from _typed(context, "dst", "i32")
    yield from _typed(context, "src", "i32")
    yield from _same(context, "src", dst.rows, dst.cols, "as dst")


def _reduce(context: Context) -> Iterator[str]:
    yield from _same(context, "dst", context["a"].rows, 1, "one element a row of a")


def _quant(context: Context) -> Iterator[str]:
    yield from _typed(context, "dst", "i8", "u8")
    yield from _typed(context, "a", "f32")
    yield from _typed(context, "scale", "f32")
    yield from _typed(context, "zero", context["dst"].dtype)
    yield from _same(context, "a", context["dst"].rows, context["dst"].cols, "as dst")
    yield from _elementwise(context)


def _dequant(context: Context) -> Iterator[str]:
    yield from _typed(context, "dst", "f32", "f16")
    yield from _typed(context, "acc", "i32")
    for name in ("sx", "sw", "bias"):
        yield from _typed(context, name, "f32")
    yield from _elementwise(context)


def _store(context: Context) -> Iterator[str]:
    yield from _typed(context, "dst", "i32")
    yield from _typed(context, "acc", "i32")
    yield from _elementwise(context)


def _vmm(context: Context) -> Iterator[str]:
    dst, a = context["dst"], context["a"]
    for name in ("dst", "a", "b"):
        yield from _typed(context, name, "f32")
    yield from _same(context, "a", dst.rows, a.cols, "the rows of dst by K")
    yield from _same(context, "b", a.cols, dst.cols, "K by the columns of dst")


def _rank(context: Context) -> Iterator[str]:
    dst, a = context["dst"], context["a"]
    yield from _typed(context, "dst", "i32", "i64")
    if a.rows != dst.rows:
        yield f"a is {_shape(a)} and dst {_shape(dst)}: the rows differ"
    if dst.cols > a.cols:
        yield f"dst has {dst.cols} columns, a only {a.cols}"


def _pick(context: Context) -> Iterator[str]:
    dst, a = context["dst"], context["a"]
    yield from _typed(context, "index", "i32", "i64")
    yield from _typed(context, "a", dst.dtype)
    yield from _fits(context, "index")
    if a.rows not in (1, dst.rows):
        yield f"a is {_shape(a)} and cannot be repeated to the rows of dst, {_shape(dst)}"


def _put(context: Context) -> Iterator[str]:
    dst, a = context["dst"], context["a"]
    yield from _typed(context, "index", "i32", "i64")
    yield from _typed(context, "a", dst.dtype)
    yield from _same(context, "index", a.rows, a.cols, "as a")
    if a.rows != dst.rows:
        yield f"a is {_shape(a)} and dst {_shape(dst)}: the rows differ"


def _scan(context: Context) -> Iterator[str]:
    dst = context["dst"]
    yield from _typed(context, "dst", "f32", "i32", "i64")
    yield from _typed(context, "a", dst.dtype)
    yield from _same(context, "a", dst.rows, dst.cols, "as dst")


#: The rules of instructions whose operands do more than repeat to dst's shape.
RULES: Mapping[str, Rule] = {
    "copy": _copy,
    "gather": _gather,
    "scatter": _scatter,
    "ldw": _ldw,
    "lda": _lda,
    "mac": _mac,
    "accum": _accum,
    "vrsum": _reduce,
    "vrmax": _reduce,
    "vrmin": _reduce,
    "vrprod": _reduce,
    "vrank": _rank,
    "vpick": _pick,
    "vput": _put,
    "vscan": _scan,
    "quant": _quant,
    "dequant": _dequant,
    "store": _store,
    "vmm": _vmm,
}


def group_problems(groups: Groups, instruction: Instr, machine: Machine) -> Iterator[str]:
    """Yield what is wrong with a ``groups`` instruction on this machine."""
    n, m, array = groups.n, groups.m, machine.array
    sizes = ", ".join(map(str, array.block_sizes))
    if (n, m) != (1, 1) and (m not in array.block_sizes or n > m):
        yield f"{n}:{m} cannot be formed; allowed: 1:1 (dense), and n <= m with m of {sizes}"
        return
    most = machine.blocks_per_tile(n, m)
    if groups.blocks > most:
        yield f"{groups.blocks} blocks of {n}:{m}; a tile holds {most}"
    if instruction.integer("slots") != groups.slots:
        yield f"slots={instruction.integer('slots')} is not blocks x n = {groups.slots}"
    if groups.index_bits != machine.index_bits(m):
        yield f"index={groups.index_bits} is not log2({m}) = {machine.index_bits(m)}"
    if instruction.integer("merge") != array.sub_macros:
        yield f"merge={instruction.integer('merge')}: this machine merges {array.sub_macros} sub-macros"
    for name in ("packing", "select"):
        if instruction.word(name) != getattr(array, name):
            yield f"{name}={instruction.word(name)}: this machine has {getattr(array, name)}"

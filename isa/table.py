"""The instruction table: every instruction of FlexCiM once. Encoder, decoder, assembler and manual follow it."""

from __future__ import annotations

from . import counters, durations
from .fields import Choice, Float32, OptionalStream, Register, Signed, Tokens, Unsigned
from .instruction import ENGINES, LEVELS, SEMAPHORES, STREAMS, WORD_BITS, Instruction
from .streams import DTYPES, SPACES


def stream(name: str, doc: str) -> Register:
    """Return an operand that names a stream."""
    return Register(name, 6, doc, positional=True, prefix="s", count=STREAMS)


def level(name: str, doc: str) -> Register:
    """Return an operand that names a loop level."""
    return Register(name, 3, doc, positional=True, prefix="L", count=LEVELS)


CHANNEL = Register("channel", 1, "DMA channel", positional=True, prefix="ch", count=2)
DST = stream("dst", "where the result goes")
A = stream("a", "first operand")
MODE = Choice(
    "mode",
    2,
    "overwrite, add, or overwrite in iteration 0 of loop `level` and add after",
    default="clear",
    words=("clear", "add", "first"),
)
LEVEL = Register("level", 3, "the loop that mode=first looks at", default=0, prefix="L", count=LEVELS)
IMM = Float32("imm", 32, "the operand where no stream is named", default=0.0)

CONTROL = (
    Instruction("halt", 0x01, "control", (), "The program ends when every engine has finished."),
    Instruction(
        "loop",
        0x02,
        "control",
        (level("level", "its counter"), Unsigned("count", 32, "iterations", low=1)),
        "Carry out what follows, up to the matching `endloop`, `count` times; no cycles are spent on going round.",
    ),
    Instruction("endloop", 0x03, "control", (level("level", "the loop that ends here"),), "The body of the loop ends."),
    Instruction("barrier", 0x04, "control", (), "Control waits until every engine has finished what it was given."),
    Instruction(
        "stream",
        0x05,
        "control",
        (
            stream("stream", "the stream to set"),
            Choice("space", 3, "memory", positional=True, words=SPACES),
            Choice("dtype", 4, "element type", positional=True, words=tuple(DTYPES)),
            Unsigned("base", 40, "address of element (0, 0)", unit="bytes", hexadecimal=True),
            Unsigned("rows", 28, "rows", low=1),
            Unsigned("cols", 28, "columns", low=1),
        ),
        "Point a stream at rows x cols elements without gaps; earlier pitches and steps of this stream are forgotten.",
    ),
    Instruction(
        "pitch",
        0x06,
        "control",
        (
            stream("stream", "the stream to change"),
            Signed("row", 40, "from one row to the next", unit="bytes"),
            Signed("col", 40, "from one column to the next", unit="bytes"),
        ),
        "Set the distances between the stream's rows and columns.",
    ),
    Instruction(
        "step",
        0x07,
        "control",
        (
            stream("stream", "the stream to change"),
            level("level", "the loop it moves with"),
            Signed("by", 40, "distance an iteration", unit="bytes"),
            Unsigned("mod", 24, "places of the ring; 0: no ring", default=0),
        ),
        "Move the stream by `by` bytes an iteration of the loop. With `mod`, go round a ring of `mod` places: the "
        "iterations are then counted on, modulo `mod`, when an outer loop enters this one again.",
    ),
    Instruction(
        "groups",
        0x08,
        "control",
        (
            Unsigned("n", 5, "weights kept in a block", low=1, high=16),
            Unsigned("m", 5, "activations in a block; 1: dense", low=1, high=16),
            Unsigned("blocks", 8, "blocks a tile", low=1, high=128),
            Unsigned("slots", 8, "cells of a column in use, n a block", low=1, high=128),
            Unsigned("index", 3, "index bits a cell, log2 m", high=4),
            Choice("packing", 1, "where the slots of a block lie", words=("packed", "aligned")),
            Choice("select", 2, "how a cell selects its activation", words=("incell", "literal", "phased", "shared")),
            Unsigned("merge", 3, "sub-macros whose sums of a column are added", low=1, high=4),
        ),
        "Join the sub-macros' slots into groups of n that receive the same block of m activations; "
        "merging adds the sums of a column. Holds for every later `ldw` and `mac`.",
    ),
)

MOVES = (
    Instruction(
        "sync",
        0x10,
        "any",
        (Choice("engine", 3, "the queue it goes through", positional=True, words=ENGINES),),
        "Only waits and posts: its tokens are posted once every earlier instruction of its engine has delivered its "
        "results.",
        duration=durations.nothing,
        counters=counters.nothing,
        timing="0 cycles",
    ),
    Instruction(
        "copy",
        0x11,
        "dma",
        (DST, stream("src", "what is copied"), CHANNEL),
        "dst[i, j] = src[i, j], element sizes equal; a source with one row or one column is repeated.",
        reads=("src",),
        writes=("dst",),
        duration=durations.copy,
        counters=counters.copy,
        timing="DRAM latency, then max(bursts over DRAM bandwidth, bytes over the buffer's port)",
    ),
    Instruction(
        "gather",
        0x12,
        "dma",
        (DST, stream("table", "rows to pick from"), stream("index", "one index a row of dst, i32 or i64"), CHANNEL),
        "dst[i, :] = table[index[i], :]; a negative index counts from the end, then it is clamped to the table.",
        reads=("table", "index"),
        writes=("dst",),
        duration=durations.gather,
        counters=counters.gather,
        timing="as copy; every row picked is a run of its own",
    ),
    Instruction(
        "scatter",
        0x13,
        "dma",
        (DST, stream("src", "one row a row to write"), stream("index", "one index a row of src, i32 or i64"), CHANNEL),
        "dst[index[i], :] = src[i, :], one row after the other, the rest of dst stays; a negative index counts from "
        "the end, then it is clamped to dst.",
        reads=("src", "index", "dst"),
        writes=("dst",),
        duration=durations.scatter,
        counters=counters.scatter,
        timing="as copy; every row written is a run of its own",
    ),
)

ARRAY = (
    Instruction(
        "ldw",
        0x20,
        "weights",
        (stream("cells", "the macros and the weight set to write"), stream("src", "one row of tile bytes a macro")),
        "Write weights and indices of one tile a macro into the cells: for each column `slots` weight bytes, "
        "then for each column `slots` indices of `index` bits, a column padded to whole bytes.",
        reads=("src",),
        writes=("cells",),
        duration=durations.load_weights,
        counters=counters.load_weights,
        timing="max(load_cycles, bytes a cluster over the weight bus); 0 from const on a resident machine",
    ),
    Instruction(
        "lda",
        0x21,
        "array",
        (stream("act", "vectors of activations, i8: one row a vector"),),
        "Point the activation bus at the vectors that the next `mac` takes; the distribution network settles.",
        reads=("act",),
        duration=durations.settle,
        counters=counters.nothing,
        timing="settle_cycles",
    ),
    Instruction(
        "mac",
        0x22,
        "array",
        (
            stream("acc", "one row of sums a vector: the columns of the macros that take part"),
            stream("cells", "the macros and their weight set"),
            MODE,
            LEVEL,
            Unsigned(
                "slices",
                5,
                "the macros form so many equal groups, group g taking the g-th part of a vector",
                low=1,
                default=1,
            ),
            Tokens(
                "release",
                6,
                "semaphore to give a token to when the last vector is in: cells and activations are free",
                default=(),
                length=1,
                count=SEMAPHORES,
            ),
        ),
        "acc[v, c] (+)= sum over the slots s of column c of weight[s, c] * activation[v, block(s) * m + index[s, c]], "
        "exact in int32.",
        reads=("act", "cells"),
        writes=("acc",),
        duration=durations.mac,
        counters=counters.mac,
        timing="busy V * c * II; done (V - 1) * c * II + drain + c - 1; c = cycles a vector",
    ),
    Instruction(
        "accum",
        0x23,
        "array",
        (DST, stream("src", "sums to add")),
        "dst += src, int32, between accumulators of different macros: joins partial sums over K.",
        reads=("src", "dst"),
        writes=("dst",),
        duration=durations.accumulate,
        counters=counters.accumulate,
        timing="one cycle a vector",
    ),
)


def _vector(
    mnemonic: str,
    opcode: int,
    operands: tuple[Register | OptionalStream, ...],
    meaning: str,
    rule: durations.VectorRule,
    *,
    immediate: bool = False,
) -> Instruction:
    extra = (IMM, Unsigned("swap", 1, "1: operands change places", default=0)) if immediate else ()
    return Instruction(
        mnemonic,
        opcode,
        "vector",
        (DST, *operands, *extra),
        meaning,
        reads=tuple(each.name for each in operands),
        writes=("dst",),
        duration=rule,
        counters=counters.Vector(rule),
        timing=f"ceil(elements of {rule.over} / lanes) x ({rule.simple} simple + {rule.functions} function cycles)",
    )


_OPTIONAL_A = OptionalStream("a", 7, "first operand; `imm` where left out", default=-1, count=STREAMS)
_OPTIONAL_B = OptionalStream("b", 7, "second operand; `imm` where left out", default=-1, count=STREAMS)
_BINARY = (
    ("vadd", 0x30, "a + b", 1, 0),
    ("vsub", 0x31, "a - b", 1, 0),
    ("vmul", 0x32, "a * b", 1, 0),
    ("vdiv", 0x33, "a / b", 0, 1),
    ("vmax", 0x34, "the greater of a and b; NaN if either is", 1, 0),
    ("vmin", 0x35, "the smaller of a and b; NaN if either is", 1, 0),
    ("vpow", 0x36, "a to the power b", 1, 2),
    ("veq", 0x37, "a == b, as b8", 1, 0),
    ("vlt", 0x38, "a < b, as b8", 1, 0),
    ("vle", 0x39, "a <= b, as b8", 1, 0),
    ("vand", 0x3A, "both, as b8", 1, 0),
    ("vor", 0x3B, "either, as b8", 1, 0),
    ("vxor", 0x3C, "not the same, as b8", 1, 0),
)
_UNARY = (
    ("vmov", 0x40, "a, converted to dst's type (towards zero, b8 is a != 0)", 1, 0),
    ("vabs", 0x41, "|a|", 1, 0),
    ("vneg", 0x42, "-a", 1, 0),
    ("vnot", 0x43, "not a, as b8", 1, 0),
    ("vsqrt", 0x44, "square root of a", 0, 1),
    ("vrecip", 0x45, "1 / a", 0, 1),
    ("vexp", 0x46, "e to the power a", 0, 1),
    ("vlog", 0x47, "natural logarithm of a", 0, 1),
    ("vtanh", 0x48, "hyperbolic tangent of a", 0, 1),
    ("verf", 0x49, "error function of a", 0, 1),
    ("vsigmoid", 0x4A, "1 / (1 + e^-a)", 0, 1),
    ("vfloor", 0x4B, "greatest whole number not above a", 1, 0),
    ("vceil", 0x4C, "least whole number not below a", 1, 0),
    ("vround", 0x4D, "nearest whole number, halves to even", 1, 0),
    ("vsin", 0x4E, "sine of a", 0, 1),
    ("vcos", 0x4F, "cosine of a", 0, 1),
    ("vsign", 0x50, "-1, 0 or 1", 1, 0),
    ("visnan", 0x51, "a is NaN, as b8", 1, 0),
)
_REDUCE = (
    ("vrsum", 0x58, "dst[i, 0] = sum of row i of a"),
    ("vrmax", 0x59, "dst[i, 0] = greatest of row i of a"),
    ("vrmin", 0x5A, "dst[i, 0] = least of row i of a"),
    ("vrprod", 0x5B, "dst[i, 0] = product of row i of a"),
)

VECTOR = (
    *(
        _vector(
            name,
            code,
            (A, _OPTIONAL_B),
            f"dst = {text}; one row or one column is repeated.",
            durations.VectorRule(simple, slow),
            immediate=True,
        )
        for name, code, text, simple, slow in _BINARY
    ),
    *(
        _vector(name, code, (A,), f"dst = {text}.", durations.VectorRule(simple, slow))
        for name, code, text, simple, slow in _UNARY
    ),
    *(_vector(name, code, (A,), f"{text}.", durations.VectorRule(1, over="a")) for name, code, text in _REDUCE),
    Instruction(
        "vsel",
        0x60,
        "vector",
        (DST, stream("c", "the condition, b8"), _OPTIONAL_A, _OPTIONAL_B, IMM),
        "dst = a where c, else b; one row or one column is repeated.",
        reads=("c", "a", "b"),
        writes=("dst",),
        duration=durations.VectorRule(1),
        counters=counters.Vector(durations.VectorRule(1)),
        timing="ceil(elements of dst / lanes) x 1 simple cycle",
    ),
    Instruction(
        "vfill",
        0x61,
        "vector",
        (DST, IMM),
        "dst = imm, converted to dst's type.",
        writes=("dst",),
        duration=durations.VectorRule(1),
        counters=counters.Vector(durations.VectorRule(1)),
        timing="ceil(elements of dst / lanes) x 1 simple cycle",
    ),
    Instruction(
        "quant",
        0x62,
        "vector",
        (
            DST,
            A,
            stream("scale", "one a row, or one"),
            OptionalStream("zero", 7, "zero point, of dst's type", default=-1, count=STREAMS),
        ),
        "dst = saturate(round half to even(a / scale) + zero), i8 or u8; the least number for NaN.",
        reads=("a", "scale", "zero"),
        writes=("dst",),
        duration=durations.VectorRule(2, 1),
        counters=counters.Vector(durations.VectorRule(2, 1)),
        timing="ceil(elements of dst / lanes) x (2 simple + 1 function cycles)",
    ),
    Instruction(
        "dequant",
        0x63,
        "vector",
        (
            DST,
            stream("acc", "int32 sums"),
            stream("sx", "scale of the activations, one a row"),
            stream("sw", "scale of the weights, one a column"),
            OptionalStream("bias", 7, "added last, one a column", default=-1, count=STREAMS),
        ),
        "dst = ((f32(acc) * sx) * sw) + bias, each step rounded to f32.",
        reads=("acc", "sx", "sw", "bias"),
        writes=("dst",),
        duration=durations.VectorRule(4),
        counters=counters.Vector(durations.VectorRule(4)),
        timing="ceil(elements of dst / lanes) x 4 simple cycles",
    ),
    Instruction(
        "store",
        0x64,
        "vector",
        (DST, stream("acc", "int32 sums")),
        "dst = acc, as i32.",
        reads=("acc",),
        writes=("dst",),
        duration=durations.VectorRule(1),
        counters=counters.Vector(durations.VectorRule(1)),
        timing="ceil(elements of dst / lanes) x 1 simple cycle",
    ),
    Instruction(
        "vrank",
        0x68,
        "vector",
        (DST, A, Unsigned("least", 1, "1: the least first", default=0)),
        "dst[i, j] = column of the j-th greatest of row i of a, i32 or i64; of equal ones the first, NaN is greatest.",
        reads=("a",),
        writes=("dst",),
        duration=durations.RankRule(over="a"),
        counters=counters.Vector(durations.RankRule(over="a")),
        timing="ceil(elements of a / lanes) x 2 simple cycles x min(columns of dst, stages of a sorting network)",
    ),
    Instruction(
        "vpick",
        0x69,
        "vector",
        (DST, A, stream("index", "a column of a for every element of dst, i32 or i64")),
        "dst[i, j] = a[i, index[i, j]]; a negative index counts from the end, then it is clamped to the row.",
        reads=("a", "index"),
        writes=("dst",),
        duration=durations.VectorRule(2),
        counters=counters.Vector(durations.VectorRule(2)),
        timing="ceil(elements of dst / lanes) x 2 simple cycles",
    ),
    Instruction(
        "vput",
        0x6A,
        "vector",
        (DST, A, stream("index", "a column of dst for every element of a, i32 or i64")),
        "dst[i, index[i, j]] = a[i, j], one column after the other, the rest of dst stays; an index as in vpick.",
        reads=("a", "index", "dst"),
        writes=("dst",),
        duration=durations.VectorRule(2, over="a"),
        counters=counters.Vector(durations.VectorRule(2, over="a")),
        timing="ceil(elements of a / lanes) x 2 simple cycles",
    ),
    Instruction(
        "vscan",
        0x6B,
        "vector",
        (DST, A),
        "dst[i, j] = sum of a[i, 0] to a[i, j], one after the other.",
        reads=("a",),
        writes=("dst",),
        duration=durations.ScanRule(over="a"),
        counters=counters.Vector(durations.ScanRule(over="a")),
        timing="ceil(elements of a / lanes) x log2(columns) simple cycles",
    ),
    Instruction(
        "vmm",
        0x65,
        "vector",
        (DST, A, stream("b", "K rows, as many columns as dst"), MODE, LEVEL),
        "dst[i, j] (+)= sum over k of a[i, k] * b[k, j], f32.",
        reads=("a", "b"),
        writes=("dst",),
        duration=durations.vector_matmul,
        counters=counters.vector_matmul,
        timing="ceil(rows x columns x K / lanes) x mac_cycles",
    ),
)

HOST = (
    Instruction(
        "host",
        0x70,
        "host",
        (Unsigned("segment", 16, "its number in the object file"),),
        "Run a part of the model in onnxruntime on the host, on tensors in DRAM.",
        duration=durations.host,
        counters=counters.host,
        timing="DRAM latency + bytes in and out over DRAM bandwidth; the host's own time is not modelled",
    ),
)

TABLE = (*CONTROL, *MOVES, *ARRAY, *VECTOR, *HOST)
BY_MNEMONIC = {each.mnemonic: each for each in TABLE}
BY_OPCODE = {each.opcode: each for each in TABLE}


def check_table() -> None:
    """Raise ValueError when two instructions share a name or an opcode, or one does not fit into a word."""
    if len(BY_MNEMONIC) != len(TABLE) or len(BY_OPCODE) != len(TABLE):
        raise ValueError("two instructions share a mnemonic or an opcode")
    for each in TABLE:
        names = [operand.name for operand in each.fields]
        if len(set(names)) != len(names) or each.used_bits > WORD_BITS:
            raise ValueError(f"{each.mnemonic}: {each.used_bits} of {WORD_BITS} bits, operands {names}")

"""The vector unit's part of the instruction table."""

from __future__ import annotations

from . import counters, durations
from .fields import OptionalStream, Register, Unsigned
from .instruction import STREAMS, Instruction
from .operands import DST, IMM, LEVEL, MODE, OPTIONAL_A, OPTIONAL_B, A, stream


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
            (A, OPTIONAL_B),
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
        (DST, stream("c", "the condition, b8"), OPTIONAL_A, OPTIONAL_B, IMM),
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

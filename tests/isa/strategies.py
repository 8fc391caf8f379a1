"""Random instructions and programs, made from the fields of the instruction table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from flexc.isa.fields import Choice, Field, Float32, OptionalStream, Register, Signed, Tokens, Unsigned, Value
from flexc.isa.instruction import Instr
from flexc.isa.machine import load_machine
from flexc.isa.program import EVERY, Debug, Op, Program, Segment, State, Tap, Tensor, Tile
from flexc.isa.streams import DTYPES, Step
from flexc.isa.table import TABLE

EDGE = load_machine("edge")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SMALL = st.integers(0, 1 << 40)


def values_of(field: Field) -> st.SearchStrategy[Value]:
    """Legal values of a field."""
    match field:
        case Unsigned():
            return st.integers(field.low, field.top)
        case Signed():
            return st.integers(-(1 << (field.width - 1)), (1 << (field.width - 1)) - 1)
        case Float32():
            return st.floats(width=32, allow_nan=True).map(lambda value: float("nan") if value != value else value)
        case Choice():
            return st.sampled_from(field.words)
        case Register():
            return st.integers(0, field.count - 1)
        case OptionalStream():
            return st.integers(-1, field.count - 1)
        case Tokens():
            return st.lists(st.integers(1, field.count - 1), unique=True, max_size=field.length).map(tuple)
    raise AssertionError(f"no strategy for {type(field).__name__}")


@st.composite
def instructions(draw: st.DrawFn) -> Instr:
    spec = draw(st.sampled_from(TABLE))
    return Instr(spec, {field.name: draw(values_of(field)) for field in spec.fields})


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
    strides = tuple(draw(st.integers(-64, 64)) for _ in shape)
    dtype, space = draw(st.sampled_from(sorted(DTYPES))), draw(st.sampled_from(["const", "dram"]))
    return Tensor(draw(NAMES), dtype, shape, space, draw(SMALL), strides)


@st.composite
def debugs(draw: st.DrawFn, length: int) -> Debug:
    ops, taps = [], []
    for _ in range(draw(st.integers(0, 3))):
        first = draw(st.integers(0, length))
        last = draw(st.integers(first, length))
        ops.append(
            Op(
                draw(NAMES),
                "MatMul",
                tuple(draw(st.lists(NAMES, max_size=2))),
                "array",
                "2:4",
                first,
                last,
                draw(NAMES),
                draw(st.integers(EVERY, 3)),
            )
        )
    for _ in range(draw(st.integers(0, 2))):
        steps = tuple(Step(draw(st.integers(0, 7)), draw(st.integers(-9, 9))) for _ in range(draw(st.integers(0, 2))))
        taps.append(Tap(draw(st.integers(0, length - 1)), "dst", draw(NAMES), "f32", (2, 3), draw(SMALL), 3, 1, steps))
        taps[-1] = replace(taps[-1], iteration=draw(st.integers(EVERY, 3)))
    counts = st.integers(-9, 99)
    tiles = [
        Tile(
            draw(st.integers(0, length - 1)),
            draw(NAMES),
            draw(st.integers(1, 9)),
            draw(NAMES),
            *draw(st.tuples(*[counts] * 4)),
        )
        for _ in range(draw(st.integers(0, 2)))
    ]
    labels = draw(st.dictionaries(st.integers(0, length), NAMES, max_size=3))
    placed = tuple(draw(st.lists(tensors(), max_size=2)))
    return Debug(tuple(ops), tuple(taps), placed, dict(sorted(labels.items())), tuple(tiles))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs that can be written and read; most are not safe to run."""
    code = tuple(draw(st.lists(instructions(), min_size=1, max_size=12)))
    const = np.frombuffer(draw(st.binary(max_size=2000)), np.uint8)
    some = st.lists(tensors(), max_size=2).map(tuple)
    segments = [
        Segment(draw(NAMES), draw(some), draw(some), draw(st.binary(max_size=99)))
        for _ in range(draw(st.integers(0, 2)))
    ]
    blobs = draw(
        st.dictionaries(NAMES, st.binary(max_size=200).map(lambda data: np.frombuffer(data, np.uint8)), max_size=2)
    )
    return Program(
        code=code,
        machine=EDGE,
        const=const,
        weight_bytes=draw(st.integers(0, const.size)),
        dram_bytes=draw(SMALL),
        inputs=draw(some),
        outputs=draw(some),
        segments=tuple(segments),
        debug=draw(debugs(len(code))),
        meta=draw(st.dictionaries(NAMES, NAMES, max_size=2)),
        blobs=blobs,
        states=tuple(State(draw(NAMES), draw(NAMES)) for _ in range(draw(st.integers(0, 2)))),
    )

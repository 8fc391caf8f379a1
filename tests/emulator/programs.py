"""Small programs for tests of the emulator: packing weights, placing data, putting instructions together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flexc.isa.encoding import instr
from flexc.isa.instruction import Groups, Instr
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Debug, Op, Program, Segment, Tensor
from flexc.isa.streams import DTYPES

EDGE = load_machine("edge")


def groups_of(n: int, m: int, blocks: int) -> Groups:
    return Groups(n, m, blocks, m.bit_length() - 1, "packed", "incell")


def groups(n: int, m: int, blocks: int) -> Instr:
    return instr(
        "groups",
        n=n,
        m=m,
        blocks=blocks,
        slots=n * blocks,
        index=m.bit_length() - 1,
        packing="packed",
        select="incell",
        merge=4,
    )


def stream(number: int, space: str, dtype: str, base: int, rows: int, cols: int) -> Instr:
    return instr("stream", stream=number, space=space, dtype=dtype, base=base, rows=rows, cols=cols)


def pack(weights: npt.NDArray[np.int8], index: npt.NDArray[np.uint8], index_bits: int) -> npt.NDArray[np.uint8]:
    """Return the tile bytes of weights and indices, [columns, slots]: written slot by slot, on purpose."""
    columns, slots = weights.shape
    plane = bytearray()
    for column in range(columns):
        bits = 0
        for slot in range(slots):
            bits |= int(index[column, slot]) << (slot * index_bits)
        plane += bits.to_bytes(-(-slots * index_bits // 8), "little")
    return np.frombuffer(weights.tobytes() + bytes(plane), np.uint8)


def random_tile(
    rng: np.random.Generator, shape: Groups, columns: int = 32
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return a tile's bytes and its dense matrix [depth, columns]; indices are free, so some slots share a position."""
    weights = rng.integers(-128, 128, (columns, shape.slots)).astype(np.int8)
    index = rng.integers(0, shape.m, (columns, shape.slots)).astype(np.uint8)
    dense = np.zeros((shape.depth, columns), np.int64)
    for column in range(columns):
        for slot in range(shape.slots):
            dense[slot // shape.n * shape.m + int(index[column, slot]), column] += weights[column, slot]
    return pack(weights, index, shape.index_bits), dense


def tensor(name: str, dtype: str, shape: Sequence[int], address: int, space: str = "dram") -> Tensor:
    strides: list[int] = []
    step = DTYPES[dtype]
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return Tensor(name, dtype, tuple(shape), space, address, tuple(strides))


def program(
    code: Iterable[Instr],
    *,
    const: npt.NDArray[Any] | None = None,
    dram_bytes: int = 1 << 16,
    inputs: Sequence[Tensor] = (),
    outputs: Sequence[Tensor] = (),
    segments: Sequence[Segment] = (),
    ops: Sequence[Op] = (),
    machine: Machine = EDGE,
) -> Program:
    content = np.zeros(0, np.uint8) if const is None else np.ascontiguousarray(const).reshape(-1).view(np.uint8)
    return Program(
        code=(*code, instr("halt")),
        machine=machine,
        const=content,
        weight_bytes=content.size,
        dram_bytes=dram_bytes,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        segments=tuple(segments),
        debug=Debug(ops=tuple(ops)),
    )


def with_control(machine: Machine = EDGE, **changes: int) -> Machine:
    return replace(machine, control=replace(machine.control, **changes))


def with_array(machine: Machine = EDGE, **changes: Any) -> Machine:
    return replace(machine, array=replace(machine.array, **changes))

"""Verifier, memories: their sizes, tensors inside them, and what has been written so far."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from ..program import Program, Tensor
from ..streams import DTYPES
from ..tensors import extent

#: Weight sets that stand for "without limit".
_UNLIMITED_SETS = 1 << 20
#: Bytes that one tensor's elements may take when copied out of the program.
_LARGEST_TENSOR = 1 << 40


def sizes(program: Program) -> dict[str, int]:
    """Return the size of every memory in bytes; of ``cells`` in units, the weights of one macro in one set."""
    machine = program.machine
    array = machine.array
    return {
        "const": len(program.const),
        "dram": program.dram_bytes,
        "buf": machine.buffer.bytes,
        "acc": machine.accumulator_bytes,
        "cells": array.macros * (array.weight_sets or _UNLIMITED_SETS),
    }


def tensor_problems(program: Program) -> Iterator[tuple[int | None, str]]:
    """Yield what is wrong with memories, inputs, outputs and the tensors of host segments."""
    memory = sizes(program)
    capacity = program.machine.dram.capacity_bytes
    if program.dram_bytes < 0 or memory["const"] + program.dram_bytes > capacity:
        yield None, f"{memory['const']} bytes of const and {program.dram_bytes} of dram; the machine has {capacity}"
    if not 0 <= program.weight_bytes <= memory["const"]:
        yield None, f"{program.weight_bytes} bytes of weights in {memory['const']} bytes of const"
    for title, tensors, written in _tensors(program):
        names = [tensor.name for tensor in tensors]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield None, f"{title} '{name}' is there twice"
        for tensor in tensors:
            for message in _tensor(tensor, memory, written=written):
                yield None, f"{title} '{tensor.name}' {message}"


def _tensors(program: Program) -> Iterator[tuple[str, tuple[Tensor, ...], bool]]:
    yield "input", program.inputs, True
    yield "output", program.outputs, False
    for place, segment in enumerate(program.segments):
        yield f"host segment {place}: input", segment.inputs, False
        yield f"host segment {place}: output", segment.outputs, True


def _tensor(tensor: Tensor, memory: dict[str, int], *, written: bool) -> Iterator[str]:
    if tensor.dtype not in DTYPES:
        yield f"has unknown dtype {tensor.dtype}"
        return
    if tensor.space not in ("const", "dram"):
        yield f"lies in {tensor.space}; allowed: const, dram"
        return
    if written and tensor.space == "const":
        yield "is written, but const is read only"
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > 32 or any(size < 0 for size in tensor.shape):
        yield f"has shape {list(tensor.shape)} with strides {list(tensor.strides)}"
        return
    size = DTYPES[tensor.dtype]
    if math.prod(tensor.shape) * size > _LARGEST_TENSOR:
        yield f"has {math.prod(tensor.shape)} elements"
    if any(number % size for number in (tensor.address, *tensor.strides)):
        yield f"is not aligned to its elements of {size} bytes"
    low, high = extent(tensor)
    if low < 0 or high > memory[tensor.space]:
        yield f"takes bytes {low:#x}..{high:#x} of {tensor.space}, which has {memory[tensor.space]:#x}"


class Written:
    """The stretches of one memory that have been written: disjoint, in order, joined where they touch."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, low: int, high: int) -> None:
        """A stretch is written."""
        first = bisect_left(self.ends, low)
        last = bisect_right(self.starts, high)
        if first < last:
            low, high = min(low, self.starts[first]), max(high, self.ends[last - 1])
        self.starts[first:last] = [low]
        self.ends[first:last] = [high]

    def meets(self, low: int, high: int) -> bool:
        """Whether any byte of a stretch has been written."""
        place = bisect_right(self.ends, low)
        return place < len(self.starts) and self.starts[place] < high

    def remove(self, low: int, high: int) -> None:
        """A stretch no longer counts as written."""
        first, last = bisect_right(self.ends, low), bisect_left(self.starts, high)
        if first >= last:
            return
        before, after = (self.starts[first], low), (high, self.ends[last - 1])
        kept = [(start, end) for start, end in (before, after) if start < end]
        self.starts[first:last] = [start for start, _ in kept]
        self.ends[first:last] = [end for _, end in kept]

    def covers(self, low: int, high: int) -> bool:
        """Whether every byte of a stretch has been written."""
        place = bisect_right(self.starts, low) - 1
        return place >= 0 and self.ends[place] >= high

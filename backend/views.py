"""Views: how a value of the graph lies in memory. Shape and byte strides over a storage; most data movement is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..isa.streams import DTYPES


@dataclass(eq=False)
class Storage:
    """A piece of const or dram memory; its address is known once everything has been planned."""

    name: str
    space: str
    size: int
    address: int = -1


@dataclass(frozen=True)
class View:
    """A tensor of ``shape`` whose element i lies at ``storage + offset + sum(i * strides)`` bytes."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def dense(cls, storage: Storage, dtype: str, shape: Sequence[int], order: Sequence[int] | None = None) -> View:
        """Return a view without gaps; ``order`` lists the dimensions from the outermost to the innermost in memory."""
        strides = [0] * len(shape)
        size = DTYPES[dtype]
        for axis in reversed(range(len(shape)) if order is None else order):
            strides[axis] = size
            size *= shape[axis]
        return cls(storage, dtype, tuple(shape), tuple(strides))

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return DTYPES[self.dtype]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def address(self) -> int:
        """Byte address of the first element."""
        return self.storage.address + self.offset

    def transpose(self, perm: Sequence[int]) -> View:
        """Return the view with its dimensions in another order."""
        shape, strides = tuple(self.shape[p] for p in perm), tuple(self.strides[p] for p in perm)
        return replace(self, shape=shape, strides=strides)

    def slice(self, axis: int, start: int, length: int, step: int = 1) -> View:
        """Return every ``step``-th element of one dimension, ``length`` of them."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = length, strides[axis] * step
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=offset)

    def broadcast(self, shape: Sequence[int]) -> View:
        """Return the view repeated to a larger shape by the rules of ONNX; repeated dimensions have stride 0."""
        missing = len(shape) - len(self.shape)
        own_shape, own_strides = (1,) * missing + self.shape, (0,) * missing + self.strides
        strides = tuple(0 if own == 1 else stride for own, stride in zip(own_shape, own_strides, strict=True))
        return replace(self, shape=tuple(shape), strides=strides)

    def reshape(self, shape: Sequence[int]) -> View | None:
        """Return the same elements under another shape, or None where that needs a copy."""
        dims = collapse(self.shape, [self.strides])
        strides = _split(dims, tuple(shape))
        return None if strides is None else replace(self, shape=tuple(shape), strides=strides)


Dim = tuple[int, tuple[int, ...]]


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Dim]:
    """Return (size, strides of each operand) of the fewest dimensions that visit the same elements in this order."""
    dims: list[Dim] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        own = tuple(each[axis] for each in strides)
        if dims and all(outer == inner * size for outer, inner in zip(dims[-1][1], own, strict=True)):
            dims[-1] = (dims[-1][0] * size, own)
        else:
            dims.append((size, own))
    return dims


def _split(dims: list[Dim], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    left = list(dims)
    strides: list[int] = []
    for size in reversed(shape):
        if size == 1:
            strides.append(left[-1][1][0] if left else 0)
            continue
        if not left or left[-1][0] % size:
            return None
        count, (stride,) = left.pop()
        strides.append(stride)
        if count > size:
            left.append((count // size, (stride * size,)))
    return tuple(reversed(strides))

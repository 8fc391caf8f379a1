"""Verifier, accesses: what one instruction reads or writes in a memory, and how that moves with the loops around."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property

from ..program import Tensor
from ..streams import DTYPES, Stream
from .flow import Loop
from .overlap import Term


@dataclass(frozen=True, eq=False)
class Access:
    """The bytes (units, in ``cells``) ``base + one multiple of each term + 0..width`` of a memory.

    ``moves`` are (level, stride) of the loops around that move it, ``rings`` (level, stride, period) of those that
    move it round a ring. ``late``: it happens when the results are delivered, not while its engine is busy.
    """

    name: str
    space: str
    writes: bool
    late: bool
    base: int
    width: int
    terms: tuple[Term, ...] = ()
    moves: tuple[tuple[int, int], ...] = ()
    rings: tuple[tuple[int, int, int], ...] = ()

    @cached_property
    def key(self) -> tuple[object, ...]:
        """All that the access is, to compare."""
        return (
            *(self.space, self.writes, self.late, self.base, self.width),
            *(self.terms, self.moves, self.rings),
        )

    def extent(self, counts: Mapping[int, int]) -> tuple[int, int]:
        """Return the first byte and the one after the last, loops turning ``counts[level]`` times."""
        low = high = self.base
        parts = [*self.terms, *((stride, counts[level]) for level, stride in self.moves)]
        parts += [(stride, period) for _, stride, period in self.rings]
        for stride, count in parts:
            low += min(0, stride * (count - 1))
            high += max(0, stride * (count - 1))
        return low, high + self.width

    def blurred(self, exact: Set[tuple[int, int]]) -> Access:
        """Return the access with every ring but these (level, period) taken as being anywhere."""
        other = tuple((stride, period) for level, stride, period in self.rings if (level, period) not in exact)
        rings = tuple(ring for ring in self.rings if (ring[0], ring[2]) in exact)
        return replace(self, terms=self.terms + other, rings=rings)


def access_of(
    name: str,
    stream: Stream,
    opened: Mapping[int, Loop],
    totals: Mapping[int, int],
    *,
    writes: bool = False,
    late: bool = False,
) -> Access:
    """Return what an operand touches inside these open loops; ``totals`` are the iterations of each level in all."""
    moves, rings = [], []
    for step in stream.steps:
        loop = opened.get(step.level)
        if loop is None or not step.stride:
            continue
        if step.period and (step.period < totals[step.level] or loop.count < totals[step.level]):
            rings.append((step.level, step.stride, min(step.period, totals[step.level])))
        elif loop.count > 1:
            moves.append((step.level, step.stride))
    width, terms = _window(stream)
    return Access(name, stream.space, writes, late, stream.base, width, terms, tuple(moves), tuple(rings))


def _window(stream: Stream) -> tuple[int, tuple[Term, ...]]:
    """Return the bytes of a stream that lie side by side, and how they repeat."""
    if stream.space == "cells":
        return stream.rows, ()
    terms, width = [], stream.itemsize
    if stream.cols > 1 and stream.col_pitch == width:
        width *= stream.cols
    elif stream.cols > 1:
        terms.append((stream.col_pitch, stream.cols))
    if stream.rows > 1 and stream.row_pitch == width and not terms:
        width *= stream.rows
    elif stream.rows > 1:
        terms.append((stream.row_pitch, stream.rows))
    return width, tuple(terms)


def access_of_tensor(tensor: Tensor, *, writes: bool) -> Access | None:
    """Return what the host touches of a tensor; None where it has no elements."""
    if 0 in tensor.shape:
        return None
    terms = tuple((stride, size) for stride, size in zip(tensor.strides, tensor.shape, strict=True) if size > 1)
    return Access(f"'{tensor.name}'", tensor.space, writes, False, tensor.address, DTYPES[tensor.dtype], terms)

"""Verifier, pairs: whether two accesses that nothing orders can meet, in any of the turns that they stand for.

An access is followed in turn t of M of each loop around it and stands for the turns t, t + P, .. t + N - M of N
(:mod:`.turns`). Two accesses in the same turn, or in turns not far apart, of one execution of a loop stand for
all pairs of turns with that distance. In the first P and the last P turns they stand for all pairs that are farther
apart, too. In different executions of a loop, or where only one of them is inside, the first turns stand for
themselves, the last for the last ones, and those between for all others.
"""

from __future__ import annotations

from dataclasses import dataclass

from .access import Access
from .overlap import Term, reaches
from .turns import Turn

#: The loops around, the outermost first, and the turn of each.
Frames = tuple[tuple[Turn, int], ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """An access in one place of the walk: ``base`` holds what moves it, ``time`` the place in its engine's order."""

    access: Access
    base: int
    time: int
    frames: Frames
    pc: int


def meet(x: Visit, y: Visit) -> bool:
    """Whether a byte of the earlier access can be one of the later; False is certain."""
    a, b = x.access, y.access
    terms = [(-stride, count) for stride, count in a.terms]
    terms += b.terms
    distance = y.base - x.base + _between(x, y, terms)
    return reaches(distance, terms, 1 - b.width, a.width - 1)


def _between(x: Visit, y: Visit, terms: list[Term]) -> int:
    """Add what the turns that two visits stand for add to their distance; return the part that is certain."""
    shared = 0
    for (loop, t), (other, u) in zip(x.frames, y.frames, strict=False):
        if loop is not other:
            break
        shared += 1
        if loop.slack:
            _together(x.access, y.access, loop, t, u, terms)
        if t != u:
            break
    sure = -_alone(x, shared, -1, terms)
    return sure + _alone(y, shared, 1, terms)


def _together(a: Access, b: Access, loop: Turn, t: int, u: int, terms: list[Term]) -> None:
    """Both are inside one execution of a loop."""
    by_a, by_b, places = _stride(a, loop), _stride(b, loop), loop.slack + 1
    if t >= loop.period or u < loop.trips - loop.period:
        terms.append(((by_b - by_a) * loop.period, places))
    elif t != u and by_a == by_b:
        terms.append((by_a * loop.period, places))
    else:
        terms.append((-by_a * loop.period, places))
        terms.append((by_b * loop.period, places))


def _alone(visit: Visit, shared: int, sign: int, terms: list[Term]) -> int:
    """One is inside loops that the other is not in, or not in this execution of them."""
    sure = 0
    for loop, turn in visit.frames[shared:]:
        by = _stride(visit.access, loop) if loop.slack else 0
        if not by or turn < loop.edge:
            continue
        if turn >= loop.trips - loop.edge:
            sure += by * loop.slack * loop.period
        else:
            terms.append((sign * by * loop.period, loop.slack + 1))
    return sure


def _stride(access: Access, loop: Turn) -> int:
    for level, stride in access.moves:
        if level == loop.level:
            return stride
    return 0


def reach(visit: Visit) -> tuple[int, int]:
    """Return the first byte and the one after the last that a visit's access touches there."""
    low = high = visit.base
    for stride, count in visit.access.terms:
        low += min(0, stride * (count - 1))
        high += max(0, stride * (count - 1))
    return low, high + visit.access.width

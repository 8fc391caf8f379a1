"""Rings inside a loop around whole ops: every turn finds their counts as code without that loop does.

The count of a ring runs on as often as its loop is entered again, but begins anew with an outermost loop
(:class:`..isa.streams.Step`). A loop put around outermost loops makes inner ones of them: after an odd number of
iterations the next would begin with the second of two places, where nobody has put what it needs. So loops of nothing
(two instructions; going round costs nothing) count on to whole rounds: before a loop with rings, and at the end of a
turn for the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

from .units import Line

#: Iterations after which all rings of a level must be back in place; going round more would show in the emulator.
_MOST_PLACES = 1 << 10


@dataclass(frozen=True)
class _Loop:
    """An outermost loop of a turn, which begins at line ``first``: iterations, and places of rings, by level."""

    first: int
    counts: Mapping[int, int]
    rings: Mapping[int, int]


def fillers(turn: Sequence[Line]) -> list[list[Line]] | None:
    """Return the lines to be put before each line of a turn, and at last those after it; None where rings are long."""
    rings = _rings(turn)
    if any(places > _MOST_PLACES for places in rings.values()):
        return None
    done: Counter[int] = Counter()
    before: list[list[Line]] = [[] for _ in range(len(turn) + 1)]
    for loop in _outermost(turn):
        before[loop.first] = list(_filled(done, loop.rings))
        done.update(loop.counts)
    before[-1] = list(_filled(done, rings))
    return before


def _outermost(turn: Sequence[Line]) -> Iterator[_Loop]:
    first, times = 0, [1]
    counts: Counter[int] = Counter()
    for place, line in enumerate(turn):
        if line.mnemonic == "loop":
            level, count = _number(line, "level"), _number(line, "count")
            if len(times) == 1:
                first, counts = place, Counter()
            times.append(times[-1] * count)
            counts[level] += times[-1]
        elif line.mnemonic == "endloop":
            times.pop()
            if len(times) == 1:
                yield _Loop(first, counts, _rings(turn[first:place]))


def _number(line: Line, name: str) -> int:
    value = line.values[name]
    assert isinstance(value, int)
    return value


def _rings(lines: Iterable[Line]) -> dict[int, int]:
    """Return after how many iterations of each level all its rings are back in place; no rings, no level."""
    rings: dict[int, int] = {}
    steps = {step for line in lines for stream in line.streams.values() for step in stream.steps if step.period}
    for step in steps:
        rings[step.level] = lcm(rings.get(step.level, 1), step.period)
    return dict(sorted(rings.items()))


def _filled(done: Counter[int], rings: Mapping[int, int]) -> Iterator[Line]:
    """Yield loops of nothing up to whole rounds, and count them as done."""
    for level, places in rings.items():
        missing = -done[level] % places
        if missing:
            done[level] += missing
            yield Line("loop", {}, {"level": level, "count": missing})
            yield Line("endloop", {}, {"level": level})

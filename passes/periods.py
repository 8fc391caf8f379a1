"""Periods: stretches of a sequence that repeat with one period, found in about linear time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Repetitions of nodes below this number are left as they are.
MIN_TURNS = 4
#: Sequences up to this length are looked at for every period.
_SHORT = 1 << 11

_Signs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stretch:
    """Places ``start`` to before ``stop`` of a sequence, in which every place equals the one ``period`` later."""

    start: int
    stop: int
    period: int

    @property
    def turns(self) -> int:
        """Whole periods in the stretch."""
        return (self.stop - self.start) // self.period


def stretches(signs: Sequence[int], least: int = MIN_TURNS) -> list[Stretch]:
    """Return stretches of at least so many periods that do not overlap, the longest first to be chosen, in order.

    In long sequences, stretches of fewer than MIN_TURNS periods are not looked for.
    """
    sequence = np.asarray(signs, np.int64)
    periods = range(1, len(sequence) // least + 1) if len(sequence) <= _SHORT else _periods(sequence)
    found = [stretch for period in periods for stretch in _with_period(sequence, period, least)]
    chosen: list[Stretch] = []
    free = np.ones(len(sequence), np.bool_)
    for stretch in sorted(found, key=lambda each: (each.start - each.stop, each.period, each.start)):
        for part in _runs(free[stretch.start : stretch.stop]):
            rest = Stretch(stretch.start + part[0], stretch.start + part[1], stretch.period)
            if rest.turns >= least:
                chosen.append(rest)
                free[rest.start : rest.stop] = False
    return sorted(chosen, key=lambda each: each.start)


def _periods(sequence: _Signs) -> Iterator[int]:
    """Yield every period with which a long stretch may repeat.

    ``names[i]`` stands for the ``width`` places from i on. In a stretch of T periods p <= width < 2p, a name comes
    again after exactly p places at more than (T - 3) p places, so only few p need a closer look.
    """
    names, width = np.unique(sequence, return_inverse=True)[1].astype(np.int64), 1
    while MIN_TURNS * (width // 2 + 1) <= len(sequence):
        order = np.argsort(names, kind="stable")
        same = names[order][1:] == names[order][:-1]
        gaps = np.bincount((order[1:] - order[:-1])[same])
        likely = np.arange(len(gaps))
        yield from likely[(likely > width // 2) & (likely <= width) & (gaps > (MIN_TURNS - 3) * likely)].tolist()
        if len(names) <= width:
            return
        pairs = names[:-width] * (len(sequence) + 1) + names[width:]
        names = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        width *= 2


def _with_period(sequence: _Signs, period: int, least: int) -> Iterator[Stretch]:
    for first, last in _runs(sequence[period:] == sequence[:-period]):
        stretch = Stretch(int(first), int(last) + period, period)
        if stretch.turns >= least:
            yield stretch


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))

"""The patterns a linear may get: every N of every M the machine knows, and dense."""

from __future__ import annotations

from collections.abc import Sequence

from ..pattern import DENSE, NM


def candidates(m_set: Sequence[int]) -> tuple[NM, ...]:
    """Return N:M for 1 <= N < M and every M of `m_set`, sparsest first, at equal density the smaller M, then dense.

    Raises:
        UsageError: an M that no pattern may have.
    """
    found = [NM(n, m) for m in set(m_set) for n in range(1, m)]
    return (*sorted(found, key=lambda nm: (nm.density, nm.m)), DENSE)


def finest(patterns: Sequence[NM]) -> tuple[NM, ...]:
    """Return of every density the pattern with the largest M: what counts where only zeros do.

    A block of 2M positions that keeps 2N may keep any set that two blocks of M keeping N each may, so the larger M
    is never worse at the same density; it costs one more bit of index a kept weight.
    """
    best: dict[float, NM] = {}
    for nm in sorted(patterns, key=lambda nm: (nm.density, nm.m)):
        best[nm.density] = nm
    return tuple(best.values())

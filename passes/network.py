"""Sorting networks cut down to one output: the N-th largest of M arrays, elementwise, by min and max alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Comparator:
    """Put the smaller of wires `low` and `high` on `low` and the larger on `high`; an unneeded half is left out."""

    low: int
    high: int
    min_needed: bool
    max_needed: bool


@cache
def nth_largest_network(n: int, m: int) -> tuple[tuple[Comparator, ...], int]:
    """Return the comparators, in order, and the wire on which the `n`-th largest of `m` values comes out.

    The network is Batcher's odd-even merge sort for `m` (a power of two), walked backwards to drop what the wanted
    output does not depend on.
    """
    target = m - n
    needed = {target}
    kept: list[Comparator] = []
    for low, high in reversed(list(_odd_even_merge_sort(m))):
        if low in needed or high in needed:
            kept.append(Comparator(low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept)), target


def _odd_even_merge_sort(m: int) -> Iterator[tuple[int, int]]:
    """Yield Batcher's comparators (low, high) that sort `m` wires ascending; `m` is a power of two."""
    size = 1
    while size < m:
        step = size
        while step >= 1:
            yield from _merge_layer(m, size, step)
            step //= 2
        size *= 2


def _merge_layer(m: int, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield one layer of Batcher's merge of runs of `size`, comparing wires `step` apart within the same run pair."""
    for base in range(step % size, m - step, 2 * step):
        for wire in range(base, min(base + step, m - step)):
            if wire // (2 * size) == (wire + step) // (2 * size):
                yield wire, wire + step

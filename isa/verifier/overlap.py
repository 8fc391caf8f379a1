"""Verifier, overlap: whether sums of multiples can land in a range; how two strided windows are told apart."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

#: ``stride * k`` for every ``0 <= k < count``.
Term = tuple[int, int]
#: Multiples of one stride that are looked at one by one; where more could reach, they are taken to reach.
_BRANCHES = 4


def reaches(distance: int, terms: Iterable[Term], low: int, high: int) -> bool:
    """Whether ``distance`` plus one multiple of each term can lie in ``low..high`` (both included).

    False is certain. True may be wrong where many strides that are no multiples of each other add up.
    """
    counts: dict[int, int] = {}
    for stride, count in terms:
        if stride < 0:  # the same set, counted from its other end
            distance += stride * (count - 1)
            stride = -stride
        if stride and count > 1:
            counts[stride] = counts.get(stride, 1) + count - 1
    low -= distance
    high -= distance
    if not counts:
        return low <= 0 <= high
    if high < 0 or low > sum([stride * (count - 1) for stride, count in counts.items()]):
        return False
    return _search(_ladder(counts), low, high)


def _ladder(counts: dict[int, int]) -> list[tuple[int, int, int, int]]:
    """Return (stride, count, reach of those before, gcd of it and those before), small strides first.

    A stride whose multiples close the gaps between those of the next is joined with it.
    """
    terms: list[Term] = []
    for stride in sorted(counts):
        count = counts[stride]
        if terms and stride % terms[-1][0] == 0 and terms[-1][1] >= stride // terms[-1][0]:
            small, places = terms[-1]
            terms[-1] = small, places + (count - 1) * (stride // small)
        else:
            terms.append((stride, count))
    ladder, reach, common = [], 0, 0
    for stride, count in terms:
        common = gcd(common, stride)
        ladder.append((stride, count, reach, common))
        reach += stride * (count - 1)
    return ladder


def _search(ladder: list[tuple[int, int, int, int]], low: int, high: int) -> bool:
    """Whether the sum of one multiple of each term can lie in ``low..high``, the largest stride first."""
    if not ladder:
        return low <= 0 <= high
    stride, count, rest, common = ladder[-1]
    if high < 0 or low > rest + stride * (count - 1) or high // common * common < low:
        return False
    first, last = max(0, -((rest - low) // stride)), min(count - 1, high // stride)
    if last - first >= _BRANCHES:
        return True
    return any(_search(ladder[:-1], low - stride * k, high - stride * k) for k in range(first, last + 1))

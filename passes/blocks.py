"""Which linears belong to one transformer block (or block of any repeated structure), read off the graph."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ..frontend.load import SCOPE_KEY

if TYPE_CHECKING:
    from ..frontend.linears import Linear

_NUMBER = re.compile(r"(?:^|[./_])(\d+)(?=[./_]|$)")


def blocks_of(linears: Sequence[Linear]) -> list[list[Linear]]:
    """Group linears, in graph order, into the repeated blocks of a model; linears outside all blocks are left out.

    The exporter's module paths say it where they are there (``layers.3.attn.q``: the number that counts furthest is the
    block's); node names serve as well (``/layers.3/attn/MatMul``). Otherwise the longest repetition of the sequence of
    weight shapes is taken as the blocks. A model that repeats nothing is one block.
    """
    for paths in (_scopes(linears), [linear.name for linear in linears]):
        grouped = _by_number(linears, paths)
        if len(grouped) > 1:
            return grouped
    return _by_repetition(linears)


def _scopes(linears: Sequence[Linear]) -> list[str]:
    return [linear.node.metadata_props.get(SCOPE_KEY, "") for linear in linears]


def _by_number(linears: Sequence[Linear], paths: Sequence[str]) -> list[list[Linear]]:
    """Group by the first number of the path, under the prefix with most linears behind its numbers."""
    members: dict[str, dict[int, list[Linear]]] = defaultdict(lambda: defaultdict(list))
    for linear, path in zip(linears, paths, strict=True):
        found = _NUMBER.search(path)
        if found:
            members[path[: found.start(1)]][int(found[1])].append(linear)
    repeated = [blocks for blocks in members.values() if len(blocks) > 1 and _alike(list(blocks.values()))]
    best = max(repeated, key=lambda blocks: sum(map(len, blocks.values())), default={})
    return [best[number] for number in sorted(best)]


def _alike(blocks: Sequence[Sequence[Linear]]) -> bool:
    """Return whether most blocks hold the same number of linears, more than one: other numbers count single nodes."""
    size, times = Counter(map(len, blocks)).most_common(1)[0]
    return size > 1 and times * 2 >= len(blocks)


def _shape(linear: Linear) -> tuple[int, int, int]:
    return linear.k, linear.n, linear.groups


def _by_repetition(linears: Sequence[Linear]) -> list[list[Linear]]:
    """Cut the sequence of shapes where its longest repetition repeats; one block where nothing does."""
    shapes = [_shape(linear) for linear in linears]
    best = (0, 0, 0)  # linears covered, minus the period, start
    for period in range(1, len(shapes) // 2 + 1):
        for start, covered in _runs(shapes, period):
            best = max(best, (covered, -period, -start))
    covered, period, start = best[0], -best[1], -best[2]
    if not covered:
        return [list(linears)] if linears else []
    return [list(linears[place : place + period]) for place in range(start, start + covered, period)]


def _runs(shapes: Sequence[tuple[int, int, int]], period: int) -> list[tuple[int, int]]:
    """Return (start, length) of stretches of at least two whole periods that repeat with this period."""
    same = [index for index in range(len(shapes) - period) if shapes[index] != shapes[index + period]]
    edges = [-1, *same, len(shapes) - period]
    runs = ((left + 1, (right - left - 1 + period) // period * period) for left, right in pairwise(edges))
    return [(start, length) for start, length in runs if length >= 2 * period]

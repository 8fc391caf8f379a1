"""Verifier, turns: the code as a tree of loops, each with as many turns as it takes to see all that can happen in it.

Which of two instructions of a loop comes first by engine order and tokens depends only on how many turns lie between
them, as the body gives and takes the same tokens every time: the w-th wait of a turn always takes the token posted so
many turns before. And what comes before a turn also comes before all later ones, by the order of its engine. So a loop
of N turns is followed as one of M: whatever is ordered there is ordered in the loop itself, where turn t of the M
stands for the turns t, t + P, .. t + N - M. P is the period after which all rings are back in place, and N - M a
multiple of it, so that places in rings are exact; other addresses are ranges (see :mod:`.pairs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, lcm
from typing import TypeAlias

from ..instruction import ENGINES, Instr
from .access import Access
from .flow import Flow

#: Rings of so many places, and combinations of rings that repeat after so many turns, are followed place by place.
MOST_PLACES = 16

#: What happens in order: the engines, and the array's sums, which arrive after the array has gone on.
SUMS = len(ENGINES)
HOST = ENGINES.index("host")
_ARRAY = ENGINES.index("array")
#: Which engine each of these belongs to.
FAMILY = (*range(len(ENGINES)), _ARRAY)

Uses: TypeAlias = Mapping[int, Sequence[Access]]
_Rings: TypeAlias = "set[tuple[int, int]]"


@dataclass(slots=True)
class Work:
    """An instruction of an engine. ``sums``: it makes sums; ``covers``: what it posts says that all sums are there."""

    pc: int
    engine: int
    waits: tuple[int, ...]
    posts: tuple[int, ...]
    release: tuple[int, ...]
    sums: bool
    covers: bool
    accesses: tuple[Access, ...]


@dataclass(slots=True)
class Barrier:
    """Control waits for all engines."""


@dataclass(slots=True)
class Turn:
    """A loop of ``count`` turns, followed as ``trips``; ``slack`` is how many periods are left out.

    The first ``edge`` turns followed stand for themselves and the last ``edge`` for the last ones.
    """

    pc: int
    level: int
    count: int
    body: list[Work | Barrier | Turn]
    totals: dict[int, int] = field(default_factory=dict)
    net: dict[int, int] = field(default_factory=dict)
    period: int = 1
    edge: int = 1
    trips: int = 0
    slack: int = 0


Node: TypeAlias = Work | Barrier | Turn


def build(flow: Flow, uses: Uses) -> list[Node]:
    """Return the code as a tree; what sets registers is left out."""
    nodes = _block(flow, uses, 0, len(flow.code))
    for node in nodes:
        if isinstance(node, Turn):
            exact = _exact_rings(node)
            for turn in _turns([node]):
                turn.period = _period(turn, exact)
    shorten(nodes)
    return nodes


def shorten(nodes: Sequence[Node], edge: int = 1) -> None:
    """Decide how many turns are followed: some first, some last ones, and one for each place of rings between them."""
    for turn in _turns(nodes):
        least = turn.period + 2 * edge
        trips = least + (turn.count - least) % turn.period
        turn.edge = edge
        if trips >= turn.count or any(turn.net.values()):
            turn.trips, turn.slack = turn.count, 0
        else:
            turn.trips, turn.slack = trips, (turn.count - trips) // turn.period


def _block(flow: Flow, uses: Uses, first: int, last: int) -> list[Node]:
    nodes: list[Node] = []
    pc = first
    while pc < last:
        instruction = flow.code[pc]
        if pc in flow.loops:
            loop = flow.loops[pc]
            turn = Turn(pc, loop.level, loop.count, _block(flow, uses, pc + 1, loop.last))
            _sum_up(turn)
            nodes.append(turn)
            pc = loop.last
        elif instruction.spec.queued:
            nodes.append(_work(pc, instruction, tuple(uses.get(pc, ()))))
        elif instruction.mnemonic == "barrier":
            nodes.append(Barrier())
        pc += 1
    return nodes


def _work(pc: int, instruction: Instr, accesses: tuple[Access, ...]) -> Work:
    values, mnemonic = instruction.values, instruction.mnemonic
    engine = ENGINES.index(instruction.spec.engine_of(values))
    waits, posts = instruction.tokens("wait"), instruction.tokens("post")
    sums = mnemonic == "mac"
    return Work(pc, engine, waits, posts, instruction.tokens("release"), sums, sums or mnemonic == "sync", accesses)


def net_tokens(nodes: Sequence[Node]) -> dict[int, int]:
    """Return how many tokens each semaphore has more after these nodes than before."""
    net: dict[int, int] = {}
    for node in nodes:
        if isinstance(node, Work):
            for token in node.waits:
                net[token] = net.get(token, 0) - 1
            for token in (*node.posts, *node.release):
                net[token] = net.get(token, 0) + 1
        elif isinstance(node, Turn):
            for token, change in node.net.items():
                net[token] = net.get(token, 0) + change * node.count
    return net


def _sum_up(turn: Turn) -> None:
    """Note the tokens that one turn leaves, and how many turns each level inside makes in one."""
    turn.net = net_tokens(turn.body)
    for node in turn.body:
        if isinstance(node, Turn):
            turn.totals[node.level] = turn.totals.get(node.level, 0) + node.count
            for level, total in node.totals.items():
                turn.totals[level] = turn.totals.get(level, 0) + total * node.count


def _turns(nodes: Sequence[Node]) -> Iterator[Turn]:
    for node in nodes:
        if isinstance(node, Turn):
            yield node
            yield from _turns(node.body)


def _accesses(nodes: Sequence[Node]) -> Iterator[Access]:
    for node in nodes:
        if isinstance(node, Work):
            yield from node.accesses
        elif isinstance(node, Turn):
            yield from _accesses(node.body)


def _exact_rings(outermost: Turn) -> _Rings:
    """Return the rings (level, period) of an outermost loop that are followed place by place; blur the others."""
    rings = {(level, period) for each in _accesses([outermost]) for level, _, period in each.rings}
    exact: _Rings = set()
    for ring in sorted(rings, key=lambda each: (each[1], each[0])):
        if all(_period(turn, exact | {ring}) <= MOST_PLACES for turn in _turns([outermost])):
            exact.add(ring)
    _blur(outermost, exact)
    return exact


def _blur(outermost: Turn, exact: _Rings) -> None:
    """Take the other rings as being anywhere."""
    for node in _works([outermost]):
        if any((level, period) not in exact for each in node.accesses for level, _, period in each.rings):
            node.accesses = tuple(each.blurred(exact) for each in node.accesses)


def _works(nodes: Sequence[Node]) -> Iterator[Work]:
    for node in nodes:
        if isinstance(node, Work):
            yield node
        elif isinstance(node, Turn):
            yield from _works(node.body)


def _period(turn: Turn, rings: _Rings) -> int:
    """Return after how many turns all rings are back in place."""
    period = 1
    for level, places in rings:
        if level == turn.level:
            period = lcm(period, places)
        elif turn.totals.get(level):
            period = lcm(period, places // gcd(places, turn.totals[level]))
    return period


def size(nodes: Sequence[Node]) -> int:
    """Return how many instructions are followed."""
    return sum(node.trips * (1 + size(node.body)) if isinstance(node, Turn) else 1 for node in nodes)

"""Verifier, hazards: every two accesses of different engines to the same bytes, one of them a write, happen in order.

What orders two instructions, in the order of the program:

- an engine carries out its instructions one after the other;
- a wait comes after the post whose token it takes: the i-th wait on a semaphore takes the i-th token, both counted in
  the order of the program. A post says that the instruction is done, and with it all earlier ones of its engine. The
  sums of a ``mac`` arrive after the array has gone on: only a post of this ``mac``, of a later one or of a later
  ``sync array`` says that they are there. ``release`` says that a ``mac`` and all before it have read what they read;
- a barrier comes after everything before it and before everything after it.

The queues' finite depth and the issue order are not relied on, nor is any duration: a program proved here is right on
a machine of any speed. The accumulators take the sums and the ``accum`` of the array in the order of its instructions.

The code is followed once, loops as often as it takes to see all that can happen in them (:mod:`.turns`),
with a vector clock an engine: how much of every other engine's work is certain to be done. Each access is compared with
those before it that are not (:mod:`.pairs`). Between two barriers outside loops nothing is left over, so code
is followed in stretches; one that is like another, but for addresses that cannot matter, is followed once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..instruction import ENGINES
from .access import Access
from .flow import Flow
from .pairs import Frames, Visit, meet, reach
from .turns import FAMILY, SUMS, Barrier, Node, Turn, Uses, Work, build, net_tokens, shorten, size

#: Instructions and pairs of accesses that are followed in all; past this a program counts as not proved.
MOST_FOLLOWED = 3_000_000
#: Accesses and tokens that are kept in mind at once, likewise: so that memory stays bounded.
MOST_HELD = 100_000
#: Hazards reported of one stretch of code.
_MOST_FOUND = 10
#: First and last iterations that are followed where fewer do not prove that there is no hazard.
_CLOSER = 8
_ENGINES = range(len(ENGINES))


@dataclass(frozen=True)
class Hazard:
    """Something wrong at ``pc``, and what to do."""

    pc: int
    message: str
    remedy: str


def hazard_problems(flow: Flow, uses: Uses, place: Callable[[int], str]) -> Iterator[Hazard]:
    """Yield pairs of accesses that nothing orders: ``uses`` are those of each instruction, ``place`` names it."""
    checker = _Checker(place)
    stretch: list[Node] = []
    for node in (*build(flow, uses), Barrier()):
        if not isinstance(node, Barrier):
            stretch.append(node)
            continue
        yield from checker.stretch(stretch)
        if checker.followed > MOST_FOLLOWED:
            return
        stretch = []


@dataclass
class _Checker:
    """Goes from stretch to stretch; between them only the number of tokens counts."""

    place: Callable[[int], str]
    tokens: dict[int, int] = field(default_factory=dict)
    known: set[object] = field(default_factory=set)
    followed: int = 0

    def stretch(self, nodes: Sequence[Node]) -> Iterator[Hazard]:
        """Yield the hazards between two barriers."""
        net = net_tokens(nodes)
        shares = _shares(nodes)
        signature = (tuple(_signatures(nodes, shares)), tuple((token, self.tokens.get(token, 0)) for token in net))
        if signature not in self.known:
            found = list(self.follow(nodes, shares, net))
            if found and self.followed <= MOST_FOLLOWED:
                shorten(nodes, _CLOSER)
                found = list(self.follow(nodes, shares, net))
            yield from found
            if not found:
                self.known.add(signature)
        for token, change in net.items():
            self.tokens[token] = self.tokens.get(token, 0) + change

    def follow(self, nodes: Sequence[Node], shares: _Shares, net: dict[int, int]) -> Iterator[Hazard]:
        """Follow a stretch that is not like any before."""
        self.followed += size(nodes)
        if self.followed <= MOST_FOLLOWED:
            walk = _Walk(shares, {token: self.tokens.get(token, 0) for token in net}, MOST_FOLLOWED - self.followed)
            walk.nodes(nodes, ())
            self.followed += walk.compared
            for x, engine, y, other in walk.found.values():
                yield self.hazard(x, engine, y, other)
        if self.followed > MOST_FOLLOWED:
            yield _too_much(nodes)

    def hazard(self, x: Visit, engine: int, y: Visit, other: int) -> Hazard:
        """Put a hazard into words: ``x`` is the earlier access."""
        (low, high), (least, most) = reach(x), reach(y)
        low, high = (max(low, least), min(high, most)) if max(low, least) < min(high, most) else (least, most)
        space = y.access.space
        unit = "units" if space == "cells" else "bytes"
        earlier = ", in an earlier iteration," if x.pc >= y.pc else ""
        message = (
            f"{y.access.name} {_does(y)} {unit} {low:#x}..{high:#x} of {space} on engine {ENGINES[other]}, which"
            f"{earlier} {self.place(x.pc)} {_does(x)} as {x.access.name} on engine {ENGINES[FAMILY[engine]]}; "
            "nothing makes sure that it is done"
        )
        source = f"{self.place(x.pc)}" + (" or a later `sync array`" if engine == SUMS else "")
        return Hazard(y.pc, message, f"let {source} post a semaphore that this waits for, or put a barrier between")


def _does(visit: Visit) -> str:
    return "writes" if visit.access.writes else "reads"


def _too_much(nodes: Sequence[Node]) -> Hazard:
    first = next(iter(_firsts(nodes)), 0)
    turns = [node for node in nodes if isinstance(node, Turn) and any(node.net.values())]
    if turns:
        token = next(token for token, change in turns[0].net.items() if change)
        message = f"an iteration changes semaphore t{token} by {turns[0].net[token]}: that is too much to follow"
        return Hazard(turns[0].pc, message, "give and take the same tokens in every iteration")
    message = "from here on there is too much between two barriers to prove that no hazard is left"
    return Hazard(first, message, "put barriers between, or order the engines by semaphores more often")


def _firsts(nodes: Sequence[Node]) -> Iterator[int]:
    for node in nodes:
        if not isinstance(node, Barrier):
            yield node.pc


#: The part of a memory that an access shares with others, where engines can get into each other's way.
_Shares = dict[Access, int]


def _shares(nodes: Sequence[Node]) -> _Shares:
    """Number the parts of memories in which a write of one engine could meet an access of another."""
    spans: dict[Access, tuple[int, int]] = {}
    engines: dict[Access, set[int]] = {}
    _collect(nodes, {}, spans, engines)
    shares: _Shares = {}
    part: list[Access] = []
    end, space = 0, ""
    for access, (first, last) in sorted(spans.items(), key=lambda item: (item[0].space, item[1])):
        if access.space != space or first >= end:
            _number(part, engines, shares)
            part, space, end = [], access.space, last
        part.append(access)
        end = max(end, last)
    _number(part, engines, shares)
    return shares


def _number(part: Sequence[Access], engines: dict[Access, set[int]], shares: _Shares) -> None:
    """Give a part its number, if it is written and more than one engine touches it."""
    if any(access.writes for access in part) and len(set().union(*(engines[access] for access in part))) > 1:
        number = len(shares)
        shares.update((access, number) for access in part)


def _collect(
    nodes: Sequence[Node],
    counts: dict[int, int],
    spans: dict[Access, tuple[int, int]],
    engines: dict[Access, set[int]],
) -> None:
    """Note the first byte and the one after the last that each access touches, and the engines that it is made by."""
    for node in nodes:
        if isinstance(node, Work):
            for access in node.accesses:
                if access not in spans:
                    spans[access] = access.extent(counts)
                    engines[access] = set()
                engines[access].add(node.engine)
        elif isinstance(node, Turn):
            _collect(node.body, {**counts, node.level: node.count}, spans, engines)


def _signatures(nodes: Sequence[Node], shares: _Shares) -> Iterator[object]:
    """Yield all that the proof depends on."""
    for node in nodes:
        if isinstance(node, Work):
            accesses = tuple([access.key for access in node.accesses if access in shares])
            yield node.engine, node.waits, node.posts, node.release, node.sums, node.covers, accesses
        elif isinstance(node, Turn):
            yield node.level, node.count, node.period, tuple(_signatures(node.body, shares))
        else:
            yield None


class _Walk:
    """Follows one stretch with a clock an engine: what of every other engine's work is certain to be done."""

    def __init__(self, shares: _Shares, tokens: dict[int, int], most: int) -> None:
        self.shares, self.most = shares, most
        self.clocks = [[0] * len(FAMILY) for _ in _ENGINES]
        self.tokens = {token: deque([[0] * len(FAMILY)] * count) for token, count in tokens.items()}
        self.iterations: dict[int, int] = {}
        self.running: dict[int, int] = {}
        self.last_sums = 0
        self.compared = 0
        self.held = 0
        self.stopped = False
        self.found: dict[tuple[int, int, str], tuple[Visit, int, Visit, int]] = {}
        self.before: dict[tuple[int, bool], dict[int, list[Visit]]] = {}

    def nodes(self, nodes: Sequence[Node], frames: Frames) -> None:
        """Follow nodes in order."""
        for node in nodes:
            if self.stopped:
                return
            if isinstance(node, Work):
                self.work(node, frames)
            elif isinstance(node, Turn):
                self.turn(node, frames)
            else:
                self.barrier()

    def turn(self, turn: Turn, frames: Frames) -> None:
        """Follow a loop."""
        if not frames:
            self.running = {}
        start = self.running.get(turn.level, 0)
        for place in range(turn.trips):
            if self.stopped:
                return
            self.iterations[turn.level] = place
            self.running[turn.level] = start + place
            self.nodes(turn.body, (*frames, (turn, place)))
        self.running[turn.level] = start + turn.trips

    def barrier(self) -> None:
        """Everything is done."""
        done = [self.clocks[engine][engine] for engine in FAMILY]
        self.clocks = [done.copy() for _ in _ENGINES]
        self.before = {}
        self.held = sum(map(len, self.tokens.values()))

    def work(self, work: Work, frames: Frames) -> None:
        """Take tokens, look at the accesses, post."""
        clock = self.clocks[work.engine]
        for token in work.waits:
            clock[:] = map(max, clock, self.tokens[token].popleft())
            self.held -= 1
        clock[work.engine] += 1
        if work.sums:
            self.last_sums = clock[work.engine]
        for access in work.accesses:
            if access in self.shares:
                self.access(work, access, clock, frames)
        if work.posts:
            given = clock.copy()
            if work.covers:
                given[SUMS] = self.last_sums
            for token in work.posts:
                self.tokens[token].append(given)
        for token in work.release:
            self.tokens[token].append(clock.copy())
        self.hold(len(work.posts) + len(work.release))

    def hold(self, count: int) -> None:
        """So many more accesses or tokens are kept in mind; beyond the limit that counts as too much to follow."""
        self.held += count
        if self.held > MOST_HELD:
            self.compared, self.stopped = self.most + 1, True

    def access(self, work: Work, access: Access, clock: list[int], frames: Frames) -> None:
        """Compare an access with those of other engines that may not be done, and note it."""
        base, share = access.base, self.shares[access]
        for level, stride in access.moves:
            base += stride * self.iterations[level]
        for level, stride, period in access.rings:
            base += stride * (self.running[level] % period)
        visit = Visit(access, base, clock[work.engine], frames, work.pc)
        self.compare(visit, work.engine, clock, share, writes=True)
        if access.writes:
            self.compare(visit, work.engine, clock, share, writes=False)
        own = SUMS if access.late else work.engine
        self.before.setdefault((share, access.writes), {}).setdefault(own, []).append(visit)
        self.hold(1)

    def compare(self, visit: Visit, engine: int, clock: list[int], share: int, *, writes: bool) -> None:
        """Look for accesses of other engines, not certain to be done, that the access can meet."""
        for other, visits in self.before.get((share, writes), {}).items():
            if FAMILY[other] == engine:
                continue
            done = clock[other]
            for before in reversed(visits):
                if before.time <= done:
                    break
                self.compared += 1
                if meet(before, visit):
                    key = (before.pc, visit.pc, visit.access.space)
                    self.found.setdefault(key, (before, other, visit, engine))
                    self.stopped |= len(self.found) >= _MOST_FOUND
                    return
                self.stopped |= self.compared > self.most

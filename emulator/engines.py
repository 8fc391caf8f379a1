"""The engines' queues in time: when each instruction starts and ends, given how long it takes.

Control issues in order, at most one instruction every ``issue_cycles``; each engine works in order, and tokens order
engines. The i-th wait on a semaphore takes the i-th token posted to it, both counted in program order.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ..isa.errors import FlexcError
from ..isa.instruction import ENGINES, SEMAPHORES
from ..isa.machine import Machine
from ..isa.program import Program
from .walk import at

Times = list[int]
#: How the engines, queues and tokens stand to each other, in a form that can be compared.
State = tuple[object, ...]
#: What grows from one time round a loop to the next: the clock, cycles and ends of ops.
Record = tuple[int, Times, Times]


@dataclass(slots=True)
class Work:
    """An instruction as the queues see it. ``gap`` is the time that control spends on the ones before it.

    ``marks`` says that it is done only when all earlier results of its engine are there (``sync``).
    """

    pc: int
    op: int
    engine: int
    gap: int
    busy: int
    done: int
    latency: int = 0
    bus: int = 0
    waits: tuple[int, ...] = ()
    posts: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    marks: bool = False


@dataclass(slots=True)
class _Pending:
    """Issued work that waits for tokens which nobody has posted yet, and the places of its tokens."""

    work: Work
    issued: int
    waits: tuple[tuple[int, int], ...]
    posts: tuple[tuple[int, int], ...]
    release: tuple[tuple[int, int], ...]


@dataclass
class Engines:
    """All that time depends on, and the cycles by op that it led to. Times are cycles from the program's start."""

    program: Program
    ops: int
    clock: int = 0
    latest: int = 0
    free: Times = field(default_factory=lambda: [0] * len(ENGINES))
    delivered: Times = field(default_factory=lambda: [0] * len(ENGINES))
    bus: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        machine: Machine = self.program.machine
        self.issue_cycles = machine.control.issue_cycles
        self.depth = machine.control.queue_depth
        self.starts: list[deque[int]] = [deque(maxlen=self.depth) for _ in ENGINES]
        self.tokens: list[dict[int, int]] = [{} for _ in range(SEMAPHORES)]
        self.waited = [0] * SEMAPHORES
        self.posted = [0] * SEMAPHORES
        self.pending: list[deque[_Pending]] = [deque() for _ in ENGINES]
        self.blocked = 0
        self.op_cycles = [0] * self.ops
        self.op_start = [-1] * self.ops
        self.op_end = [0] * self.ops
        #: Which op the work of each counts for at the moment.
        self.counting = list(range(self.ops))

    def run(self, work: Sequence[Work]) -> None:
        """Issue instructions, one after the other.

        Raises:
            FlexcError: one can never start, because a token that it or its engine waits for never comes.
        """
        starts, free, depth = self.starts, self.free, self.depth
        for each in work:
            clock = self.clock + each.gap
            waits, engine = each.waits, each.engine
            if self.blocked or (waits and not self._ready(waits)):
                self.clock = clock
                self._queue(each)
                continue
            ring = starts[engine]
            if len(ring) == depth and ring[0] > clock:
                clock = ring[0]
            self.clock = clock + self.issue_cycles
            start = free[engine]
            if start < clock:
                start = clock
            if waits:
                start = self._take(waits, start)
            done = self._occupy(each, start)
            if each.posts:
                self._post(each.posts, done)
            if each.release:
                self._post(each.release, free[engine])

    def barrier(self) -> None:
        """Control waits until all that was issued is done.

        Raises:
            FlexcError: something never will be.
        """
        if self.blocked:
            self._deadlock()
        self.clock = max(self.clock, self.latest) + self.issue_cycles

    def finish(self) -> int:
        """Return the cycles up to the last result, at least to the issue of ``halt``.

        Raises:
            FlexcError: something will never be done.
        """
        if self.blocked:
            self._deadlock()
        return max(self.latest, self.clock - self.issue_cycles)

    def state(self) -> State | None:
        """Return how all times stand to the clock, as far as they can still matter; None while something is held up.

        What lies before the clock cannot delay anything any more, so how far it lies back does not count.
        """
        if self.blocked:
            return None
        clock = self.clock
        tokens = tuple(
            (token, place - self.waited[token], time - clock if time > clock else 0)
            for token, held in enumerate(self.tokens)
            if held
            for place, time in held.items()
        )
        queues = tuple(tuple([start - clock if start > clock else 0 for start in ring]) for ring in self.starts)
        engines = tuple([time - clock if time > clock else 0 for time in (*self.free, *self.delivered)])
        bus = tuple((begin - clock, end - clock) for begin, end in self.bus if end > clock)
        return tokens, queues, engines, bus, self.latest - clock

    def record(self, ops: Sequence[int]) -> Record:
        """Return what grows while a loop goes round: the clock, and of each of these ops its cycles and its end."""
        return self.clock, [self.op_cycles[op] for op in ops], [self.op_end[op] for op in ops]

    def jump(self, record: Record, times: int, ops: Sequence[int]) -> None:
        """Go on as since the record was taken, ``times`` more times: all that is still to come moves by as much."""
        clock, cycles, ends = record
        here, shift = self.clock, times * (self.clock - clock)
        for op, before, end in zip(ops, cycles, ends, strict=True):
            self.op_cycles[op] += times * (self.op_cycles[op] - before)
            self.op_end[op] += shift if self.op_end[op] > end else 0

        def moved(time: int) -> int:
            return time + shift if time > here else time

        self.clock += shift
        self.latest += shift
        self.free = [moved(time) for time in self.free]
        self.delivered = [moved(time) for time in self.delivered]
        self.bus = [(begin + shift, end + shift) for begin, end in self.bus if end > here]
        self.starts = [deque(map(moved, ring), maxlen=self.depth) for ring in self.starts]
        self.tokens = [{place: moved(time) for place, time in held.items()} for held in self.tokens]

    def _ready(self, waits: tuple[int, ...]) -> bool:
        waited, tokens = self.waited, self.tokens
        return not [token for token in waits if waited[token] not in tokens[token]]

    def _take(self, waits: tuple[int, ...], start: int) -> int:
        """Take tokens that are there; return when the last of them came, at least ``start``."""
        for token in waits:
            place = self.waited[token]
            self.waited[token] = place + 1
            time = self.tokens[token].pop(place)
            if time > start:
                start = time
        return start

    def _post(self, posts: tuple[int, ...], time: int) -> None:
        for token in posts:
            place = self.posted[token]
            self.posted[token] = place + 1
            self.tokens[token][place] = time

    def _occupy(self, work: Work, start: int) -> int:
        """Give the engine to work that starts now; return when it is done."""
        engine, op = work.engine, self.counting[work.op]
        delay = self._transfer(start + work.latency, work.bus) if work.bus else 0
        done = start + work.done + delay
        if done > self.delivered[engine]:
            self.delivered[engine] = done
        elif work.marks:
            done = self.delivered[engine]
        self.free[engine] = start + work.busy + delay
        self.starts[engine].append(start)
        if done > self.op_end[op]:
            self.op_end[op] = done
        if done > self.latest:  # it moves the end of the program
            self.op_cycles[op] += done - self.latest
            self.latest = done
        if self.op_start[op] < 0:
            self.op_start[op] = start
        return done

    def _transfer(self, ready: int, cycles: int) -> int:
        """Hold the DRAM bus for a transfer, in the first gap that is long enough; return how long it has to wait."""
        past = self.clock - self.issue_cycles  # what is issued now or later asks for nothing before
        self.bus = [hold for hold in self.bus if hold[1] > past]
        begin = ready
        for other, end in self.bus:  # in order, without overlap
            if begin + cycles <= other:
                break
            begin = max(begin, end)
        insort(self.bus, (begin, begin + cycles))
        return begin - ready

    def _queue(self, work: Work) -> None:
        """Issue work while something is held up: put it into its queue, then start whatever can start."""
        queue, ring = self.pending[work.engine], self.starts[work.engine]
        if len(queue) >= self.depth:
            self._deadlock()
        behind = self.depth - len(queue)
        issued = max(self.clock, ring[-behind]) if len(ring) >= behind else self.clock
        self.clock = issued + self.issue_cycles
        waits = tuple(_places(work.waits, self.waited))
        posts, release = tuple(_places(work.posts, self.posted)), tuple(_places(work.release, self.posted))
        queue.append(_Pending(work, issued, waits, posts, release))
        self.blocked += 1
        while any(self._start_first(each) for each in self.pending):
            pass

    def _start_first(self, queue: deque[_Pending]) -> bool:
        """Start the first work of a queue if its tokens are there; return whether it was."""
        if not queue or any(place not in self.tokens[token] for token, place in queue[0].waits):
            return False
        first = queue.popleft()
        self.blocked -= 1
        start = max(first.issued, self.free[first.work.engine])
        for token, place in first.waits:
            start = max(start, self.tokens[token].pop(place))
        done = self._occupy(first.work, start)
        for token, place in first.posts:
            self.tokens[token][place] = done
        for token, place in first.release:
            self.tokens[token][place] = self.free[first.work.engine]
        return True

    def _deadlock(self) -> NoReturn:
        first = min((queue[0] for queue in self.pending if queue), key=lambda each: each.work.pc)
        missing = [token for token, place in first.waits if place not in self.tokens[token]]
        names = " and ".join(f"t{token}" for token in missing)
        raise FlexcError(
            f"deadlock: it waits for a token of {names} that never comes", where=at(first.work.pc, self.program)
        )


def _places(tokens: tuple[int, ...], counts: list[int]) -> list[tuple[int, int]]:
    """Return (semaphore, ordinal) for each token, and count them."""
    places = []
    for token in tokens:
        places.append((token, counts[token]))
        counts[token] += 1
    return places

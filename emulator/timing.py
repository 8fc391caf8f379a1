"""When everything happens, without values: cycles, by op and in total, and how often every countable event occurs.

A loop whose engines, queues and tokens stand to each other as they did some iterations before goes on like that: the
remaining iterations are jumped over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..isa.instruction import ENGINES, Duration
from ..isa.program import EVERY, Program
from .engines import Engines, Record, State, Work
from .ops import Ops
from .walk import Block, Leaf, Loop, Tree, build, operands

_WORTHWHILE = 100  # instructions in all iterations of a loop below which looking for a period costs more than it saves
_GLANCES = 1 << 12  # what is remembered of states that were not looked at
_REMEMBERED = 64  # states of a loop that are kept to compare with


@dataclass(frozen=True)
class OpTiming:
    """The share of one op of ``debug.ops``; ops in loops are carried out several times.

    ``cycles`` are those by which the op moved the end of all work further on, so that they add up to the total;
    ``start`` and ``end`` are its first start and last end, and overlap those of other ops.
    """

    start: int
    end: int
    cycles: int
    busy: Mapping[str, int]
    counters: Mapping[str, int]


@dataclass(frozen=True)
class Timing:
    """Cycles of a program, cycles that each engine is at work (waiting not counted), counted events by name.

    ``instructions`` counts those issued; going round a loop issues nothing.
    """

    cycles: int
    busy: Mapping[str, int]
    counters: Mapping[str, int]
    instructions: int
    ops: tuple[OpTiming, ...]


def time_program(program: Program, *, jump: bool = True) -> Timing:
    """Return when everything in a program happens.

    Args:
        program: what to time; its values play no part.
        jump: jump over iterations of loops that repeat; False goes through all, for the same result.

    Raises:
        FlexcError: control flow is malformed, or an instruction waits for a token that never comes.
    """
    tree = build(program)
    costs = Costs(tree)
    engines = Engines(program, costs.ops)
    _carry_out(_compiled(tree.root, costs), engines, jump)
    cycles = engines.finish()
    engines.op_cycles[costs.op_of[-1]] += cycles - engines.latest
    counters = _total(costs.counters)
    ops = [_op_timing(op, engines, costs) for op in range(len(program.debug.ops))]
    return Timing(cycles, _total(costs.busy), counters, counters["control_instruction"], tuple(ops))


def _op_timing(op: int, engines: Engines, costs: Costs) -> OpTiming:
    start, end, cycles = max(0, engines.op_start[op]), engines.op_end[op], engines.op_cycles[op]
    return OpTiming(start, end, cycles, costs.busy[op], costs.counters[op])


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


class Costs:
    """What each instruction costs, and the sums over all executions by op."""

    def __init__(self, tree: Tree) -> None:
        self.program = tree.program
        self.ops = max(1, len(self.program.debug.ops))
        self.places = Ops(self.program)
        self.several = self.places.several
        self.op_of = list(self.places.counted())
        self.durations: dict[Leaf, Duration] = {}
        self.busy: list[Counter[str]] = [Counter() for _ in range(self.ops)]
        self.counters: list[Counter[str]] = [Counter() for _ in range(self.ops)]
        self._counted: dict[Leaf, dict[str, int]] = {}
        self._count_all(tree.root, 1, EVERY)

    def _count_all(self, block: Block, times: int, iteration: int) -> None:
        """Count all that a block does, in that iteration of a loop over whole ops."""
        for node in block.nodes:
            if isinstance(node, Leaf):
                self._count(node, times, iteration)
            elif self.turning(node):
                for place in range(node.count):
                    self._count_all(node.rest if place else node.first, times, place)
            elif node.first is node.rest:
                self._count_all(node.first, times * node.count, iteration)
            else:
                self._count_all(node.first, times, iteration)
                self._count_all(node.rest, times * (node.count - 1), iteration)

    def turning(self, loop: Loop) -> bool:
        """Return whether a loop is one over whole ops."""
        return loop.level == 0 and any(op in self.several for op in set(self.op_of[loop.pc : loop.end + 1]))

    def _count(self, leaf: Leaf, times: int, iteration: int) -> None:
        op = self.places.at(self.op_of[leaf.pc], iteration) if self.several else self.op_of[leaf.pc]
        self.counters[op]["control_instruction"] += times
        if not leaf.instr.spec.queued:
            return
        if leaf not in self._counted:
            self._counted[leaf] = self._costs_of(leaf)
        self.busy[op][leaf.engine] += self.durations[leaf].busy * times
        for name, count in self._counted[leaf].items():
            self.counters[op][name] += count * times

    def _costs_of(self, leaf: Leaf) -> dict[str, int]:
        """Note how long an instruction takes; return the events that it counts."""
        spec, seen = leaf.instr.spec, operands(leaf, self.program)
        assert spec.duration is not None
        assert spec.counters is not None
        self.durations[leaf] = spec.duration(seen)
        return {name: count for name, count in spec.counters(seen).items() if count}


@dataclass(frozen=True)
class _Repeat:
    """A loop for the queues: its bodies, the work in one, and the ops that it may count for.

    A loop over whole ops says for the first of them which others have the same code, by iteration.
    """

    count: int
    first: _Steps
    rest: _Steps
    size: int
    ops: tuple[int, ...]
    alike: Mapping[int, Mapping[int, int]]


class _Barrier:
    """Control waits for all engines."""


#: Stretches of work, cycles that control spends on its own instructions, loops, and barriers.
_Steps: TypeAlias = "list[list[Work] | int | _Repeat | _Barrier]"


def _compiled(block: Block, costs: Costs) -> _Steps:
    steps: _Steps = []
    gap, issue = 0, costs.program.machine.control.issue_cycles
    for node in block.nodes:
        if isinstance(node, Leaf) and node.instr.spec.queued:
            if not steps or not isinstance(steps[-1], list):
                steps.append([])
            stretch = steps[-1]
            assert isinstance(stretch, list)
            stretch.append(work_of(node, costs, gap))
            gap = 0
        elif isinstance(node, Leaf) and node.instr.mnemonic != "barrier":
            gap += issue
        else:
            steps.append(gap)
            steps.append(_Barrier() if isinstance(node, Leaf) else _repeat(node, costs))
            gap = 0
    return [*steps, gap]


def _repeat(loop: Loop, costs: Costs) -> _Repeat:
    first = _compiled(loop.first, costs)
    rest = first if loop.rest is loop.first else _compiled(loop.rest, costs)
    size = sum(_size(step) for step in rest)
    own = set(costs.op_of[loop.pc : loop.end + 1])
    if not costs.turning(loop):
        return _Repeat(loop.count, first, rest, size, tuple(sorted(own)), {})
    alike = {op: costs.several[op] for op in own if op in costs.several}
    own.update(*(each.values() for each in alike.values()))
    return _Repeat(loop.count, first, rest, size, tuple(sorted(own)), alike)


def _size(step: list[Work] | int | _Repeat | _Barrier) -> int:
    """Return the work of a step, in instructions."""
    if isinstance(step, list):
        return len(step)
    return step.count * step.size if isinstance(step, _Repeat) else 1


def work_of(leaf: Leaf, costs: Costs, gap: int) -> Work:
    """Return an instruction as the queues see it; before, control spends ``gap`` cycles on instructions of its own."""
    duration, instr = costs.durations[leaf], leaf.instr
    release = instr.tokens("release")
    marks = instr.mnemonic == "sync"
    return Work(
        leaf.pc,
        costs.op_of[leaf.pc],
        ENGINES.index(leaf.engine),
        gap,
        duration.busy,
        duration.done,
        duration.latency,
        duration.bus,
        instr.tokens("wait"),
        instr.tokens("post"),
        release,
        marks,
    )


def _carry_out(steps: _Steps, engines: Engines, jump: bool) -> None:
    for step in steps:
        if isinstance(step, list):
            engines.run(step)
        elif isinstance(step, int):
            engines.clock += step
        elif isinstance(step, _Barrier):
            engines.barrier()
        else:
            _go_round(step, engines, jump)


def _go_round(loop: _Repeat, engines: Engines, jump: bool) -> None:
    """Carry out a loop; once it repeats, only what is left over after whole periods."""
    if loop.alike:
        _go_round_ops(loop, engines, jump)
        return
    _carry_out(loop.first, engines, jump)
    search = _Search(loop, engines) if jump and loop.count * loop.size >= _WORTHWHILE else None
    done = 1
    while done < loop.count:
        if search is not None and (period := search.period(done)):
            times = (loop.count - done) // period
            search.jump(times)
            done += times * period
            search = None
        else:
            _carry_out(loop.rest, engines, jump)
            done += 1


def _go_round_ops(loop: _Repeat, engines: Engines, jump: bool) -> None:
    """Carry out a loop over whole ops: every iteration counts for ops of its own."""
    for iteration in range(loop.count):
        for first, alike in loop.alike.items():
            engines.counting[first] = alike.get(iteration, first)
        _carry_out(loop.rest if iteration else loop.first, engines, jump)
    for first in loop.alike:
        engines.counting[first] = first


class _Search:
    """Looks whether a loop has come back to a state, and remembers what has grown since."""

    def __init__(self, loop: _Repeat, engines: Engines) -> None:
        self._ops = [engines.counting[op] for op in loop.ops]
        self._engines = engines
        self._glances: set[tuple[int, int]] = set()
        self._clock = engines.clock
        self._seen: dict[State, tuple[int, Record]] = {}
        self._record: Record | None = None

    def period(self, done: int) -> int:
        """Return the number of iterations after which this state comes back, 0 while none is known."""
        engines = self._engines
        glance = (engines.clock - self._clock, engines.latest - engines.clock)  # states take longer to look at
        self._clock = engines.clock
        if glance not in self._glances:
            if len(self._glances) >= _GLANCES:
                self._glances.clear()
            self._glances.add(glance)
            return 0
        state = engines.state()
        if state is None:
            return 0
        if state in self._seen:
            before, self._record = self._seen[state]
            return done - before
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[state] = done, engines.record(self._ops)
        return 0

    def jump(self, times: int) -> None:
        """Leave out so many periods."""
        assert self._record is not None
        self._engines.jump(self._record, times, self._ops)

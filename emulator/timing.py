"""When everything happens, without values: cycles, by op and in total, and how often every countable event occurs.

A loop whose engines, queues and tokens stand to each other as they did some iterations before goes on like that: the
remaining iterations are jumped over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..isa.instruction import ENGINES, Duration
from ..isa.program import Program
from .engines import Engines, Record, State, Work
from .walk import Block, Leaf, Loop, Tree, build, operands, visits

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
        self.op_of = list(_op_of_each_pc(self.program))
        self.durations: dict[Leaf, Duration] = {}
        self.busy: list[Counter[str]] = [Counter() for _ in range(self.ops)]
        self.counters: list[Counter[str]] = [Counter() for _ in range(self.ops)]
        for leaf, times in visits(tree.root):
            self._count(leaf, times)

    def _count(self, leaf: Leaf, times: int) -> None:
        op, spec = self.op_of[leaf.pc], leaf.instr.spec
        self.counters[op]["control_instruction"] += times
        if spec.duration is None or spec.counters is None:
            return
        seen = operands(leaf, self.program)
        duration = self.durations[leaf] = spec.duration(seen)
        self.busy[op][leaf.engine] += duration.busy * times
        for name, count in spec.counters(seen).items():
            if count:
                self.counters[op][name] += count * times


def _op_of_each_pc(program: Program) -> Iterator[int]:
    """Yield the op that each instruction counts for: its own, or else the next one, or else the last one."""
    ops = sorted((op.first, op.last, index) for index, op in enumerate(program.debug.ops))
    place = 0
    for pc in range(len(program.code)):
        while place < len(ops) - 1 and pc >= ops[place][1]:
            place += 1
        yield ops[place][2] if ops else 0


@dataclass(frozen=True)
class _Repeat:
    """A loop for the queues: its bodies, the work in one, and the ops that it may count for."""

    count: int
    first: _Steps
    rest: _Steps
    size: int
    ops: tuple[int, ...]


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
    return _Repeat(loop.count, first, rest, size, tuple(sorted(set(costs.op_of[loop.pc : loop.end + 1]))))


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


class _Search:
    """Looks whether a loop has come back to a state, and remembers what has grown since."""

    def __init__(self, loop: _Repeat, engines: Engines) -> None:
        self._ops = loop.ops
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

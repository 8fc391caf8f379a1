"""Programs one instruction at a time: values by the same actions, times by the same queues as in any other run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..isa.instruction import ENGINES
from ..isa.program import Program
from .array import ArrayModel
from .bind import Binding
from .engines import Engines, Work
from .host import Host
from .memory import Memories, Position
from .timing import Costs, work_of
from .walk import Block, Leaf, Tree


@dataclass(frozen=True, slots=True)
class Executed:
    """One execution of an instruction: the iteration of every loop level, its first cycle and that of its results.

    Its engine may be free before ``end``: sums of a ``mac`` drain while the next one runs.
    """

    leaf: Leaf
    iterations: tuple[int, ...]
    start: int
    end: int


class Clock:
    """When instructions start and end, handed in one at a time in the order in which control issues them."""

    def __init__(self, tree: Tree) -> None:
        """Start at cycle 0; the instructions handed in are leaves of this tree."""
        self._costs = Costs(tree)
        self.engines = _Noting(tree.program, self._costs.ops)
        self._work: dict[Leaf, Work] = {}
        self._issued: list[deque[tuple[Leaf, tuple[int, ...]]]] = [deque() for _ in ENGINES]

    def issue(self, leaf: Leaf, iterations: Sequence[int]) -> list[Executed]:
        """Issue an instruction; return what starts now: it, none while it waits for a token, or more that waited.

        Raises:
            FlexcError: it can never start, because a token that it or its engine waits for never comes.
        """
        if not leaf.instr.spec.queued:
            return [self._control(leaf, tuple(iterations))]
        work = self._work.get(leaf)
        if work is None:
            work = self._work[leaf] = work_of(leaf, self._costs, 0)
        self._issued[work.engine].append((leaf, tuple(iterations)))
        self.engines.run([work])
        noted, self.engines.noted = self.engines.noted, []
        return [Executed(*self._issued[engine].popleft(), start, end) for engine, start, end in noted]

    def _control(self, leaf: Leaf, iterations: tuple[int, ...]) -> Executed:
        """Carry out what has no queue: a cycle of control, or waiting for every engine."""
        start = self.engines.clock
        if leaf.instr.mnemonic == "barrier":
            self.engines.barrier()
        else:
            self.engines.clock += self.engines.issue_cycles
        return Executed(leaf, iterations, start, self.engines.clock)


class _Noting(Engines):
    """Engines that note the start and the end of everything they do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.noted: list[tuple[int, int, int]] = []

    def _occupy(self, work: Work, start: int) -> int:
        done = super()._occupy(work, start)
        self.noted.append((work.engine, start, done))
        return done


class Visitor(Protocol):
    """Someone who accompanies a run."""

    def begin(self, memories: Memories, position: Position) -> None:
        """See the memories of the run and its place in the loops, which both change as it goes on."""

    def before(self, leaf: Leaf) -> None:
        """An instruction comes next."""

    def after(self, leaf: Leaf) -> None:
        """It has been carried out."""


class Stepped(Binding):
    """Actions for one run that tell a visitor before and after every instruction, those of control too."""

    def __init__(self, program: Program, memories: Memories, array: ArrayModel, host: Host, visitor: Visitor) -> None:
        super().__init__(program, memories, array, host, None)
        self._visitor = visitor
        visitor.begin(memories, self._position)

    def _leaf(self, leaf: Leaf) -> list[Callable[[], None]]:
        visitor = self._visitor
        return [lambda: visitor.before(leaf), *super()._leaf(leaf), lambda: visitor.after(leaf)]


def in_order(block: Block, iterations: list[int]) -> Iterator[Leaf]:
    """Yield every instruction as often as it is carried out, keeping the iteration of every loop level up to date."""
    for node in block.nodes:
        if isinstance(node, Leaf):
            yield node
            continue
        for iteration in range(node.count):
            iterations[node.level] = iteration
            yield from in_order(node.rest if iteration else node.first, iterations)
        iterations[node.level] = 0

"""A program on its memories: every instruction becomes an action that has its operands at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..isa.errors import FlexcError
from ..isa.instruction import LEVELS
from ..isa.program import EVERY, Program
from .array import ArrayModel
from .host import Host
from .memory import Array, Getter, Memories, Position
from .parallel import WORTHWHILE, in_halves, part
from .values import HANDLERS, Call, Handler
from .walk import Block, Leaf, Loop, at, running_totals, stream_operands

_Action: TypeAlias = Callable[[], None]
_IDLE = ("sync",)
_DIVISIBLE = ("vector", "dma0", "dma1")  # the engines whose work is the operands' alone


class Observer(Protocol):
    """Someone who watches a run; instructions that nobody watches cost nothing more."""

    @property
    def taps(self) -> Mapping[int, Sequence[str]]:
        """For each pc to watch, the names of its operands to show, as the table calls them (``dst``, ``acc``)."""

    def on_tap(self, pc: int, operand: str, iterations: tuple[int, ...], values: Array) -> None:
        """See an operand, [windows, rows, columns], after its instruction; it is memory: copy what is to be kept."""

    def on_op_end(self, op_index: int, memories: Memories) -> None:
        """See the memories after the last instruction of an op of ``debug.ops``: each time, or in its iteration."""


class Binding:
    """A program's actions; loops keep the iterations of every level in one list that all actions read."""

    def __init__(
        self, program: Program, memories: Memories, array: ArrayModel, host: Host, observer: Observer | None
    ) -> None:
        self.memories = memories
        self._program = program
        self._array = array
        self._host = host
        self._observer = observer
        self._position = Position()
        self._counts = [0] * LEVELS  # iterations of every level since the outermost loop began
        self._depth = 0
        self._taps: Mapping[int, Sequence[str]] = {} if observer is None else observer.taps
        self._op_ends: dict[int, list[int]] = {}
        for index, op in enumerate(program.debug.ops if observer is not None else ()):
            self._op_ends.setdefault(op.last - 1, []).append(index)
        self._actions: list[_Action] | None = None

    def run(self, root: Block) -> None:
        """Carry out the program, always the same one.

        Raises:
            FlexcError: an operand lies outside its memory, operands do not fit together, or the host fails.
        """
        if self._actions is None:
            self._actions = self._block(root)
        for action in self._actions:
            action()

    def _block(self, block: Block) -> list[_Action]:
        actions: list[_Action] = []
        for node in block.nodes:
            if isinstance(node, Loop):
                actions.append(self._loop(node))
                last = node.end
            else:
                actions.extend(self._leaf(node))
                last = node.pc
            actions.extend(self._op_end(index) for index in self._op_ends.get(last, ()))
        return actions

    def _loop(self, node: Loop) -> _Action:
        position, level, count = self._position, node.level, node.count
        iterations, running = position.iterations, position.running
        outermost = not self._depth
        first, rest = self._bodies(node)
        counts = self._counts

        def carry_out() -> None:
            if outermost:
                counts[:] = [0] * LEVELS
            start = counts[level]
            for iteration in range(count):
                iterations[level] = iteration
                running[level] = start + iteration
                for action in rest if iteration else first:
                    action()
            iterations[level] = running[level] = 0
            counts[level] = start + count

        return carry_out

    def _bodies(self, node: Loop) -> tuple[list[_Action], list[_Action]]:
        """Return the actions of a loop's first iteration and of the others."""
        trips, totals = self._position.trips, self._position.totals
        if not self._depth:
            totals[:] = running_totals(node)
        self._depth += 1
        trips[node.level] = node.count if node.first is node.rest else 1
        first = self._block(node.first)
        trips[node.level] = node.count
        rest = first if node.rest is node.first else self._block(node.rest)
        trips[node.level] = 1
        self._depth -= 1
        if not self._depth:
            totals[:] = [1] * LEVELS
        return first, rest

    def _leaf(self, leaf: Leaf) -> list[_Action]:
        if not leaf.instr.spec.queued or leaf.instr.mnemonic in _IDLE:
            return []
        getters = [self._getter(leaf, name) for name in stream_operands(leaf.instr)]
        call = Call(leaf, self._array, self._position.iterations, lambda number: self._host.run(number, self.memories))
        function = _over_windows(HANDLERS[leaf.instr.mnemonic], leaf, self.memories.windows)
        taps = [self._tap(leaf, operand) for operand in self._taps.get(leaf.pc, ())]
        return [self._action(function, call, getters), *taps]

    def _action(self, function: Handler, call: Call, getters: Sequence[Getter]) -> _Action:
        program, pc = self._program, call.leaf.pc

        def carry_out() -> None:
            try:
                function(call, *[get() for get in getters])
            except (ValueError, TypeError) as error:
                raise FlexcError(f"operands do not fit together: {error}", where=at(pc, program)) from error
            except FlexcError as error:
                error.where = error.where or at(pc, program)
                raise

        return carry_out

    def _getter(self, leaf: Leaf, name: str) -> Getter:
        if name not in leaf.streams:
            return lambda: None
        try:
            return self.memories.getter(leaf.streams[name], self._position)
        except FlexcError as error:
            error.where = at(leaf.pc, self._program)
            raise

    def _tap(self, leaf: Leaf, operand: str) -> _Action:
        observer, iterations, get = self._observer, self._position.iterations, self._getter(leaf, operand)
        assert observer is not None

        def show() -> None:
            values = get()
            assert isinstance(values, np.ndarray)
            observer.on_tap(leaf.pc, operand, tuple(iterations), values)

        return show

    def _op_end(self, index: int) -> _Action:
        observer, memories, iterations = self._observer, self.memories, self._position.iterations
        assert observer is not None
        only = self._program.debug.ops[index].iteration

        def end() -> None:
            if only in (EVERY, iterations[0]):
                observer.on_op_end(index, memories)

        return end


def _over_windows(function: Handler, leaf: Leaf, windows: int) -> Handler:
    """Return a function that works on halves of the windows in two threads, or the same one where that does not pay."""
    size = windows * max((stream.elements for stream in leaf.streams.values()), default=0)
    if windows < 2 or size < WORTHWHILE or leaf.engine not in _DIVISIBLE:
        return function

    def divided(call: Call, *operands: Any) -> None:
        in_halves(lambda some: function(call, *[part(each, some) for each in operands]), windows, size)

    return divided

"""Emitting one box of a recurrence: what comes once a chunk, the loop over its turns, and what is left at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..isa.program import Tile
from ..isa.streams import Stream
from .boxes import Box, over
from .code import Block, Builder, Pending, Semaphores, Tree, nest
from .recipes import Operand
from .row_chunk import RowChunk
from .transfers import take

if TYPE_CHECKING:
    from .recurrence import Recurrence
    from .row_kernel import Access


class TurnChunk(RowChunk):
    """The code of one box: loads, and the first states, once a chunk; then its turns; then what the last one leaves."""

    def __init__(self, kernel: Recurrence, builder: Builder, box: Box, accesses: Sequence[Access]) -> None:
        super().__init__(kernel, builder, box, accesses)
        self.recurrence = kernel
        (self.turn,) = builder.loops(kernel.count)
        self.turn = replace(self.turn, tile=Tile(0, "turn", kernel.count))
        self.ring = self.turn
        self.state: dict[ir.Value, Stream] = {}
        self.before: list[Pending] = []
        self.after: list[Pending] = []

    def dry_run(self) -> tuple[list[Pending], list[Pending], list[Pending]]:
        """Make room for everything and note the vector code; return the loads before and in the loops, and the stores.

        Raises:
            DoesNotFit: the buffer is too small.
        """
        loads = self.kernel.loads
        self.chunk_loads = [self._load(each, moving=False) for each in loads if not each.by and self._moves(each)]
        first = [self._load(each, moving=False) for each in loads if not each.by and not self._moves(each)]
        turns = [self._load(each, moving=True) for each in loads if each.by]
        stores = [self._store(root, access) for root, access in self.kernel.stores.items()]
        self._first_states()
        self.final_stores = [self._final(root, access) for root, access in self.recurrence.finals.items()]
        self._compute()
        self._last_states()
        return first, turns, stores

    def emit(self) -> None:
        """Write the box."""
        loads, stores = self._begin()
        turns = Block(self.turn, [*loads, *self.code, *stores])
        outer = over(self.box, self.loops, self._total())
        self.builder.write(nest(outer, [*self._opening(), *self.before, turns, *self.after, *self._closing()]))

    def _opening(self) -> Tree:
        """Return the transfers that come once a chunk, and the vector unit's wait for them and for room."""
        waits = []
        if self.chunk_loads:
            self.chunk_loads[0].wait(Semaphores.EMPTY["rows"][0])
            self.chunk_loads[-1].post(Semaphores.ROWS_FULL)
            waits.append(Semaphores.ROWS_FULL)
        if self.final_stores:
            waits.append(Semaphores.EMPTY["sums"][0])
        return [*self.chunk_loads, *([_sync().wait(*waits)] if waits else [])]

    def _closing(self) -> Tree:
        """Return what follows the last turn: room is given back, and results that only it makes leave."""
        posts = [Semaphores.EMPTY["rows"][0]] if self.chunk_loads else []
        if self.final_stores:
            posts.append(Semaphores.ZEROS_FULL)
            self.final_stores[0].wait(Semaphores.ZEROS_FULL)
            self.final_stores[-1].post(Semaphores.EMPTY["sums"][0])
        return [*([_sync().post(*posts)] if posts else []), *self.final_stores]

    def _first_states(self) -> None:
        """Give every state its room and its first value."""
        for value, start in self.recurrence.starts.items():
            made = self.recurrence.states[value]
            room = self._value_room(made)
            self.made[value] = self.state[value] = room
            if self.recurrence.in_place(value):
                self.made[self.kernel.roots[made]] = room
            mnemonic = "vfill" if isinstance(start, float) else "vmov"
            self.before.append(self._apart(mnemonic, room, self._operand(start)))

    def _final(self, root: ir.Value, access: Access) -> Pending:
        """Plan what leaves after the last turn: made in its own room, or copied there where a state holds it."""
        target = self._outside(access)
        copy, room = take(target, self.builder.buffer(target.bytes))
        if root in self.made:
            self.after.append(self._apart("vmov", room, self.made[root]))
        else:
            self.made[root] = room
        return copy

    def _last_states(self) -> None:
        """At the end of a turn, move what it hands on to where the next one reads it."""
        for value, room in self.state.items():
            made = self.made[self.kernel.roots[self.recurrence.states[value]]]
            if made != room:
                self.op("vmov", room, made)

    def _apart(self, mnemonic: str, dst: Stream, operand: Operand) -> Pending:
        """Return a vector instruction outside the loop over turns."""
        self.op(mnemonic, dst, operand)
        return self.code.pop()

    def _outside(self, access: Access) -> Stream:
        stream = super()._outside(access)
        steps = [*stream.steps, *self.turn.step(access.by)]
        return replace(stream, steps=tuple(sorted(steps, key=lambda step: step.level)))

    def _tap(self, pc: int, value: ir.Value, start: int = 0) -> None:
        super()._tap(pc, value, start)
        assert self.turn.level is not None
        self.code[pc].taps[-1] = replace(self.code[pc].taps[-1], turn=self.turn.level)

    def _give_back(self, last_use: dict[ir.Value, int], place: int) -> None:
        keep = {stream.base for stream in self.state.values()}
        mine = {root: last for root, last in last_use.items() if last != place or self.made[root].base not in keep}
        kept = {root: last for root, last in mine.items() if root not in self.recurrence.finals}
        super()._give_back(kept, place)


def _sync() -> Pending:
    return Pending("sync", {}, {"engine": "vector"})

"""How long a mapping takes: its first pieces gone through engine by engine, the rest at the pace they settle to.

This follows the code that ``backend/linear_body.py`` writes, with the instructions' own durations; it leaves out
control's issue of single instructions and the exact order of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..isa import durations
from ..isa.instruction import Duration, Operands
from ..isa.streams import Stream

if TYPE_CHECKING:
    from ..isa.instruction import Groups
    from ..isa.machine import Machine
    from .mapping import Mapping
    from .tail_cost import TailCost

#: Pieces gone through one by one; later ones go at the pace of the second half of these.
FOLLOWED = 32


def estimate(mapping: Mapping, groups: Groups, machine: Machine) -> int:
    """Return about how many cycles a mapping takes on a machine whose sub-macros are grouped so."""
    pieces = mapping.pieces
    blocks = -(-mapping.shape.rows // mapping.resident_rows)
    total = blocks * mapping.col_groups * pieces
    tail = mapping.shape.tail
    whole = tail is not None and tail.whole
    followed = min(total, 4 * pieces * mapping.col_groups if whole else max(FOLLOWED, 2 * pieces))
    pipeline = _Pipeline(mapping, groups, machine)
    half = 0
    for piece in range(followed):
        pipeline.piece(piece, pieces)
        if piece + 1 == followed - followed // 2:
            half = pipeline.end
    if total == followed:
        return pipeline.end
    return pipeline.end + (total - followed) * (pipeline.end - half) // max(1, followed // 2)


class _Pipeline:
    """When each engine is free, and when the slots that pieces take turns on are."""

    def __init__(self, mapping: Mapping, groups: Groups, machine: Machine) -> None:
        self.mapping, self.time = mapping, _Times(mapping, groups, machine)
        self.resident = machine.array.resident
        self.single_set = machine.array.weight_sets == 1
        self.ahead = machine.control.queue_depth
        self.dma_in = self.weights = self.array = self.vector = self.dma_out = self.bus = 0
        self.fetched = self.coming = self.end = 0
        self.ahead_of_use = mapping.ahead and not self.resident
        self.group_free = [0] * mapping.weight_slots
        self.acc_free = [0] * mapping.acc_slots
        self.out_free = [0] * (2 if mapping.shape.tail else mapping.out_slots)
        self.in_free = [0, 0]
        self.started: list[int] = []

    def piece(self, number: int, pieces: int) -> None:
        """Go through one piece of vectors of one column group."""
        group, within = divmod(number, pieces)
        if within == 0:
            self._begin(group)
        acc, out = number % len(self.acc_free), number % len(self.out_free)
        for transfer in self.time.loads:
            self.dma_in = self._transfer(max(self.dma_in, self.in_free[out]), transfer)
        loaded = self.dma_in if self.time.loads else 0
        products = self._products(number)
        ready = max(products, self.vector, self.out_free[out], loaded)
        self.acc_free[acc] = ready + self.time.dequant
        self.vector = self.in_free[out] = self.acc_free[acc] + self.time.work
        self.end = self.dma_out = self._leave(self.time.out)
        self.out_free[out] = self.dma_out
        if within == pieces - 1:
            self.group_free[group % len(self.group_free)] = self.vector
            if (group + 1) % self.mapping.col_groups == 0:
                self._block()
        self._hold(self.time.queued)

    def _leave(self, transfers: Sequence[Duration]) -> int:
        """Take results away; return when they are gone."""
        done = max(self.dma_out, self.vector)
        for transfer in transfers:
            done = self._transfer(done, transfer)
        return done

    def _block(self) -> None:
        """Do the row work on the whole rows of a block."""
        time = self.time.block
        if time is not None:
            start = self.vector
            self.bus = max(self.bus, start) + time.bus
            self.vector = max(start + time.vector, self.bus)
            self.end = self.dma_out = self.vector + time.leaving
            self._hold(time.queued)

    def _hold(self, queued: int | None) -> None:
        """Let nothing be issued before the vector unit has only ``queued`` cycles of work left in its queue."""
        if queued is not None:
            self.array = max(self.array, self.vector - queued)
            self.dma_in = max(self.dma_in, self.vector - queued)

    def _begin(self, group: int) -> None:
        """Ask for the weights of a group, or for those of the next one where they come ahead."""
        if not self.ahead_of_use:
            self._fetch(group)
            return
        if group == 0:
            self._fetch(0)
            self.coming = self.fetched
        arrived = self.coming
        if group + 1 < self.mapping.col_groups:
            self._fetch(group + 1)
            self.coming = self.fetched
        self.fetched = arrived

    def _fetch(self, group: int) -> None:
        """Bring a block's vectors where one begins, and the group's weights."""
        start = max(self.dma_in, self._issued())
        if group % self.mapping.col_groups == 0:
            start = self._transfer(max(start, self.end), self.time.rows)
        free = self.group_free[group % len(self.group_free)]
        self.dma_in = self.fetched = self._transfer(max(start, free), self.time.fetch)

    def _issued(self) -> int:
        """Return when control gets to a group: it runs ahead of the array by what the array's queue holds."""
        mapping = self.mapping
        a_piece = 1 + mapping.slices + 2 * mapping.steps
        behind = 1 + self.ahead // a_piece
        return self.started[-behind] if len(self.started) >= behind else 0

    def _products(self, number: int) -> int:
        time, steps = self.time, self.mapping.steps
        start = max(self.array, self.acc_free[number % len(self.acc_free)])
        self.started.append(start)
        compute = time.settle + time.mac.busy
        if self.resident:
            self.array = max(start, self.fetched) + steps * compute
        elif self.single_set:
            loaded = max(self.weights, self.fetched, self.array) + time.load
            self.array = max(loaded, start) + compute + (steps - 1) * (time.load + compute)
            self.weights = self.array
        else:
            first = max(self.weights, self.fetched) + time.load
            pace = max(time.load, compute)
            self.array = max(first, start) + compute + (steps - 1) * pace
            self.weights = max(first + (steps - 1) * pace, self.array - compute)
        self.array += time.merge
        return self.array + max(0, time.mac.done - time.mac.busy)

    def _transfer(self, start: int, duration: Duration) -> int:
        """Return when a transfer is done that may start then: latency, then the bus that all transfers share."""
        data = max(start + duration.latency, self.bus)
        self.bus = data + duration.bus
        return max(self.bus, start + duration.busy)


class _Times:
    """Durations of the instructions that a mapping repeats."""

    def __init__(self, mapping: Mapping, groups: Groups, machine: Machine) -> None:
        acc = Stream.dense("acc", "i32", 0, mapping.vectors, mapping.columns * mapping.slices)
        tile = Stream.dense("buf", "u8", 0, mapping.macros * mapping.slices, mapping.tile_bytes)
        operands = Operands(machine, {"slices": mapping.slices}, {"acc": acc, "src": tile, "dst": acc}, groups)
        self.load = durations.load_weights(operands).busy
        self.settle = durations.settle(operands).busy
        self.mac = durations.mac(operands)
        self.merge = (mapping.slices - 1) * durations.accumulate(operands).busy
        result = Stream.dense("buf", "f32", 0, mapping.vectors, mapping.width)
        self.dequant = durations.VectorRule(4)(Operands(machine, {}, {"dst": result})).busy
        self._follow(mapping, machine, result)
        rows = Stream.dense("buf", "i8", 0, mapping.resident_rows, mapping.shape.k)
        self.rows = durations.transfer([replace(rows, space="dram")], [rows], machine)
        size = mapping.scale_bytes if machine.array.resident else mapping.group_bytes
        piece = Stream.dense("const", "u8", 0, 1, size)
        self.fetch = durations.transfer([piece], [replace(piece, space="buf")], machine)

    def _follow(self, mapping: Mapping, machine: Machine, result: Stream) -> None:
        """Work out what happens to a piece once it is dequantised: it leaves, or a tail goes on with it."""
        tail, pitch = mapping.shape.tail, 4 * max(mapping.n_padded, mapping.columns + 1)
        self.loads: list[Duration] = []
        self.out: list[Duration] = []
        self.work, self.queued, self.block = 0, None, None
        if tail is None:
            self.out = [durations.transfer([replace(result, space="dram", row_pitch=pitch)], [result], machine)]
        elif tail.whole:
            self.block = _Block.of(mapping.resident_rows, tail, machine)
        else:
            share = mapping.width / mapping.shape.n
            self.work, self.queued = tail.cycles(mapping.vectors, share), tail.cycles(mapping.vectors, share, tail.last)
            self.loads, self.out = (
                [_moved(mapping.vectors, round(each * share), machine) for each in every]
                for every in (tail.loads, tail.stores)
            )


@dataclass(frozen=True)
class _Block:
    """The row work on a block of vectors, in cycles: vector unit and what it waits for, bus, last transfer, queue."""

    vector: int
    bus: int
    leaving: int
    queued: int

    @classmethod
    def of(cls, vectors: int, tail: TailCost, machine: Machine) -> _Block:
        """Work it out, chunk after chunk."""
        rows = min(vectors, tail.rows)
        loads = [_moved(rows, each, machine) for each in tail.loads]
        stores = [_moved(rows, each, machine) for each in tail.stores]
        leaving, queued = sum(each.busy for each in stores), tail.cycles(rows, 1.0, tail.last)
        chunks = -(-vectors // rows)
        waiting = max(0, sum(each.busy for each in loads) + leaving - queued) if chunks > 1 else 0
        bus = chunks * sum(each.bus for each in (*loads, *stores))
        return cls(tail.cycles(vectors) + chunks * waiting, bus, leaving, queued)


def _moved(rows: int, size: int, machine: Machine) -> Duration:
    """Return the duration of a transfer of rows of ``size`` bytes that do not lie side by side."""
    inside = Stream.dense("buf", "u8", 0, rows, max(1, size))
    return durations.transfer([replace(inside, space="dram", row_pitch=2 * inside.cols)], [inside], machine)

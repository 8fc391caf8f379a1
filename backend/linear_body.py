"""The array code of a linear: vectors stay in the buffer, weights stream through the cells, results stream out.

One nest of loops: blocks of vectors, column groups, pieces of vectors, steps of K. See ``passes/mapping.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..isa.fields import Value
from ..isa.machine import Machine
from ..isa.program import Tap
from ..isa.streams import Step, Stream
from ..passes.layout import aligned
from ..passes.mapping import Mapping, Run, groups_of
from .boxes import ring
from .code import Block, Builder, Loop, Pending, Semaphores, nest, window

Tree = list[Pending | Block]


@dataclass(frozen=True)
class Result:
    """Where the results go: address of row 0 of this box, and byte distances; ``tap`` likewise in elements."""

    space: str
    address: int
    row_pitch: int
    part_pitch: int
    taps: tuple[Tap, ...]


@dataclass(frozen=True)
class Job:
    """One box of a linear: ``blocks`` x mapping.resident_rows vectors, the first of them vector ``first``.

    ``parts`` linears lie side by side (grouped).
    """

    mapping: Mapping
    blocks: int
    parts: int
    first: int
    weights: int
    result: Result
    scales: Stream
    scale_step: int
    resident_unit: int | None
    #: Writes the transfers that bring a block of vectors: (buffer address, part loop, block loop) -> code.
    fetch_rows: Callable[[int, Loop, Loop], Tree]


class LinearBody:
    """Writes one job."""

    def __init__(self, job: Job, builder: Builder) -> None:
        self.job, self.mapping, self.builder = job, job.mapping, builder
        self.machine = builder.machine
        mapping, shape = job.mapping, job.mapping.shape
        part, block, group = builder.loops(job.parts, job.blocks, mapping.col_groups)
        self.part = part.over("part", "columns", shape.n, limit=job.parts * shape.n) if job.parts > 1 else part
        rows, first = mapping.resident_rows, job.first
        self.block = block.over("block of vectors", "vectors", rows, start=first, limit=shape.rows)
        self.group = group.over("column group", "columns", mapping.columns, limit=shape.n)
        self.outer = [self.part, self.block, self.group]
        # Rings count the iterations of a level, so no other loop may use these two: the runs share them, in turn.
        self.piece, step = builder.loops(mapping.runs[0].count, mapping.steps)
        self.step = step.over("K step", "K", mapping.slices * mapping.depth, limit=shape.k)
        self.resident = job.resident_unit is not None
        self.rows_at = builder.buffer(job.mapping.resident_rows * job.mapping.k_padded)
        self.sx_at = builder.buffer(4 * job.mapping.resident_rows)
        self.weights_at, self.scales_at = self._weight_slots()
        self.results_at = builder.buffer(4 * job.mapping.vectors * job.mapping.columns, job.mapping.out_slots)

    def _weight_slots(self) -> tuple[int, int]:
        mapping = self.mapping
        if not self.resident and not mapping.by_step:
            slots = self.builder.buffer(mapping.group_bytes, mapping.weight_slots)
            return slots, slots
        scales = self.builder.buffer(mapping.scale_bytes, 2)
        return 0 if self.resident else self.builder.buffer(mapping.step_bytes, mapping.weight_slots), scales

    def write(self) -> None:
        """Write the whole box and the barrier after it."""
        mapping = self.mapping
        self.builder.write([*groups_code(mapping, self.machine), *self._zeros()])
        body: Tree = [*self._fetch_block()]
        group = self._fetch_group()
        for run in mapping.runs:
            group += self._pieces(run)
        group += self._release_group()
        body += nest([self.group], group)
        body += [_sync("array").post(_empty("rows", 1)), _sync("vector").post(_empty("sums", 1))]
        self.builder.write(nest([self.part, self.block], body))
        self.builder.emit("barrier")

    def _zeros(self) -> Tree:
        """Fill the columns between K and whole tiles: their weights are zero, but what they meet must be defined."""
        mapping = self.mapping
        rest = mapping.k_padded - mapping.shape.k
        if not rest:
            return []
        tail = window("buf", "i8", self.rows_at + mapping.shape.k, (mapping.resident_rows, rest), (mapping.k_padded, 1))
        fill = Pending("vfill", {"dst": tail}).post(Semaphores.ZEROS_FULL)
        return [fill, _sync("array").wait(Semaphores.ZEROS_FULL)]

    def _fetch_block(self) -> Tree:
        fetch = self.job.fetch_rows(self.rows_at, self.part, self.block)
        inside = window("buf", "f32", self.sx_at, (self.job.scales.rows, 1))
        outside = replace(self.job.scales, steps=tuple(self.block.step(self.job.scale_step)))
        scales = Pending("copy", {"dst": inside, "src": outside}, {"channel": 0}).post(Semaphores.ROWS_FULL)
        ready = _sync("dma0").wait(_empty("rows", 1), _empty("sums", 1))
        return [ready, *fetch, scales, _sync("array").wait(Semaphores.ROWS_FULL)]

    def _fetch_group(self) -> Tree:
        mapping, slots = self.mapping, 2 if self.resident or self.mapping.by_step else self.mapping.weight_slots
        size = mapping.scale_bytes if self.resident or mapping.by_step else mapping.group_bytes
        steps = self._weight_steps()
        source = window("const", "u8", self.job.weights, (1, size), None, steps)
        inside = window("buf", "u8", self.scales_at, (1, size), None, self._turns(self.outer, aligned(size), slots))
        copy = Pending("copy", {"dst": inside, "src": source}, {"channel": 0})
        copy.wait(_empty("scales", slots)).post(Semaphores.SCALES_FULL)
        code: Tree = [copy, _sync("vector").wait(Semaphores.SCALES_FULL)]
        if not self.resident and not mapping.by_step:
            copy.wait(_empty("weights", slots)).post(Semaphores.WEIGHTS_FULL)
            code.append(_sync("weights").wait(Semaphores.WEIGHTS_FULL))
        return code

    def _release_group(self) -> Tree:
        slots = 2 if self.resident or self.mapping.by_step else self.mapping.weight_slots
        code: Tree = [_sync("vector").post(_empty("scales", slots))]
        if not self.resident and not self.mapping.by_step:
            code.append(_sync("weights").post(_empty("weights", slots)))
        return code

    def _weight_steps(self) -> list[Step]:
        part_bytes = self.mapping.col_groups * self.mapping.group_bytes
        return self.part.step(part_bytes) + self.group.step(self.mapping.group_bytes)

    def _turns(self, loops: Sequence[Loop], size: int, slots: int) -> list[Step]:
        turning = ring(loops)
        return turning.step(size, 2) if turning is not None and slots == 2 else []

    def _pieces(self, run: Run) -> Tree:
        """Return the loop over the pieces of a run."""
        mapping = self.mapping
        piece = Loop(run.count, self.piece.level).over(
            "piece", "vectors of the block", run.size, step=run.step, start=run.start, limit=mapping.resident_rows
        )
        code: Tree = [_sync("array").wait(_empty("acc", mapping.acc_slots))]
        code += nest([self.step], self._step(run, piece))
        acc = self._acc(run, piece, 0, mapping.columns)
        for other in range(1, mapping.slices):
            code.append(Pending("accum", {"dst": acc, "src": self._acc(run, piece, other, mapping.columns)}))
        code.append(_sync("array").post(Semaphores.ACC_FULL))
        code += self._finish(run, piece, acc)
        return nest([piece], code)

    def _acc(self, run: Run, piece: Loop, slice_: int, columns: int) -> Stream:
        mapping = self.mapping
        pitch = self.machine.array.macros * 128
        steps = self._turns([*self.outer, piece], mapping.vectors * pitch, mapping.acc_slots)
        return window("acc", "i32", slice_ * mapping.columns * 4, (run.size, columns), (pitch, 4), steps)

    def _step(self, run: Run, piece: Loop) -> Tree:
        mapping = self.mapping
        step, width = self.step, mapping.slices * mapping.depth
        act = window(
            "buf",
            "i8",
            self.rows_at + run.start * mapping.k_padded,
            (run.size, width),
            (mapping.k_padded, 1),
            piece.step(run.step * mapping.k_padded) + step.step(width),
        )
        cells = self._cells([*self.outer, piece, step], step)
        values: dict[str, Value] = {"slices": mapping.slices, "mode": "clear"}
        if step.level is not None:
            values |= {"mode": "first", "level": step.level}
        acc = self._acc(run, piece, 0, mapping.slices * mapping.columns)
        mac = Pending("mac", {"acc": acc, "cells": cells}, values)
        if not self.resident:
            mac.values["release"] = (_empty("cells", self._sets()),)
            mac.wait(Semaphores.CELLS_FULL)
        return [*self._load_cells(cells, step, piece), Pending("lda", {"act": act}), mac]

    def _sets(self) -> int:
        return 1 if self.machine.array.weight_sets == 1 else 2

    def _cells(self, loops: Sequence[Loop], step: Loop) -> Stream:
        mapping, macros = self.mapping, self.machine.array.macros
        rows = mapping.slices * mapping.macros
        if self.resident:
            assert self.job.resident_unit is not None
            a_part = mapping.col_groups * mapping.steps * macros
            steps = self.part.step(a_part) + self.group.step(mapping.steps * macros) + step.step(macros)
            return window("cells", "u8", self.job.resident_unit, (rows, 1), None, steps)
        return window("cells", "u8", 0, (rows, 1), None, self._turns(loops, macros, self._sets()))

    def _load_cells(self, cells: Stream, step: Loop, piece: Loop) -> Tree:
        if self.resident:
            return []
        mapping = self.mapping
        shape = (mapping.slices * mapping.macros, mapping.tile_bytes)
        if mapping.by_step:
            steps = self._turns([*self.outer, piece, step], aligned(mapping.step_bytes), mapping.weight_slots)
            base = self.weights_at
        else:
            steps = self._turns(self.outer, aligned(mapping.group_bytes), mapping.weight_slots) + step.step(
                mapping.step_bytes
            )
            base = self.weights_at + aligned(mapping.scale_bytes)
        load = Pending("ldw", {"cells": cells, "src": window("buf", "u8", base, shape, None, steps)})
        load.wait(_empty("cells", self._sets())).post(Semaphores.CELLS_FULL)
        if not mapping.by_step:
            return [load]
        return [
            self._fetch_step(base, steps, step),
            load.wait(Semaphores.WEIGHTS_FULL).post(_empty("weights", mapping.weight_slots)),
        ]

    def _fetch_step(self, base: int, steps: list[Step], step: Loop) -> Pending:
        mapping = self.mapping
        source = window(
            "const",
            "u8",
            self.job.weights + aligned(mapping.scale_bytes),
            (1, mapping.step_bytes),
            None,
            self._weight_steps() + step.step(mapping.step_bytes),
        )
        inside = window("buf", "u8", base, (1, mapping.step_bytes), None, steps)
        copy = Pending("copy", {"dst": inside, "src": source}, {"channel": 0})
        return copy.wait(_empty("weights", mapping.weight_slots)).post(Semaphores.WEIGHTS_FULL)

    def _finish(self, run: Run, piece: Loop, acc: Stream) -> Tree:
        """Return the code that dequantises a piece of results and takes it away."""
        mapping, result = self.mapping, self.job.result
        size = aligned(4 * mapping.vectors * mapping.columns)
        held = window(
            "buf",
            "f32",
            self.results_at,
            (run.size, mapping.columns),
            None,
            self._turns([*self.outer, piece], size, mapping.out_slots),
        )
        slots = 2 if self.resident or mapping.by_step else mapping.weight_slots
        scale_size = mapping.scale_bytes if self.resident or mapping.by_step else mapping.group_bytes
        turns = self._turns(self.outer, aligned(scale_size), slots)
        scale = window("buf", "f32", self.scales_at, (1, mapping.columns), None, turns)
        bias = replace(scale, base=scale.base + 4 * mapping.columns)
        one_scale = self.job.scales.rows == 1
        moves = [] if one_scale else piece.step(4 * run.step)
        sx = window(
            "buf",
            "f32",
            self.sx_at + (0 if one_scale else 4 * run.start),
            (1 if one_scale else run.size, 1),
            None,
            moves,
        )
        dequant = Pending("dequant", {"dst": held, "acc": acc, "sx": sx, "sw": scale, "bias": bias})
        dequant.wait(Semaphores.ACC_FULL, _empty("out", mapping.out_slots))
        dequant.post(_empty("acc", mapping.acc_slots), Semaphores.OUT_FULL)
        dequant.taps += [self._tap(tap, run, piece) for tap in result.taps]
        moves = self.part.step(result.part_pitch) + self.block.step(mapping.resident_rows * result.row_pitch)
        moves += self.group.step(4 * mapping.columns) + piece.step(run.step * result.row_pitch)
        base = result.address + run.start * result.row_pitch
        target = window(result.space, "f32", base, (run.size, mapping.columns), (result.row_pitch, 4), moves)
        out = Pending("copy", {"dst": target, "src": held}, {"channel": 1})
        return [dequant, out.wait(Semaphores.OUT_FULL).post(_empty("out", mapping.out_slots))]

    def _tap(self, tap: Tap, run: Run, piece: Loop) -> Tap:
        mapping = self.mapping
        steps = self.part.step(mapping.shape.n * tap.col_stride)
        steps += self.block.step(mapping.resident_rows * tap.row_stride)
        steps += self.group.step(mapping.columns * tap.col_stride) + piece.step(run.step * tap.row_stride)
        return replace(
            tap,
            base=tap.base + run.start * tap.row_stride,
            steps=tuple(steps),
            col_steps=tuple(self.group.step(mapping.columns)),
            col_limit=mapping.shape.n,
        )


def _sync(engine: str) -> Pending:
    return Pending("sync", {}, {"engine": engine})


def _empty(name: str, slots: int) -> int:
    return Semaphores.EMPTY[name][slots - 1]


def groups_code(mapping: Mapping, machine: Machine) -> Tree:
    """Return the instruction that sets the sub-macro grouping of a mapping."""
    groups = groups_of(mapping, machine)
    values: dict[str, Value] = {
        "n": groups.n,
        "m": groups.m,
        "blocks": groups.blocks,
        "slots": groups.slots,
        "index": groups.index_bits,
        "packing": groups.packing,
        "select": groups.select,
        "merge": machine.array.sub_macros,
    }
    return [Pending("groups", {}, values)]

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
from .code import Builder, Loop, Pending, Semaphores, Tree, nest, window
from .column_groups import ColumnGroups, comes_ahead, counts
from .tail_code import TailCode, TailRun


@dataclass(frozen=True)
class Result:
    """Where the results go: address of row 0 of this box, and byte distances; ``tap`` likewise in elements.

    Each branch of the columns has its taps, in the order of the branches.
    """

    space: str
    address: int
    row_pitch: int
    part_pitch: int
    taps: tuple[tuple[Tap, ...], ...]
    #: Elements from one part to the next, as taps count them.
    part_elements: int = 0
    dtype: str = "f32"


@dataclass(frozen=True)
class Job:
    """One box of a linear: ``blocks`` x mapping.resident_rows vectors, the first of them vector ``first``.

    ``parts`` linears lie side by side (grouped). Without ``scales`` the int32 sums are the result.
    """

    mapping: Mapping
    blocks: int
    parts: int
    first: int
    weights: int
    result: Result
    scales: Stream | None
    #: Bytes from the scales of one block, and of one part, to the next.
    scale_steps: tuple[int, int]
    resident_unit: int | None
    #: Writes the transfers that bring a block of vectors: (buffer address, its turns, part loop, block loop) -> code.
    fetch_rows: Callable[[int, Sequence[Step], Loop, Loop], Tree]
    #: Writes those that bring a column group made at run time: (buffer address, its turns, part, group) -> code.
    fetch_weights: Callable[[int, Sequence[Step], Loop, Loop], Tree] | None = None
    #: Blocks of vectors that the buffer holds, to take turns on.
    row_slots: int = 1
    #: The first unit of cells that tiles are written to.
    unit: int = 0
    #: The first column, and the first of the matrices that the parts are, where they do not lie side by side.
    column: int = 0
    matrix: int | None = None
    tail: TailRun | None = None


class LinearBody:
    """Writes one job."""

    def __init__(self, job: Job, builder: Builder) -> None:
        self.job, self.mapping, self.builder = job, job.mapping, builder
        self.machine = builder.machine
        mapping, shape = job.mapping, job.mapping.shape
        #: Whether the weights of a column group are asked for before the group before it is worked on.
        self.ahead = comes_ahead(mapping, builder) and job.resident_unit is None and job.parts * job.blocks == 1
        part, block, pair, group = builder.loops(job.parts, job.blocks, *counts(mapping, self.ahead))
        self.part = part
        if job.matrix is not None:
            self.part = part.over("matrix", "matrices", 1, start=job.matrix)
        elif job.parts > 1:
            self.part = part.over("part", "columns", shape.n, limit=job.parts * shape.n)
        rows, first = mapping.resident_rows, job.first
        self.block = block.over("block of vectors", "vectors", rows, start=first, limit=shape.rows)
        self.groups = ColumnGroups(mapping, job.column, pair, group)
        # Rings count the iterations of a level, so no other loop may use these two: the runs share them, in turn.
        self.piece, step = builder.loops(mapping.runs[0].count, mapping.steps)
        self.step = step.over("K step", "K", mapping.slices * mapping.depth, limit=shape.k)
        self.resident = job.resident_unit is not None
        self.rows_at = builder.buffer(job.mapping.resident_rows * job.mapping.k_padded, job.row_slots)
        self.sx_at = builder.buffer(4 * job.mapping.resident_rows, job.row_slots)
        self.weights_at, self.scales_at = self._weight_slots()
        self.results_at = self._room_for_results()
        around = [self.part, self.block]
        self.tail = None if job.tail is None else TailCode(job.tail, mapping, builder, around, self.results_at)

    def _room_for_results(self) -> int:
        """Return the address of slots for pieces of results, or of what a tail works on."""
        mapping, tail = self.mapping, self.job.tail
        if tail is None:
            return self.builder.buffer(4 * mapping.vectors * mapping.columns, mapping.out_slots)
        vectors, columns = tail.extent(mapping)
        return self.builder.buffer(4 * vectors * columns)

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
        body: Tree = [*self._fetch_block(), *self._groups()]
        if self.tail is not None:
            body = [*self.tail.early, *body, *self.tail.block]
        body += self._release_block()
        self.builder.write(nest([self.part, self.block], body))
        self.builder.emit("barrier")

    @property
    def outer(self) -> list[Loop]:
        """The loops around pieces, as the code that is written next stands in them."""
        return [self.part, self.block, *self.groups.loops]

    def _groups(self) -> Tree:
        """Return the loop over column groups; the last ones stand apart where weights come one group ahead."""
        if not self.ahead:
            fetch, ready = self._fetch_group(0)
            return nest(self.groups.loops, [*fetch, *ready, *self._group()])
        whole, last = self.groups, self.mapping.col_groups - 1
        self.groups = whole.alone(0)
        code, _ = self._fetch_group(0)
        if whole.group.level is not None:
            self.groups = whole
            code += nest(whole.loops, self._following())
        for group in range(last // 2 * 2, last):
            self.groups = whole.alone(group)
            code += nest(self.groups.loops, self._following())
        self.groups = whole.alone(last)
        _, ready = self._fetch_group(0)
        return [*code, *nest(self.groups.loops, [*ready, *self._group()])]

    def _following(self) -> Tree:
        """Return the work on a column group, before it the transfer of the next one's weights."""
        fetch, _ = self._fetch_group(1)
        _, ready = self._fetch_group(0)
        return [*fetch, *ready, *self._group()]

    def _group(self) -> Tree:
        """Return the work on a column group whose weights are there."""
        code: Tree = []
        for run in self.mapping.runs:
            code += self._pieces(run)
        slots = 2 if self.resident or self.mapping.by_step else self.mapping.weight_slots
        return [*code, _sync("vector").post(_empty("scales", slots))]

    def _zeros(self) -> Tree:
        """Fill what no transfer fills: columns between K and whole tiles, and tiles beyond what was made at run time.

        Zero weights or zero vectors make their products zero; what they meet must be defined.
        """
        mapping = self.mapping
        rest = mapping.k_padded - mapping.shape.k
        code: Tree = []
        if rest:
            tail = (mapping.resident_rows, rest)
            for slot in range(self.job.row_slots):
                start = self.rows_at + slot * aligned(mapping.resident_rows * mapping.k_padded) + mapping.shape.k
                code.append(Pending("vfill", {"dst": window("buf", "i8", start, tail, (mapping.k_padded, 1))}))
            code += [_sync("vector").post(Semaphores.ZEROS_FULL), _sync("array").wait(Semaphores.ZEROS_FULL)]
        if self.job.fetch_weights is not None and (rest or mapping.width < mapping.columns):
            whole = window("buf", "f32", self.weights_at, (mapping.weight_slots, aligned(mapping.group_bytes) // 4))
            fill = Pending("vfill", {"dst": whole}).post(Semaphores.ZEROS_FULL)
            code += [fill, _sync("dma0").wait(Semaphores.ZEROS_FULL)]
        return code

    def _row_turns(self, size: int) -> list[Step]:
        """Return how the slots for blocks of vectors, ``size`` bytes each, take turns."""
        return self._turns([self.part, self.block], aligned(size), self.job.row_slots)

    def _fetch_block(self) -> Tree:
        job, mapping = self.job, self.mapping
        turns = self._row_turns(mapping.resident_rows * mapping.k_padded)
        fetch = job.fetch_rows(self.rows_at, turns, self.part, self.block)
        ready = [_sync("dma0").wait(*self._block_room())] if self._block_room() else []
        return [*ready, *fetch, self._fetch_scales(), _sync("array").wait(Semaphores.ROWS_FULL)]

    def _block_room(self) -> list[int]:
        """Return what says that there is room for a block of vectors and for its sums; for the only one there is."""
        if self.part.level is None and self.block.level is None:
            return []
        return [_empty(name, self.job.row_slots) for name in ("rows", "sums")]

    def _release_block(self) -> Tree:
        """Return what gives the room of a block back."""
        return [_sync(engine).post(room) for engine, room in zip(("array", "vector"), self._block_room(), strict=False)]

    def _fetch_scales(self) -> Pending:
        """Return the transfer of the rows' scales, the last of a block; without scales, what only says that it is."""
        job, given = self.job, self.job.scales
        if given is None:
            return _sync("dma0").post(Semaphores.ROWS_FULL)
        turns = self._row_turns(4 * self.mapping.resident_rows)
        inside = window("buf", "f32", self.sx_at, (given.rows, 1), None, turns)
        steps = self.block.step(job.scale_steps[0]) + self.part.step(job.scale_steps[1])
        outside = window("dram", "f32", given.base, (given.rows, 1), (given.row_pitch, 4), steps)
        return Pending("copy", {"dst": inside, "src": outside}, {"channel": 0}).post(Semaphores.ROWS_FULL)

    def _fetch_group(self, after: int) -> tuple[Tree, Tree]:
        """Return the transfers of the group ``after`` groups later, and what waits for those of the present one.

        Scales that come with the tiles need no tokens of their own: the vector unit only reads them when sums of these
        tiles are there, and when it has done so the tiles have been read long since.
        """
        if self.job.fetch_weights is not None:
            return self._fetch_written(self.job.fetch_weights)
        mapping, slots = self.mapping, 2 if self.resident or self.mapping.by_step else self.mapping.weight_slots
        size = mapping.scale_bytes if self.resident or mapping.by_step else mapping.group_bytes
        base = self.job.weights + (self.groups.first + after) * mapping.group_bytes
        source = window("const", "u8", base, (1, size), None, self._weight_steps())
        slot, turns = self._slot(size, slots, after)
        inside = window("buf", "u8", self.scales_at + slot, (1, size), None, turns)
        copy = Pending("copy", {"dst": inside, "src": source}, {"channel": 0}).wait(_empty("scales", slots))
        if self.resident or mapping.by_step:
            return [copy.post(Semaphores.SCALES_FULL)], [_sync("vector").wait(Semaphores.SCALES_FULL)]
        return [copy.post(Semaphores.WEIGHTS_FULL)], [_sync("weights").wait(Semaphores.WEIGHTS_FULL)]

    def _slot(self, size: int, slots: int, after: int = 0) -> tuple[int, list[Step]]:
        """Return where the data of a column group lie from the first slot on, and how they take turns."""
        if self.ahead:
            return self.groups.slot(aligned(size), after)
        return 0, self._turns(self.outer, aligned(size), slots)

    def _fetch_written(self, fetch: Callable[[int, Sequence[Step], Loop, Loop], Tree]) -> tuple[Tree, Tree]:
        """Bring the tiles and scales of a column group that was made at run time; the last transfer tells of all."""
        slots = self.mapping.weight_slots
        turns = self._turns(self.outer, aligned(self.mapping.group_bytes), slots)
        copies = fetch(self.weights_at, turns, self.part, self.groups.group)
        last = copies[-1]
        assert isinstance(last, Pending)
        last.post(Semaphores.WEIGHTS_FULL)
        ready = _sync("dma0").wait(_empty("scales", slots))
        return [ready, *copies], [_sync("weights").wait(Semaphores.WEIGHTS_FULL)]

    def _weight_steps(self) -> list[Step]:
        part_bytes = self.mapping.col_groups * self.mapping.group_bytes
        return self.part.step(part_bytes) + self.groups.step(self.mapping.group_bytes)

    def _turns(self, loops: Sequence[Loop], size: int, slots: int) -> list[Step]:
        turning = ring(loops)
        return turning.step(size, 2) if turning is not None and slots == 2 else []

    def _pieces(self, run: Run) -> Tree:
        """Return the loop over the pieces of a run."""
        mapping = self.mapping
        piece = Loop(run.count, self.piece.level).over(
            "piece", "vectors of the block", run.size, step=run.step, start=run.start, limit=mapping.resident_rows
        )
        loads, rest = self.tail.piece(run, piece, self.groups) if self.tail is not None else ([], [])
        products = self._step(run, piece)
        lda, mac = products[-2:] if self.step.level is None else (None, None)  # in a loop no step stands for all
        begin = lda if isinstance(lda, Pending) else _sync("array")
        end = mac if isinstance(mac, Pending) and mapping.slices == 1 else _sync("array")
        begin.wait(_empty("acc", mapping.acc_slots))
        end.post(Semaphores.ACC_FULL)
        code: Tree = [*loads, *([] if begin is lda else [begin]), *nest([self.step], products)]
        acc = self._acc(run, piece, 0, mapping.columns)
        for other in range(1, mapping.slices):
            code.append(Pending("accum", {"dst": acc, "src": self._acc(run, piece, other, mapping.columns)}))
        code += [*([] if end is mac else [end]), *self._finish(run, piece, acc)]
        return nest([piece], [*code, *rest])

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
            piece.step(run.step * mapping.k_padded)
            + step.step(width)
            + self._row_turns(mapping.resident_rows * mapping.k_padded),
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
            steps = self.part.step(a_part) + self.groups.step(mapping.steps * macros) + step.step(macros)
            return window("cells", "u8", self.job.resident_unit, (rows, 1), None, steps)
        return window("cells", "u8", self.job.unit, (rows, 1), None, self._turns(loops, macros, self._sets()))

    def _load_cells(self, cells: Stream, step: Loop, piece: Loop) -> Tree:
        if self.resident:
            return []
        mapping = self.mapping
        shape = (mapping.slices * mapping.macros, mapping.tile_bytes)
        if mapping.by_step:
            steps = self._turns([*self.outer, piece, step], aligned(mapping.step_bytes), mapping.weight_slots)
            base = self.weights_at
        else:
            slot, steps = self._slot(mapping.group_bytes, mapping.weight_slots)
            steps += step.step(mapping.step_bytes)
            base = self.weights_at + slot + aligned(mapping.scale_bytes)
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
        """Return the code that dequantises a piece of results, or stores its sums, and takes it away."""
        mapping, result = self.mapping, self.job.result
        if self.tail is not None:
            return self._kept(run, piece, acc, self.tail)
        size, width = aligned(4 * mapping.vectors * mapping.columns), mapping.width
        turns = self._turns([*self.outer, piece], size, mapping.out_slots)
        held = window("buf", result.dtype, self.results_at, (run.size, width), None, turns)
        made = self._made(run, piece, replace(acc, cols=width), held)
        made.wait(Semaphores.ACC_FULL, _empty("out", mapping.out_slots))
        made.post(_empty("acc", mapping.acc_slots), Semaphores.OUT_FULL)
        moves = self.part.step(result.part_pitch) + self.block.step(mapping.resident_rows * result.row_pitch)
        moves += self.groups.step(4 * mapping.columns) + piece.step(run.step * result.row_pitch)
        base = result.address + run.start * result.row_pitch + self.groups.first * 4 * mapping.columns
        target = window(result.space, result.dtype, base, (run.size, width), (result.row_pitch, 4), moves)
        out = Pending("copy", {"dst": target, "src": held}, {"channel": 1})
        return [made, out.wait(Semaphores.OUT_FULL).post(_empty("out", mapping.out_slots))]

    def _kept(self, run: Run, piece: Loop, acc: Stream, tail: TailCode) -> Tree:
        """Return what brings a piece of results, dequantised or not, to where the tail works on it: each branch."""
        width, distance = self.mapping.branch_width, 4 * self.mapping.branch_columns
        made = []
        for branch in range(self.mapping.shape.branches):
            held = tail.held(run, piece, self.groups, branch, self.job.result.dtype)
            sums = replace(acc, base=acc.base + branch * distance, cols=width)
            made.append(self._made(run, piece, sums, held, branch))
        made[0].wait(Semaphores.ACC_FULL)
        made[-1].post(_empty("acc", self.mapping.acc_slots))
        return [*made]

    def _made(self, run: Run, piece: Loop, acc: Stream, held: Stream, branch: int = 0) -> Pending:
        """Return the instruction that makes a piece of results of its sums."""
        scales = {} if self.job.scales is None else self._scales(run, piece, self.job.scales, branch)
        made = Pending("dequant" if scales else "store", {"dst": held, "acc": acc, **scales})
        made.taps += [self._tap(tap, run, piece) for tap in self.job.result.taps[branch]]
        return made

    def _scales(self, run: Run, piece: Loop, scales: Stream, branch: int) -> dict[str, Stream]:
        """Return the scales of a piece's rows, and scales and biases of its columns."""
        mapping, job = self.mapping, self.job
        slots = 2 if self.resident or mapping.by_step else mapping.weight_slots
        size = mapping.scale_bytes if self.resident or mapping.by_step else mapping.group_bytes
        slot, turns = self._slot(size, slots)
        base = self.scales_at + slot + 4 * branch * mapping.branch_columns
        by_column = window("buf", "f32", base, (1, mapping.branch_width), None, turns)
        one_scale = scales.rows == 1
        moves = self._row_turns(4 * mapping.resident_rows) + ([] if one_scale else piece.step(4 * run.step))
        start = self.sx_at + (0 if one_scale else 4 * run.start)
        by_row = window("buf", "f32", start, (1 if one_scale else run.size, 1), None, moves)
        if job.fetch_weights is not None:
            return {"sx": by_row, "sw": by_column}
        return {"sx": by_row, "sw": by_column, "bias": replace(by_column, base=by_column.base + 4 * mapping.columns)}

    def _tap(self, tap: Tap, run: Run, piece: Loop) -> Tap:
        mapping = self.mapping
        steps = self.part.step(self.job.result.part_elements)
        steps += self.block.step(mapping.resident_rows * tap.row_stride)
        columns = mapping.branch_columns
        steps += self.groups.step(columns * tap.col_stride) + piece.step(run.step * tap.row_stride)
        return replace(
            tap,
            base=tap.base + run.start * tap.row_stride + self.groups.first * columns * tap.col_stride,
            steps=tuple(steps),
            col=self.groups.first * columns,
            col_steps=tuple(self.groups.step(columns)),
            col_limit=mapping.shape.n // mapping.shape.branches,
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

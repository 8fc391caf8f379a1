"""Linears on the array: an integer product with a constant weight, and the nodes after it that dequantise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.errors import FlexcError
from ..isa.machine import Machine
from ..isa.program import Tap
from ..isa.streams import Step
from ..passes.estimate import estimate
from ..passes.layout import aligned
from ..passes.mapping import LinearShape, Mapping, choose, groups_of
from ..passes.partition import Kernel
from ..passes.pattern import DENSE, NM, covering
from ..passes.prune import NM_KEY
from .code import Block, Builder, DoesNotFit, Loop, Pending, Tree, window
from .context import Context, array_of, machine_dtype
from .linear_body import Job, LinearBody, Result, groups_code
from .linear_weights import Floats, Weights
from .moves import Copy, CopyKernel
from .pack import Codes
from .tail_code import TailRun, copies_of
from .tail_kernel import TailKernel, Unfusable
from .views import Storage, View


@dataclass(frozen=True)
class Chain:
    """The operands of a product and its dequantisation, found in the nodes of a kernel; raw sums have no scales."""

    product: ir.Node
    source: ir.Value
    weight: ir.Value
    column: ir.Value | None
    scales: ir.Value | None
    bias: ir.Value | None
    output: ir.Value

    @property
    def dtype(self) -> str:
        """The machine's type of the result."""
        return "i32" if self.scales is None else "f32"

    @classmethod
    def of(cls, kernel: Kernel) -> Chain:
        """Read the only chain off a kernel made by ``linear_chain``."""
        (nodes,) = kernel.chains
        return cls.of_nodes(nodes)

    @classmethod
    def of_nodes(cls, nodes: list[ir.Node]) -> Chain:
        """Read a chain off the nodes that ``linear_chain`` found."""
        product = nodes[0]
        source, weight = product.inputs[0], product.inputs[1]
        assert source is not None
        assert weight is not None
        if len(nodes) == 1:
            return cls(product, source, weight, None, None, None, product.outputs[0])
        _, by_column, by_weight = nodes[1:4]
        bias = next((_other(node, nodes) for node in nodes[4:] if node.op_type == "Add"), None)
        column, scales = _other(by_column, nodes), _other(by_weight, nodes)
        return cls(product, source, weight, column, scales, bias, nodes[-1].outputs[0])


def _other(node: ir.Node, nodes: list[ir.Node]) -> ir.Value:
    made = {output for each in nodes for output in each.outputs}
    return next(value for value in node.inputs if value is not None and value not in made)


def pattern_of(node: ir.Node) -> NM:
    """Return the N:M pattern that a pass wrote to a node; N:N is dense, its indices would say nothing."""
    pattern = NM.parse(node.metadata_props.get(NM_KEY, "dense"))
    return DENSE if pattern.is_dense else pattern


@dataclass
class ResidentTiles:
    """Tiles that lie in the cells from the start, on a machine that has room for all: what to load where."""

    storage: Storage
    mapping: Mapping
    parts: int
    unit: int


class CellAllocator:
    """Hands out weight sets for resident tiles."""

    def __init__(self, machine: Machine) -> None:
        self.macros = machine.array.macros
        self.resident = machine.array.resident
        self.sets = 0
        self.spare_unit: int | None = None
        self.tiles: list[ResidentTiles] = []

    def spare(self) -> int:
        """Return the first unit for tiles made at run time: two sets on a machine whose own hold resident weights."""
        if self.spare_unit is None:
            self.spare_unit = self.sets * self.macros if self.resident else 0
            self.sets += 2
        return self.spare_unit

    def take(self, storage: Storage, mapping: Mapping, parts: int) -> int:
        """Return the first unit of cells for all tiles of a mapping."""
        unit = self.sets * self.macros
        self.sets += parts * mapping.col_groups * mapping.steps
        self.tiles.append(ResidentTiles(storage, mapping, parts, unit))
        return unit


def row_boxes(shape: LinearShape, machine: Machine, where: str) -> Iterator[tuple[int, int, Mapping]]:
    """Yield (first row, blocks, mapping) that together cover all rows of a linear.

    Raises:
        FlexcError: no way of cutting it fits the machine.
    """
    start = 0
    while start < shape.rows:
        mapping = choose(replace(shape, rows=shape.rows - start), machine)
        if mapping is None and shape.tail is not None:
            raise DoesNotFit(f"{where} with the row work after it")
        if mapping is None:
            raise FlexcError(
                f"{shape.k} x {shape.n} at {shape.pattern} does not fit machine '{machine.name}'",
                where=where,
                remedy="use a machine with a larger buffer",
            )
        blocks = (shape.rows - start) // mapping.resident_rows
        yield start, blocks, mapping
        start += blocks * mapping.resident_rows


@dataclass
class PlannedBox:
    """One box of rows with its mapping and where its weights lie."""

    start: int
    blocks: int
    mapping: Mapping
    weights: Storage
    unit: int | None


def plan_boxes(
    shape: LinearShape, parts: int, weights: Weights, context: Context, cells: CellAllocator, name: str
) -> list[PlannedBox]:
    """Map all rows and place the weights of each mapping; boxes that cut the weight alike share them."""
    planned: list[PlannedBox] = []
    for start, blocks, mapping in row_boxes(shape, context.machine, f"node '{name}'"):
        shared = next((each for each in planned if _same_image(each.mapping, mapping)), None)
        if shared is not None:
            storage, unit = shared.weights, shared.unit
        else:
            size = parts * mapping.col_groups * mapping.group_bytes
            storage = context.const.add(f"{name}/weights", size, partial(weights.image, mapping, parts), weights=True)
            resident = context.machine.array.resident
            unit = cells.take(storage, mapping, parts) if resident else None
        planned.append(PlannedBox(start, blocks, mapping, storage, unit))
    return planned


def boxes_cycles(boxes: Sequence[PlannedBox], machine: Machine, times: int = 1) -> int:
    """Return about how many cycles all boxes take, with ``times`` as many vectors each."""
    total = 0
    for box in boxes:
        rows = times * box.blocks * box.mapping.resident_rows
        every = replace(box.mapping, shape=replace(box.mapping.shape, rows=rows))
        total += estimate(every, groups_of(every, machine), machine)
    return total


def results(chain: Chain, shape: tuple[int, ...]) -> View:
    """Return the view of an array kernel's results as its tail sees them: all of them, though few are there at once."""
    return View.dense(Storage(f"{chain.product.name}/results", "buf", 0), chain.dtype, shape)


def _same_image(a: Mapping, b: Mapping) -> bool:
    return (a.pattern, a.blocks, a.steps, a.slices, a.macros, a.col_groups) == (
        b.pattern,
        b.blocks,
        b.steps,
        b.slices,
        b.macros,
        b.col_groups,
    )


class LinearKernel:
    """MatMulInteger with a constant weight; or several of the same vectors, as one linear with the columns of all."""

    def __init__(self, kernel: Kernel, context: Context, cells: CellAllocator) -> None:
        """Plan it.

        Raises:
            Unfusable: the linears do not scale their vectors alike, or the row work after them does not fit.
        """
        self.chains = [Chain.of_nodes(nodes) for nodes in kernel.chains]
        self.chain, self.machine = self.chains[0], context.machine
        self.name = "+".join(str(chain.product.name) for chain in self.chains)
        if any((each.column, each.dtype) != (self.chain.column, self.chain.dtype) for each in self.chains):
            raise Unfusable(kernel.nodes[0])
        rows = math.prod(shape_of(self.chain.source)[:-1])
        k, n = shape_of(self.chain.weight)
        self.copies: list[Copy] = []
        self.source = self._plan_source(rows, k, context)
        self.scales = context.view(self.chain.column) if self.chain.column is not None else None
        columns = n * len(self.chains)
        self.tail = self._plan_tail(kernel, rows, columns, context)
        pattern = covering(pattern_of(chain.product) for chain in self.chains)
        self.shape = LinearShape(rows, k, columns, pattern)
        if self.tail is not None:
            branches = self.tail.kernel.branches
            cost = self.tail.kernel.cost(columns // branches)
            self.shape = replace(self.shape, tail=cost, branches=branches)
        self.boxes = plan_boxes(self.shape, 1, self._weights(), context, cells, self.name)
        self.result = self._plan_output(context)

    def _plan_source(self, rows: int, k: int, context: Context) -> View:
        """Return the activations as rows x K, a row without gaps: a copy where they do not lie like that."""
        view = context.view(self.chain.source).reshape((rows, k))
        if view is not None and (k == 1 or view.strides[1] == 1):
            return view
        storage = context.scratch(f"{self.name}/rows", rows * k)
        source = context.view(self.chain.source)
        dense = View.dense(storage, "i8", source.shape)
        self.copies.append((source, dense))
        flat = dense.reshape((rows, k))
        assert flat is not None, "what has no gaps has every shape"
        return flat

    def _plan_tail(self, kernel: Kernel, rows: int, n: int, context: Context) -> TailRun | None:
        if kernel.tail is None:
            return None
        every, each = results(self.chain, (rows, n)), n // len(self.chains)
        views = []
        for place, chain in enumerate(self.chains):
            view = every.slice(1, place * each, each).reshape(shape_of(chain.output))
            assert view is not None
            views.append(view)
        return TailRun.of(TailKernel(kernel, context, views, rows, 4 * n))

    def cycles(self) -> int:
        """Return about how many cycles the kernel takes."""
        return boxes_cycles(self.boxes, self.machine)

    def _weights(self) -> Weights:
        chains, n = self.chains, shape_of(self.chain.weight)[1]

        def codes() -> Codes:
            every = [np.ascontiguousarray(array_of(chain.weight).T).astype(np.int8, copy=False) for chain in chains]
            return every[0] if len(every) == 1 else np.concatenate(every)

        def flat(values: Sequence[ir.Value | None]) -> Floats:
            every = [np.zeros(1, np.float32) if each is None else array_of(each).astype(np.float32) for each in values]
            return np.concatenate([np.broadcast_to(each.reshape(-1), (n,)) for each in every])

        every = [[chain.scales for chain in chains], [chain.bias for chain in chains]]
        scales, bias = (partial(flat, each) if any(value is not None for value in each) else None for each in every)
        return Weights(codes, scales, bias)

    def _plan_output(self, context: Context) -> View:
        value = self.chain.output
        if self.tail is not None:
            return results(self.chain, (self.shape.rows, self.shape.n))
        padded = max(box.mapping.n_padded for box in self.boxes)
        storage = context.scratch(str(value.name), 4 * self.shape.rows * padded)
        flat = View(storage, self.chain.dtype, (self.shape.rows, self.shape.n), (4 * padded, 4))
        view = flat.reshape(shape_of(value))
        assert view is not None
        context.set(value, view)
        return flat

    def emit(self, builder: Builder) -> None:
        """Write the kernel's code, one box of rows after the other."""
        CopyKernel([*self.copies, *copies_of(self.tail)]).emit(builder)
        for box in self.boxes:
            builder.begin_kernel()
            LinearBody(self._job(box), builder).write()

    def _job(self, box: PlannedBox) -> Job:
        mapping, k = box.mapping, self.shape.k
        pitch = self.source.strides[0]

        def fetch(address: int, turns: Sequence[Step], _part: Loop, block: Loop) -> Tree:
            inside = window("buf", "i8", address, (mapping.resident_rows, k), (mapping.k_padded, 1), turns)
            base = self.source.address + box.start * pitch
            steps = block.step(mapping.resident_rows * pitch)
            outside = window(self.source.storage.space, "i8", base, (mapping.resident_rows, k), (pitch, 1), steps)
            return [Pending("copy", {"dst": inside, "src": outside}, {"channel": 0})]

        scales = None
        if self.scales is not None:
            scales = window("dram", "f32", self.scales.address + 4 * box.start, (mapping.resident_rows, 1))
        row_pitch = self.result.strides[0]
        address = self.result.address + box.start * row_pitch
        result = Result("dram", address, row_pitch, 0, self._taps(box.start), dtype=self.chain.dtype)
        weights, steps = box.weights.address, (4 * mapping.resident_rows, 0)
        tail = None if self.tail is None else self.tail.starting(rows=box.start)
        return Job(mapping, box.blocks, 1, box.start, weights, result, scales, steps, box.unit, fetch, tail=tail)

    def _taps(self, start: int) -> tuple[tuple[Tap, ...], ...]:
        n, branches = shape_of(self.chain.weight)[1], self.shape.branches // len(self.chains)
        firsts = [start * n + branch * (n // branches) for branch in range(branches)]
        return tuple(output_taps(chain, first, n, 1) for chain in self.chains for first in firsts)


def output_taps(chain: Chain, base: int, row_stride: int, col_stride: int) -> tuple[Tap, ...]:
    """Return the taps of the sums and of the result; the body fills in how they move."""
    sums, output = chain.product.outputs[0], chain.output
    seen = (("acc", sums),) if output is sums else (("acc", sums), ("dst", output))
    return tuple(
        Tap(0, operand, str(value.name), machine_dtype(value), shape_of(value), base, row_stride, col_stride)
        for operand, value in seen
    )


def emit_resident(builder: Builder, cells: CellAllocator) -> None:
    """Write the loads of all resident tiles: carried out before the program starts, at no cost."""
    for tiles in cells.tiles:
        builder.begin_kernel()
        mapping, macros = tiles.mapping, builder.machine.array.macros
        builder.write(groups_code(mapping, builder.machine))
        loops = builder.loops(tiles.parts * mapping.col_groups, mapping.steps)
        loops[0] = loops[0].over("column group", "columns", mapping.columns)
        loops[1] = loops[1].over("K step", "K", mapping.slices * mapping.depth, limit=mapping.shape.k)
        used = mapping.slices * mapping.macros
        target = window(
            "cells", "u8", tiles.unit, (used, 1), None, loops[0].step(mapping.steps * macros) + loops[1].step(macros)
        )
        base = tiles.storage.address + aligned(mapping.scale_bytes)
        steps = loops[0].step(mapping.group_bytes) + loops[1].step(mapping.step_bytes)
        source = window("const", "u8", base, (used, mapping.tile_bytes), None, steps)
        load = Pending("ldw", {"cells": target, "src": source})
        builder.write([Block(loops[0], [Block(loops[1], [load])])])
    builder.emit("barrier")

"""What experts made of the rows in their slots, added up again: each row gets the sum of what became of its pairs.

Exporters write one sum an expert, each into what the one before gave. Such a chain becomes one sum of all: every pair
picks its result from its slot, or nothing where it has none, and a row adds up its pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, int_attribute, shape_of
from .rewrite.site import Site
from .routing import VIEWS, Routing
from .tracing import trace


@dataclass(frozen=True)
class Slots:
    """The slots of one expert; ``places`` are the coordinates of their pairs in a mask, [its rank, capacity]."""

    routing: Routing
    expert: int
    places: ir.Value

    def coordinate(self, index: ir.Value) -> int | None:
        """Return which coordinate of the pairs an index [capacity, ...] is, None where it is something else."""
        origin, capacity = trace(index, until=self.places), self.routing.capacity
        at = origin.at.reshape(len(origin.at), -1)
        first = int(at[0, 0]) // capacity if at.size else 0
        same = np.array_equal(at, np.broadcast_to(first * capacity + np.arange(capacity)[:, None], at.shape))
        return first if origin.value is self.places and same else None


@dataclass(frozen=True)
class _Sum:
    """``base`` and what experts add to its rows, which lie along ``axis`` of a mask of so many dims."""

    base: ir.Value
    routing: Routing
    dims: tuple[int, ...]
    axis: int
    parts: tuple[tuple[int, ir.Value], ...]


class Sums:
    """The sums of a graph so far; ``readers`` are the nodes through which they read rows."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._sums: dict[ir.Value, _Sum] = {}
        self.readers: set[ir.Node | None] = set()

    def carry(self, old: ir.Value, new: ir.Value) -> None:
        """Remember a sum under another value."""
        if old in self._sums:
            self._sums.setdefault(new, self._sums[old])

    def put(self, node: ir.Node, slots: Slots, dims: tuple[int, ...], axis: int) -> ir.Value:
        """Return what a ScatterND or ScatterElements makes that puts an expert's results into other rows."""
        data, index, updates = node.inputs[:3]
        assert data is not None
        assert index is not None
        assert updates is not None
        site = Site(node, self._editor)
        added = updates
        if node.attributes.get_string("reduction", "none") != "add" and not _zero(data):
            increment = _increment(data, updates, slots, axis)
            if increment is None:
                return self._replaced(site, _Sum(data, slots.routing, dims, axis, ((slots.expert, updates),)))
            added = increment
        known = self._sums.get(data)
        own = _Sum(data, slots.routing, dims, axis, ())
        if known is not None and replace(known, base=data, parts=()) == own and slots.expert not in dict(known.parts):
            own = known
        return self._total(site, replace(own, parts=(*own.parts, (slots.expert, added))))

    def join(self, node: ir.Node) -> ir.Value | None:
        """Return one sum in the place of an Add of two, of which one began with zeros; None where it adds others."""
        left, right = (self._sums.get(value) if value is not None else None for value in node.inputs)
        if left is None or right is None:
            return None
        left, right = (right, left) if _zero(left.base) else (left, right)
        apart = set(dict(left.parts)).isdisjoint(dict(right.parts))
        if not _zero(right.base) or replace(right, base=left.base, parts=left.parts) != left or not apart:
            return None
        return self._total(Site(node, self._editor), replace(left, parts=(*left.parts, *right.parts)))

    def _total(self, site: Site, own: _Sum) -> ir.Value:
        results, _ = self._results(site, own)
        shape = (own.dims[own.axis], *shape_of(own.base)[1:])
        total = site.op("Add", own.base, site.reshape(_over_choices(site, "Add", results, own), shape))
        self._sums[total] = own
        return total

    def _replaced(self, site: Site, own: _Sum) -> ir.Value:
        """Emit a value of which some rows are replaced by what an expert gives for them."""
        results, gates = self._results(site, own)
        shape = shape_of(own.base)
        hit = site.reshape(_over_choices(site, "Or", gates, own), [shape[0], *[1] * (len(shape) - 1)])
        return site.op("Where", hit, site.reshape(_over_choices(site, "Add", results, own), shape), own.base)

    def _results(self, site: Site, own: _Sum) -> tuple[ir.Value, ir.Value]:
        """Emit what every pair gives, [choices * rows, width], and whether it gives anything, [choices * rows, 1]."""
        width, pairs = math.prod(shape_of(own.base)[1:]), math.prod(own.dims)
        others = [each for each in range(len(own.dims)) if each != own.axis]
        slots, kept = _of_parts(site, own)
        slots, kept = (site.transpose(site.reshape(each, own.dims), [*others, own.axis]) for each in (slots, kept))
        tables = [site.reshape(part, [own.routing.capacity, width]) for _, part in sorted(own.parts, key=_expert)]
        self.readers.update(table.producer() for table in tables)
        table = site.op("Concat", *tables, axis=0) if len(tables) > 1 else tables[0]
        picked, gates = site.op("Gather", table, site.reshape(slots, [pairs]), axis=0), site.reshape(kept, [pairs, 1])
        if len(own.parts) == own.routing.experts and not own.routing.may_drop:
            return picked, gates
        dtype = own.parts[0][1].dtype or ir.DataType.FLOAT
        return site.op("Where", gates, picked, site.constant(np.zeros((), dtype.numpy()), dtype)), gates


def _over_choices(site: Site, op_type: str, value: ir.Value, own: _Sum) -> ir.Value:
    """Join a value [choices * rows, ...] over the choices of a row, [rows, ...]."""
    rows = own.dims[own.axis]
    starts = range(0, math.prod(own.dims), rows)
    first, *others = (site.slice(value, 0, start, start + rows) for start in starts)
    for each in others:
        first = site.op(op_type, first, each)
    return first


def _expert(part: tuple[int, ir.Value]) -> int:
    return part[0]


def _increment(data: ir.Value, updates: ir.Value, slots: Slots, axis: int) -> ir.Value | None:
    """Return what is added to the rows that are already there, where updates are that sum."""
    node = _beneath(updates)
    if node is None or node.op_type != "Add":
        return None
    for place in (0, 1):
        there, added = node.inputs[place], node.inputs[1 - place]
        picked = _beneath(there)
        if picked is None or added is None or shape_of(added) != shape_of(node.outputs[0]):
            continue
        if picked.op_type == "Gather" and int_attribute(picked, "axis", 0) == 0:
            table, index = picked.inputs
            assert table is not None
            assert index is not None
            if _same(table, data) and slots.coordinate(index) == axis:
                return added
    return None


def _beneath(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in VIEWS:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node


def _zero(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and not array.any()


def _same(table: ir.Value, data: ir.Value) -> bool:
    if _zero(table) and _zero(data):
        return True
    origin = trace(table, until=data)
    return origin.value is data and origin.in_order


def _of_parts(site: Site, own: _Sum) -> tuple[ir.Value, ir.Value]:
    """Return the slot of every pair among the experts that are added up, and whether it has one there."""
    routing, capacity = own.routing, own.routing.capacity
    if len(own.parts) == routing.experts:
        return routing.slots, routing.kept
    place = np.full(routing.experts * capacity, -1, np.int64)
    for number, (expert, _) in enumerate(sorted(own.parts, key=_expert)):
        place[expert * capacity : (expert + 1) * capacity] = number * capacity + np.arange(capacity)
    slots, zero = site.op("Gather", site.constant(place), routing.slots, axis=0), site.constant(np.zeros((), np.int64))
    kept = site.op("And", routing.kept, site.op("GreaterOrEqual", slots, zero))
    return site.op("Max", slots, zero), kept

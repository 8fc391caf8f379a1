"""What lies between two products with experts' weights, done in every expert's slots instead of for all pairs.

Values of pairs are [*pairs, *rest], those in the slots of one expert [capacity, *rest]. From what a product is to
multiply the way leads back to the results of earlier products; what joins on the way is picked by its pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import constant_array, int_attribute, shape_of, static_shape
from .lanes import ALONG_LAST, ONE_BY_ONE
from .rewrite.site import Site
from .routing import VIEWS, Routing, Routings
from .tracing import trace

_MOST = 64  # nodes between two products; what is longer is no expert


@dataclass(frozen=True)
class Part:
    """What one expert has of a value in its slots: [capacity, *rest], or [1, *rest] where all are alike."""

    value: ir.Value
    shape: tuple[int, ...]

    @property
    def rest(self) -> tuple[int, ...]:
        """The dimensions of a single pair."""
        return self.shape[1:]


class Body:
    """Emits nodes in front of a product, for one expert after the other: what one reads of another would come too late.

    Args:
        site: the product.
        routing: its routing.
        routings: all of them, with the results of earlier products.
    """

    def __init__(self, site: Site, routing: Routing, routings: Routings) -> None:
        self._site, self._routing, self._routings = site, routing, routings
        self._parts: dict[tuple[int, ir.Value], Part | None] = {}
        self._rows: dict[ir.Value, ir.Value] = {}

    def of(self, value: ir.Value, expert: int) -> Part | None:
        """Return a value in the slots of an expert; None where nothing in it comes from these experts."""
        key = (expert, value)
        if key not in self._parts:
            self._parts[key] = None
            results = self._routings.results.get(value)
            if results is not None:
                self._parts[key] = self._found(results, expert) if results[0] is self._routing else None
            elif len(self._parts) <= _MOST * (expert + 1):
                self._parts[key] = self._made(value, expert)
        return self._parts[key]

    def _found(self, results: tuple[Routing, Sequence[ir.Value], int], expert: int) -> Part:
        shape = (self._routing.capacity, results[2])
        return Part(self._site.reshape(results[1][expert], shape), shape)

    def _pairs(self, shape: tuple[int, ...]) -> int | None:
        """Return how many leading dimensions count the pairs."""
        return next((n for n in range(1, len(shape) + 1) if math.prod(shape[:n]) == self._routing.pairs), None)

    def _made(self, value: ir.Value, expert: int) -> Part | None:
        node, shape = value.producer(), static_shape(value)
        lead = None if shape is None else self._pairs(shape)
        if node is None or node.domain != "" or lead is None:
            return None
        op = node.op_type
        if op in ONE_BY_ONE:
            return self._one_by_one(node, lead, expert)
        part = self.of(node.inputs[0], expert) if node.inputs and node.inputs[0] is not None else None
        if part is None:
            return None
        if op in VIEWS:
            return self._reshaped(part, shape_of(value)[lead:])
        if op in ("Slice", "Split"):
            return self._cut(node, value, lead, part)
        if op == "Transpose":
            return self._turned(node, lead, part)
        return self._along_last(node, part) if op in ALONG_LAST else None

    def _put(self, node: ir.Node, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr]) -> ir.Value:
        self._site.count += 1
        suffix = f".{node.op_type.lower()}{self._site.count}"
        return self._site.editor.insert(self._site.node, node.op_type, inputs, suffix=suffix, attributes=attributes)

    def _reshaped(self, part: Part, rest: tuple[int, ...]) -> Part:
        shape = (part.shape[0], *rest)
        return Part(self._site.reshape(part.value, shape), shape)

    def _one_by_one(self, node: ir.Node, lead: int, expert: int) -> Part | None:
        found = [None if value is None else self.of(value, expert) for value in node.inputs]
        if not any(found):
            return None
        rest, own = shape_of(node.outputs[0])[lead:], list[ir.Value | None]()
        for part, value in zip(found, node.inputs, strict=True):
            joining = part or (None if value is None else self._joining(value, node, lead, expert))
            if value is not None and joining is None:
                return None
            own.append(None if joining is None else self._aligned(joining, len(rest)))
        return Part(self._put(node, own, _attributes(node)), (self._routing.capacity, *rest))

    def _aligned(self, part: Part, rank: int) -> ir.Value:
        """Return a part with as many dimensions for a pair, so that pairs still meet pairs."""
        if len(part.rest) == rank:
            return part.value
        return self._site.reshape(part.value, (part.shape[0], *[1] * (rank - len(part.rest)), *part.rest))

    def _joining(self, value: ir.Value, node: ir.Node, lead: int, expert: int) -> Part | None:
        """Return what joins on the way: the same for all pairs, an expert's own, or picked by pairs."""
        whole, shape = shape_of(node.outputs[0]), shape_of(value)
        own = (1,) * (len(whole) - len(shape)) + shape
        if all(size == 1 for size in own[:lead]):
            return Part(self._site.reshape(value, (1, *own[lead:])), (1, *own[lead:]))
        if own[:lead] != whole[:lead]:
            return None
        return self._of_expert(value, own[lead:], expert) or self._picked(value, own[lead:], expert)

    def _of_expert(self, value: ir.Value, rest: tuple[int, ...], expert: int) -> Part | None:
        """A row of a constant table of the experts, such as their biases."""
        node = value.producer()
        while node is not None and node.op_type in VIEWS and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is None or node.op_type != "Gather" or int_attribute(node, "axis", 0) or node.inputs[1] is None:
            return None
        table = constant_array(node.inputs[0])
        if table is None or len(table) != self._routing.experts:
            return None
        if not self._routings.same(self._routing, trace(node.inputs[1])):
            return None
        return Part(self._site.constant(np.ascontiguousarray(table[expert]).reshape(1, *rest)), (1, *rest))

    def _picked(self, value: ir.Value, rest: tuple[int, ...], expert: int) -> Part:
        site, capacity = self._site, self._routing.capacity
        if value not in self._rows:
            rows = site.reshape(value, [self._routing.pairs, math.prod(rest)])
            self._rows[value] = site.op("Gather", rows, self._routing.order, axis=0)
        own = site.slice(self._rows[value], 0, expert * capacity, (expert + 1) * capacity)
        return Part(site.reshape(own, (capacity, *rest)), (capacity, *rest))

    def _cut(self, node: ir.Node, value: ir.Value, lead: int, part: Part) -> Part | None:
        """Cut a dimension of the pairs' own; several at once are left alone."""
        source = node.inputs[0]
        assert source is not None
        before, after = shape_of(source)[lead:], shape_of(value)[lead:]
        axes = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        if len(axes) != 1 or shape_of(source)[:lead] != shape_of(value)[:lead]:
            return None
        first = trace(value, until=source).at.reshape(-1)[: math.prod(after)]
        start = int(first[0]) // math.prod(before[axes[0] + 1 :])
        wanted = np.arange(math.prod(before)).reshape(before).take(range(start, start + after[axes[0]]), axis=axes[0])
        if not np.array_equal(first, wanted.reshape(-1)):
            return None
        cut = self._site.slice(part.value, axes[0] + 1, start, start + after[axes[0]])
        return Part(cut, (part.shape[0], *after))

    def _turned(self, node: ir.Node, lead: int, part: Part) -> Part | None:
        perm = list(node.attributes.get_ints("perm") or ())
        if perm[:lead] != list(range(lead)):
            return None
        own = [0, *(axis - lead + 1 for axis in perm[lead:])]
        return Part(self._site.transpose(part.value, own), tuple(part.shape[axis] for axis in own))

    def _along_last(self, node: ir.Node, part: Part) -> Part | None:
        rank = len(shape_of(node.outputs[0]))
        constant = all(constant_array(value) is not None for value in node.inputs[1:] if value is not None)
        if not part.rest or int_attribute(node, "axis", -1) not in (-1, rank - 1) or not constant:
            return None
        attributes = [*(each for each in _attributes(node) if each.name != "axis"), ir.AttrInt64("axis", -1)]
        return Part(self._put(node, [part.value, *node.inputs[1:]], attributes), part.shape)


def _attributes(node: ir.Node) -> list[ir.Attr]:
    return list(node.attributes.values())

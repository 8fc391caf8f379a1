"""Experts with a declared capacity: each works on so many rows of a window at most, which routing picks at run time.

A routing is a list of pairs (a row, an expert). The first C pairs of every expert, in the order in which the model
lists them, get slots 0 .. C - 1 of that expert; what is beyond is dropped and adds nothing to the result, as in GShard
(Lepikhin et al., 2020) and Switch Transformer (Fedus et al., 2021). How many pairs were dropped becomes an output.
C is a factor of the even share, pairs / experts, rounded up: the *capacity factor* of these papers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, int_attribute, is_constant, shape_of, static_shape
from .rewrite.site import Site
from .tracing import Origin, trace

VIEWS = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
DROPPED = "dropped_pairs"  # the output that says how many pairs of every routing were dropped, int64
ROUTING_KEY = "flexc.routing"
"""Metadata of the model, JSON: the factor, that output, pairs, experts and rows of routings, choices left ``open``."""


@dataclass(frozen=True)
class Routing:
    """Pairs of rows and experts, and where they lie among the slots of all experts.

    Attributes:
        experts, capacity, pairs: how many there are of each, slots for an expert.
        most: how many pairs an expert can get at most.
        order: the number of a pair in every slot, int64 [experts * capacity]; that of any pair where a slot is empty.
        slots: the slot of every pair, int64 [pairs]; 0 where it is dropped.
        kept: whether a pair has a slot, bool [pairs].
        dropped: how many have none, int64 [1].
    """

    experts: int
    capacity: int
    pairs: int
    most: int
    order: ir.Value
    slots: ir.Value
    kept: ir.Value
    dropped: ir.Value

    @property
    def may_drop(self) -> bool:
        """Whether an expert may get more pairs than it has slots."""
        return self.capacity < self.most


class Routings:
    """All routings of a model; equal ones are worked out once.

    ``results`` are products of pairs [pairs, width]: their routing, what each expert has in its slots, and the width.

    Args:
        factor: rows of an expert over its even share of the pairs; None: as many as there can be.
    """

    def __init__(self, factor: float | None) -> None:
        self._factor, self._open = factor, set[ir.Value]()
        self._known: dict[tuple[object, ...], Routing] = {}
        self._lists: dict[tuple[object, ...], ir.Value] = {}
        self.results: dict[ir.Value, tuple[Routing, Sequence[ir.Value], int]] = {}

    def of(self, site: Site, index: Origin, experts: int, rows: int) -> Routing | None:
        """Return the routing whose pairs are the elements of an index, in order; None where it would save nothing.

        TopK chooses no expert twice for a row, so that none needs more slots than there are rows; for a single row
        slots would cost more than they save.

        Args:
            site: a node that reads what the routing gives.
            index: the expert of every pair.
            experts: how many there are.
            rows: how many an expert works on without slots; 0 for each row once.
        """
        pairs, most = index.at.size, _rows(index)
        share = most if self._factor is None else round(self._factor * pairs / experts, 9)  # whole but for rounding
        capacity = min(max(1, math.ceil(share)), most)
        if capacity >= (rows or most) or most == 1:
            return None
        key = (index.value, index.at.tobytes(), experts)
        if key not in self._known:
            self._known[key] = _routing(site, _numbers(site, index, experts), (experts, capacity, pairs, most))
        return self._known[key]

    @property
    def declared(self) -> bool:
        """Whether a capacity was declared, so that pairs may be dropped."""
        return self._factor is not None

    def same(self, routing: Routing, index: Origin) -> bool:
        """Return whether an index, element by element, is what a routing's pairs come from."""
        return self._known.get((index.value, index.at.tobytes(), routing.experts)) is routing

    def leave(self, choice: ir.Value) -> None:
        """Note a choice of rows that keeps no capacity, as what makes it was not recognised."""
        self._open.add(choice)

    def rows(self, site: Site, routing: Routing, row_of: np.ndarray) -> ir.Value:
        """Return for every slot a number that belongs to its pair: ``row_of`` [pairs, ...] of it."""
        if row_of.ndim == 1 and np.array_equal(row_of, np.arange(routing.pairs)):
            return routing.order
        key = (routing.order, row_of.shape, row_of.tobytes())
        if key not in self._lists:
            self._lists[key] = site.op("Gather", site.constant(row_of.astype(np.int64)), routing.order, axis=0)
        return self._lists[key]

    def declare(self, model: ir.Model) -> None:
        """Make the numbers of dropped pairs an output of the model, where it has routings."""
        routings = list(self._known.values())
        facts: dict[str, object] = {"factor": self._factor, "open": len(self._open), "output": ""}
        facts["routings"] = [
            {"pairs": each.pairs, "experts": each.experts, "rows": each.capacity, "may_drop": each.may_drop}
            for each in routings
        ]
        if any(each.may_drop for each in routings):
            facts["output"] = _output(model.graph, routings)
        model.metadata_props[ROUTING_KEY] = json.dumps(facts, sort_keys=True)

    def spare(self, node: ir.Node, editor: Editor) -> bool:
        """Let pairs that were dropped pick zeros from a constant table of the experts, such as their biases."""
        table, index = (*node.inputs, None)[:2]
        if node.op_type != "Gather" or int_attribute(node, "axis", 0) or index is None or not is_constant(table):
            return False
        array = constant_array(table)
        if array is None or array.ndim < 2 or array.dtype.kind != "f" or static_shape(index) is None:
            return False
        origin = trace(index)
        routing = self._known.get((origin.value, origin.at.tobytes(), len(array))) or self._beside(node.outputs[0])
        if routing is None or routing.experts != len(array) or routing.pairs != origin.at.size:
            return False
        site = Site(node, editor)
        wider = site.constant(np.concatenate([array, np.zeros_like(array[:1])]))
        index = site.cast(index, ir.DataType.INT64)
        chosen = site.op("Where", site.reshape(routing.kept, origin.at.shape), index, _whole(site, len(array)))
        return site.done(site.op("Gather", wider, chosen, axis=0))

    def _beside(self, value: ir.Value) -> Routing | None:
        """Return the routing to whose results a value is added, both seen through views."""
        users = [use.node for use in value.uses()]
        while len(users) == 1 and users[0].op_type in VIEWS:
            value = users[0].outputs[0]
            users = [use.node for use in value.uses()]
        others = [each for node in users if node.op_type == "Add" for each in node.inputs if each is not value]
        return next((routing for each in others if (routing := self._result(each)) is not None), None)

    def _result(self, value: ir.Value | None) -> Routing | None:
        while value is not None and value not in self.results:
            node = value.producer()
            value = node.inputs[0] if node is not None and node.op_type in VIEWS else None
        return None if value is None else self.results[value][0]


def _rows(index: Origin) -> int:
    """Return how many rows an index chooses experts for; where no TopK makes it each may be one of its own."""
    node = index.value.producer()
    alone = node is None or node.op_type != "TopK" or index.at.size != math.prod(shape_of(index.value))
    return index.at.size if alone else math.prod(shape_of(index.value)[:-1])


def _output(graph: ir.Graph, routings: Sequence[Routing]) -> str:
    """Add the output that says how many pairs were dropped, and return its name."""
    taken = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
    name = DROPPED if DROPPED not in taken else f"flexc_{DROPPED}"
    node = ir.Node("", "Concat", [each.dropped for each in routings], [ir.AttrInt64("axis", 0)], name=name)
    (output,) = node.outputs
    output.name, output.type = name, ir.TensorType(ir.DataType.INT64)
    output.shape = ir.Shape([len(routings)])
    graph.append(node)
    graph.outputs.append(output)
    return name


def _numbers(site: Site, index: Origin, experts: int) -> ir.Value:
    """Return the expert of every pair, int64 [pairs]; one below 0 counts from the end, as in ONNX."""
    flat = site.reshape(index.value, [-1])
    if not index.in_order:
        flat = site.op("Gather", flat, site.constant(index.at.reshape(-1).astype(np.int64)), axis=0)
    flat = site.cast(flat, ir.DataType.INT64)
    maker = index.value.producer()
    if maker is not None and maker.op_type in ("TopK", "ArgMax"):
        return flat
    return site.op("Where", site.op("Less", flat, _whole(site, 0)), site.op("Add", flat, _whole(site, experts)), flat)


def _whole(site: Site, number: int) -> ir.Value:
    return site.constant(np.array(number, np.int64))


def _routing(site: Site, expert: ir.Value, sizes: tuple[int, int, int, int]) -> Routing:
    """Emit slots and their pairs: an expert's pairs are counted along the list, and written at their count."""
    experts, capacity, pairs, _ = sizes
    slots, every = experts * capacity, np.arange(pairs, dtype=np.int64)
    place = _places(site, expert, experts, pairs)
    found = site.op("GreaterOrEqual", place, _whole(site, 0))
    kept = site.op("And", found, site.op("Less", place, _whole(site, capacity)))
    slot = site.op("Add", site.op("Mul", expert, _whole(site, capacity)), place)
    target = site.op("Where", kept, slot, site.constant(slots + every))
    empty = site.constant(np.zeros(slots + pairs, np.int64))
    order = site.op("ScatterElements", empty, target, site.constant(every), axis=0)
    lost = site.reduce("ReduceSum", site.cast(site.op("Not", kept), ir.DataType.INT32), [0])
    return Routing(
        *sizes,
        site.slice(order, 0, 0, slots),
        site.op("Where", kept, slot, _whole(site, 0)),
        kept,
        site.cast(lost, ir.DataType.INT64),
    )


def _places(site: Site, expert: ir.Value, experts: int, pairs: int) -> ir.Value:
    """Return how many pairs of its expert come before each, int64 [pairs]; -1 where there is no such expert."""
    column = site.constant(np.arange(experts, dtype=np.int64).reshape(-1, 1))
    hit = site.cast(site.op("Equal", site.reshape(expert, [1, pairs]), column), ir.DataType.INT32)
    count = site.op("CumSum", hit, _whole(site, 1))
    own = site.reduce("ReduceSum", site.op("Mul", hit, count), [0], keepdims=False)
    return site.op("Sub", site.cast(own, ir.DataType.INT64), _whole(site, 1))


def chooser(mask: ir.Value) -> tuple[Origin, int, int] | None:
    """Return what a mask asks of: an index, the expert whose pairs the mask has, and how many experts there are.

    A mask is ``index == expert``, or that expert's part of a one-hot index, and the index is what TopK or ArgMax of
    the experts' scores gives.
    """
    origin = trace(mask)
    node = origin.value.producer()
    while node is not None and node.op_type == "Where" and (inner := _condition(node, origin)) is not None:
        origin = inner
        node = origin.value.producer()
    if node is None or node.op_type != "Equal" or node.domain != "":
        return None
    for place in (0, 1):
        index, number = node.inputs[place], constant_array(node.inputs[1 - place])
        if index is None or number is None:
            continue
        shape = shape_of(node.outputs[0])
        asked = np.unique(np.broadcast_to(number, shape).reshape(-1)[origin.at])
        places = np.broadcast_to(np.arange(math.prod(shape_of(index))).reshape(shape_of(index)), shape)
        source = _index(index)
        experts = _choices(source.value)
        if asked.size == 1 and experts and 0 <= asked[0] < experts:
            return Origin(source.value, source.at.reshape(-1)[places.reshape(-1)[origin.at]]), int(asked[0]), experts
    return None


def _condition(node: ir.Node, origin: Origin) -> Origin | None:
    """Look through a choice between 1 and 0, as one-hot vectors are written."""
    condition, on, off = node.inputs
    ones, zeros = constant_array(on), constant_array(off)
    if condition is None or ones is None or zeros is None or not ones.all() or zeros.any():
        return None
    if static_shape(condition) != shape_of(node.outputs[0]):
        return None
    inner = trace(condition)
    return Origin(inner.value, inner.at.reshape(-1)[origin.at])


def _index(value: ir.Value) -> Origin:
    """Trace an index, also through what counts one below 0 from the end."""
    origin = trace(value)
    node = origin.value.producer()
    if node is None or node.op_type != "Where" or node.inputs[2] is None:
        return origin
    condition = node.inputs[0].producer() if node.inputs[0] is not None else None
    if condition is None or condition.op_type != "Less" or condition.inputs[0] is not node.inputs[2]:
        return origin
    inner = trace(node.inputs[2])
    return Origin(inner.value, inner.at.reshape(-1)[origin.at])


def _choices(index: ir.Value) -> int:
    """Return among how many an index chooses, 0 where that is not known."""
    node = index.producer()
    if node is None or node.op_type not in ("TopK", "ArgMax") or node.inputs[0] is None:
        return 0
    return shape_of(node.inputs[0])[int_attribute(node, "axis", -1 if node.op_type == "TopK" else 0)]

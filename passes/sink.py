"""Sinking: what only the turns of a recurrence read, slice by slice, is computed slice by slice in the turns.

A selective scan reads exp(dt * A) one step at a time; computed for all steps at once it is the largest tensor of the
model, written to memory and read back. Computed in its turn it is made of two small slices and never leaves the chip.
Only elementwise nodes whose broadcast makes them larger than what they read are sunk, and what leads from them to the
slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.operators import OPERATORS
from .emit import LINEAR_KEY, pin_of
from .periods import MIN_TURNS

#: How many times larger than what it reads a tensor must be.
_GROWTH = 2


def sink(model: ir.Model) -> int:
    """Compute elementwise results that are only read in slices where the slices are read; return how many there were.

    The graph is changed in place and computes the same. Linear in nodes: each is looked at once, readers first.
    """
    slicer = _Slicer(model.graph)
    found = 0
    for node in reversed(list(model.graph)):
        axis = _sliced_axis(node)
        if axis is not None and _grows(node, axis):
            slicer.sink(node, axis)
            found += 1
    return found


def _is_elementwise(node: ir.Node) -> bool:
    operator = OPERATORS.get(node.op_type) if node.domain == "" else None
    plain = operator is not None and operator.kind == "row" and len(node.outputs) == 1
    return plain and LINEAR_KEY not in node.metadata_props and not pin_of(node)


def _sliced_axis(node: ir.Node) -> int | None:
    """Return the axis along which all readers of an elementwise result take one slice each, or None."""
    if not _is_elementwise(node) or node.outputs[0].is_graph_output():
        return None
    shape = shape_of(node.outputs[0])
    picks = [_picked(use.node, shape) if use.idx == 0 else None for use in node.outputs[0].uses()]
    found = {pick for pick in picks if pick is not None}
    axes = {axis for axis, _ in found}
    if None in picks or len(axes) != 1 or len(found) != len(picks):
        return None
    axis = axes.pop()
    return axis if len(found) == shape[axis] >= MIN_TURNS else None


def _picked(node: ir.Node, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the axis and the place of the one slice that a Gather takes of a value of that shape, or None."""
    index = node.inputs[1] if node.op_type == "Gather" and node.domain == "" else None
    if index is None or index.const_value is None or shape_of(index) != ():
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    return axis, int(index.const_value.numpy()) % shape[axis]


def _grows(node: ir.Node, axis: int) -> bool:
    """Return whether a result is larger than the slices it is made of, seen through nodes that can be sunk too."""
    size = math.prod(shape_of(node.outputs[0]))
    small = 0
    for value in node.inputs:
        place = None if value is None else _axis_of(value, node.outputs[0], axis)
        if value is None or place is None or shape_of(value)[place] == 1:
            continue
        if value.const_value is not None:
            return False
        if _GROWTH * math.prod(shape_of(value)) <= size:
            small += math.prod(shape_of(value))
        elif not _leads_on(value, place):
            return False
    return _GROWTH * small <= size


def _leads_on(value: ir.Value, axis: int) -> bool:
    """Return whether a large operand is itself made of small ones, for this reader alone."""
    maker = value.producer()
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return maker is not None and alone and _is_elementwise(maker) and _grows(maker, axis)


def _axis_of(value: ir.Value, result: ir.Value, axis: int) -> int | None:
    """Return which axis of an operand an axis of the result is, or None where broadcasting adds it."""
    place = axis - (len(shape_of(result)) - len(shape_of(value)))
    return place if place >= 0 else None


@dataclass
class _Slicer:
    """Writes slices into a graph."""

    graph: ir.Graph

    def __post_init__(self) -> None:
        self.constants: dict[object, ir.Value] = {}
        self.taken = set(self.graph.initializers)

    def sink(self, node: ir.Node, axis: int) -> None:
        """Put copies of a node where slices of its result are read, and remove it."""
        picks: dict[ir.Node, None] = dict.fromkeys(use.node for use in node.outputs[0].uses())
        for pick in picks:
            found = _picked(pick, shape_of(node.outputs[0]))
            assert found is not None
            self._copy(node, axis, found[1], pick)
        self.graph.remove(node, safe=True)

    def _copy(self, node: ir.Node, axis: int, turn: int, pick: ir.Node) -> None:
        inputs = [value and self._slice(value, node, axis, turn, pick) for value in node.inputs]
        new = ir.Node("", node.op_type, inputs, node.attributes.values(), name=f"{node.name}/{pick.name}")
        new.metadata_props.update(node.metadata_props)
        old, made = pick.outputs[0], new.outputs[0]
        made.name, made.type, made.shape = f"{node.name}/{old.name}", old.type, old.shape
        self.graph.insert_before(pick, new)
        old.replace_all_uses_with(made, replace_graph_outputs=True)
        if old.is_graph_output():
            made.name = old.name
        self.graph.remove(pick, safe=True)

    def _slice(self, value: ir.Value, node: ir.Node, axis: int, turn: int, pick: ir.Node) -> ir.Value:
        place = _axis_of(value, node.outputs[0], axis)
        if place is None:
            return value
        if value.const_value is not None:
            return self._constant(value, place)
        shape = shape_of(value)
        index = self._number(turn if shape[place] > 1 else 0)
        gather = ir.Node("", "Gather", [value, index], [ir.AttrInt64("axis", place)])
        gather.name = f"{node.name}/{value.name}/{pick.name}"
        made = gather.outputs[0]
        made.name, made.type = gather.name, value.type
        made.shape = ir.Shape([*shape[:place], *shape[place + 1 :]])
        self.graph.insert_before(pick, gather)
        return made

    def _constant(self, value: ir.Value, place: int) -> ir.Value:
        """Return a constant without an axis of size 1."""
        key = (value, place)
        if key not in self.constants:
            assert value.const_value is not None
            array = value.const_value.numpy().squeeze(place)
            self.constants[key] = self._register(f"{value.name}/slice", array)
        return self.constants[key]

    def _number(self, number: int) -> ir.Value:
        if number not in self.constants:
            self.constants[number] = self._register(f"slice/{number}", np.array(number, np.int64))
        return self.constants[number]

    def _register(self, wished: str, array: np.ndarray) -> ir.Value:
        name, count = wished, 0
        while name in self.taken:
            count += 1
            name = f"{wished}_{count}"
        self.taken.add(name)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

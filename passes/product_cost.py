"""Where products of two activations run: the array or the vector unit, whichever the instructions' durations favour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa import durations
from ..isa.instruction import Operands
from ..isa.streams import Stream
from .estimate import estimate
from .mapping import LinearShape, choose, groups_of
from .pattern import DENSE
from .products import find_products, quantise_products, trail_of
from .tail_cost import TailCost

if TYPE_CHECKING:
    from ..isa.machine import Machine

ENGINES = ("auto", "array", "vector")
"""What can be wished for a product of activations; ``auto`` is the faster one."""

WHY_KEY = "flexc.why"
"""Metadata key of a product of activations: where it runs, with both estimates."""


@dataclass(frozen=True)
class ProductCost:
    """Estimated cycles of one product; ``array`` is None where it cannot be mapped."""

    array: int | None
    vector: int

    @property
    def faster(self) -> str:
        """The engine that takes less time."""
        return "array" if self.array is not None and self.array < self.vector else "vector"

    def __str__(self) -> str:
        array = "does not fit the array" if self.array is None else f"array {self.array:_} cycles"
        return f"{array}, vector unit {self.vector:_}".replace("_", " ")


def place_products(model: ir.Model, machine: Machine, wish: Callable[[ir.Node], str] = lambda _node: "auto") -> None:
    """Bring products of activations that run on the array into integer form; note on all where they run and why.

    Args:
        model: a quantised graph; changed.
        machine: what to run it on.
        wish: for a product, ``array``, ``vector``, or ``auto`` for the faster one.
    """
    chosen = {node for node in find_products(model) if _choose(node, machine, wish(node)) == "array"}
    quantise_products(model, chosen.__contains__)


def _choose(node: ir.Node, machine: Machine, wish: str) -> str:
    cost = product_cost(node, machine)
    engine = cost.faster if wish == "auto" or cost.array is None else wish
    asked = "" if wish == "auto" else f"asked for {wish}; "
    node.metadata_props[WHY_KEY] = f"product of activations: {asked}{cost}"
    return engine


def writing(machine: Machine) -> Machine:
    """Return a machine as products see it: weights that are made at run time are resident nowhere."""
    array = machine.array
    return replace(machine, array=replace(array, resident=False, weight_sets=array.weight_sets or 2))


def column_boxes(
    m: int, k: int, n: int, machine: Machine, tail: TailCost | None = None
) -> list[tuple[int, LinearShape]]:
    """Return (first column, shape to be mapped) of as many columns as fill whole column groups, and of the rest.

    Groups are as wide as the macros and the buffer allow; an empty list says that even those of one macro do not fit.
    A ``tail`` that works on whole rows needs all columns in one box.
    """
    if tail is not None and tail.whole:
        every = LinearShape(m, k, n, DENSE, written=True, tail=tail)
        return [(0, every)] if choose(every, writing(machine)) else []
    macros = machine.array.macros
    while macros:
        whole = n - n % (machine.array.columns * macros)
        cuts = [(start, end - start) for start, end in ((0, whole), (whole, n)) if start < end]
        boxes = [(start, LinearShape(m, k, columns, DENSE, written=True, tail=tail)) for start, columns in cuts]
        if all(choose(shape, writing(machine)) for _, shape in boxes):
            return boxes
        macros //= 2
    return []


def product_cost(node: ir.Node, machine: Machine) -> ProductCost:
    """Return the estimated cycles of a MatMul of two activations on either engine, quantisation included."""
    left, right = (value for value in node.inputs if value is not None)
    (m, k), n = shape_of(left)[-2:], shape_of(right)[-1]
    parts = prod(shape_of(node.outputs[0])[:-2])
    vector = _vector_cycles(parts, m, k, n, machine)
    boxes = column_boxes(m, k, n, machine)
    if not boxes:
        return ProductCost(None, vector)
    array = sum(_array_cycles(shape, parts, writing(machine)) for _, shape in boxes)
    quantised = sum(_quantise_cycles(value, machine) for value in (left, right))
    return ProductCost(array + quantised, vector)


def _array_cycles(shape: LinearShape, parts: int, machine: Machine) -> int:
    mapping = choose(shape, machine)
    assert mapping is not None
    every = replace(mapping, shape=replace(shape, rows=parts * shape.rows))
    return estimate(every, groups_of(every, machine), machine)


def _vector_cycles(parts: int, m: int, k: int, n: int, machine: Machine) -> int:
    """Return the cycles of a product on the vector unit: its multiply-adds, or its operands coming and going."""
    a, b, y = (Stream.dense("dram", "f32", 0, *shape) for shape in ((parts * m, k), (parts * k, n), (parts * m, n)))
    work = durations.vector_matmul(Operands(machine, {}, {"a": a, "dst": y})).busy
    return max(work, durations.transfer([a, b, y], [], machine).busy)


def _quantise_cycles(value: ir.Value, machine: Machine) -> int:
    """Return the cycles of quantising a value by rows: greatest magnitude of each, then the codes."""
    shape = shape_of(trail_of(value).base)
    rows, cols = prod(shape[:-1]), shape[-1]
    source, codes = (Stream.dense("dram", dtype, 0, rows, cols) for dtype in ("f32", "i8"))
    operands = Operands(machine, {}, {"dst": codes, "a": source})
    magnitude, peak, quantise = durations.VectorRule(1), durations.VectorRule(1, over="a"), durations.VectorRule(2, 1)
    work = sum(rule(operands).busy for rule in (magnitude, peak, quantise))
    return max(work, durations.transfer([source, codes], [], machine).busy)

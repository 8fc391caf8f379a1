"""What linears cost on a machine in every pattern: the linear alone, lowered and timed as the whole program would be.

Kernels run one after another, a barrier between them, so the cost of a linear is the same alone as among others, and
what a program costs is a sum. What other kernels take is found from the timed program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from flexc.backend.lower import lower
from flexc.emulation import Cost
from flexc.frontend.edit import shape_of
from flexc.frontend.linears import Linear, find_linears, replace_weight
from flexc.isa.errors import FlexcError
from flexc.layers import products, products_of
from flexc.passes.emit import pin_of
from flexc.passes.pattern import NM
from flexc.passes.product_cost import place_products
from flexc.passes.prune import NM_KEY
from flexc.passes.quantise import quantise
from flexc.passes.sink import sink

if TYPE_CHECKING:
    from flexc.isa.machine import Machine


def quantise_for(model: ir.Model, machine: Machine, attention: str = "auto") -> ir.Model:
    """Return the graph that is lowered: quantised, products of two activations placed on their engine.

    What only the turns of recurrences read is computed there, see :mod:`flexc.passes.sink`.
    """
    quantised = quantise(model)
    place_products(quantised, machine, lambda node: pin_of(node) or attention)
    sink(quantised)
    return quantised


def time_patterns(model: ir.Model, patterns: Mapping[str, NM], machine: Machine, attention: str = "auto") -> Cost:
    """Quantise, lower and time a float model whose linears have these patterns, whatever its weights are.

    Raises:
        FlexcError: the machine cannot run it.
    """
    trial = model.clone()
    for linear in find_linears(trial):
        nm = patterns.get(linear.name)
        if nm is not None:
            linear.node.metadata_props[NM_KEY] = str(nm)
            replace_weight(trial, linear, _just(nm, linear))
    return Cost.of(lower(quantise_for(trial, machine, attention), machine))


def _just(nm: NM, linear: Linear) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return a matrix [n, k] that has just a pattern."""
    row = (np.arange(linear.k) % nm.m < nm.n).astype(np.float32)
    return np.broadcast_to(row, (linear.n, linear.k))


class LinearCosts:
    """Cycles and picojoules of linears in patterns, each distinct shape and pattern measured once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known: dict[tuple[object, ...], tuple[float, float]] = {}

    def cycles(self, linear: Linear, nm: NM) -> float:
        """Cycles of a window."""
        return self._measured(linear, nm)[0]

    def energy(self, linear: Linear, nm: NM) -> float:
        """Picojoules of a window."""
        return self._measured(linear, nm)[1]

    def _measured(self, linear: Linear, nm: NM) -> tuple[float, float]:
        source = linear.node.inputs[0]
        assert source is not None, "a linear has an input"
        attributes = tuple(sorted(str(attribute) for attribute in linear.node.attributes.values()))
        key = (linear.node.op_type, shape_of(source), shape_of(linear.weight), attributes, nm)
        if key not in self._known:
            self._known[key] = self._measure(linear, nm)
        return self._known[key]

    def _measure(self, linear: Linear, nm: NM) -> tuple[float, float]:
        graph = quantise(alone(linear, nm))
        try:
            program = lower(graph, self._machine)
        except FlexcError:
            return 0.0, 0.0  # it does not fit the machine, and nor would the program: lowering that says so
        cost, nodes = Cost.of(program), products(graph)
        layers = [layer for op, layer in zip(program.debug.ops, cost.layers, strict=True) if products_of(op, nodes)]
        return float(sum(layer.cycles for layer in layers)), sum(layer.energy_pj for layer in layers)


def alone(linear: Linear, nm: NM) -> ir.Model:
    """Return a model of one linear by itself, its weight filled so that it has just the pattern."""
    node, source = linear.node, linear.node.inputs[0]
    assert source is not None, "a linear has an input"
    tensor = ir.Tensor(linear.to_weight(_just(nm, linear)), name="weight")
    weight = ir.Value(name="weight", shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    entry = ir.Value(name="x", shape=source.shape, type=source.type)
    copy = ir.Node("", node.op_type, [entry, weight], node.attributes.values(), name="linear")
    copy.outputs[0].name = "y"
    copy.outputs[0].shape, copy.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    copy.metadata_props[NM_KEY] = str(nm)
    version = linear.node.graph.opset_imports.get("", 21) if linear.node.graph is not None else 21
    graph = ir.Graph(
        [entry], copy.outputs, nodes=[copy], initializers=[weight], opset_imports={"": version}, name="alone"
    )
    return ir.Model(graph, ir_version=10)

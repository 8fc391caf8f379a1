"""What a model and its linears cost on a machine in every pattern: programs lowered and timed, whatever the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from flexc.backend.lower import lower
from flexc.emulation import Cost
from flexc.frontend.linears import Linear, find_linears, replace_weight
from flexc.layers import products, products_of
from flexc.passes.emit import LINEAR_KEY, pin_of
from flexc.passes.pattern import DENSE, NM
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
    return Cost.of(lower(quantise_for(_with_patterns(model, patterns), machine, attention), machine))


def _with_patterns(model: ir.Model, patterns: Mapping[str, NM]) -> ir.Model:
    """Return a copy of the model whose linears have these patterns, and weights that are just that."""
    trial = model.clone()
    for linear in find_linears(trial):
        nm = patterns.get(linear.name)
        if nm is not None:
            linear.node.metadata_props[NM_KEY] = str(nm)
            replace_weight(trial, linear, _just(nm, linear))
    return trial


def _just(nm: NM, linear: Linear) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return a matrix [n, k] that has just a pattern."""
    row = (np.arange(linear.k) % nm.m < nm.n).astype(np.float32)
    return np.broadcast_to(row, (linear.n, linear.k))


class PatternCosts:
    """Cycles and picojoules of a model's linears in patterns, as programs that have one pattern throughout show them.

    A linear alone would not do: what is fused with it, and what is brought in ahead while it runs, is decided among its
    neighbours. What an op takes is its linear's, and so are the ops after it up to the next linear's, so that all that
    linears take, and what comes before the first, add up to the program.
    """

    def __init__(self, model: ir.Model, linears: Sequence[Linear], machine: Machine, attention: str = "auto") -> None:
        self._model, self._machine, self._attention = model, machine, attention
        self._linears = linears
        self._known: dict[NM, tuple[Cost, dict[str, _Taken]]] = {}

    def cycles(self, linear: Linear, nm: NM) -> float:
        """Cycles of a window.

        Raises:
            FlexcError: the machine cannot run the program.
        """
        return self._of(nm)[1][linear.name].cycles

    def energy(self, linear: Linear, nm: NM) -> float:
        """Picojoules of a window.

        Raises:
            FlexcError: the machine cannot run the program.
        """
        return self._of(nm)[1][linear.name].energy_pj

    def program(self, nm: NM) -> Cost:
        """Return the cost of the program that has a pattern throughout.

        Raises:
            FlexcError: the machine cannot run it.
        """
        return self._of(nm)[0]

    def throughout(self, nm: NM) -> dict[str, NM]:
        """Return the patterns of linears in that program: dense where a linear is so small that none is left out."""
        return {linear.name: nm if nm.kept(linear.k) < linear.k else DENSE for linear in self._linears}

    def _of(self, nm: NM) -> tuple[Cost, dict[str, _Taken]]:
        if nm not in self._known:
            self._known[nm] = self._measure(nm)
        return self._known[nm]

    def _measure(self, nm: NM) -> tuple[Cost, dict[str, _Taken]]:
        patterns = self.throughout(nm)
        graph = quantise_for(_with_patterns(self._model, patterns), self._machine, self._attention)
        cost = Cost.of(lower(graph, self._machine))
        found = {name: _Taken() for name in patterns}
        nodes, taking = products(graph), list[_Taken]()
        for op, layer in zip(cost.program.debug.ops, cost.layers, strict=True):
            owners = [node.metadata_props.get(LINEAR_KEY, "") for node in products_of(op, nodes)]
            taking = [found[name] for name in owners if name in found] or taking
            for each in taking:
                each.cycles += layer.cycles / len(taking)
                each.energy_pj += layer.energy_pj / len(taking)
        return cost, found


@dataclass
class _Taken:
    cycles: float = 0.0
    energy_pj: float = 0.0

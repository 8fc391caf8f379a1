"""What a model's shapes and shape arithmetic come to at given input sizes: a trial simplification, thrown away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from ..isa.errors import FlexcError
from .edit import Editor, constant_array, static_shape
from .infer import Spec
from .routing import Routings
from .simplify import Simplifier


@dataclass
class Facts:
    """By name of a value: shape and type, and its numbers where a node gets them from constants and shapes alone.

    ``problem`` is the first node that could not be understood.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: dict[str, ir.DataType] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    problem: FlexcError | None = None


def probe(model: ir.Model, size: Callable[[ir.Graph], None], where: str) -> Facts:
    """Return what is known of every value of ``model`` at the sizes that ``size`` gives to the inputs of a copy.

    Nodes that cannot be understood at these sizes, and what follows from them, are left out.
    """
    trial = model.clone()
    size(trial.graph)
    prober = _Prober(trial, where)
    with contextlib.suppress(FlexcError):
        prober.run()
    return prober.facts


class _Prober(Simplifier):
    """Follows a graph as the simplifier does, changes no operator, and notes what it learns."""

    def __init__(self, model: ir.Model, where: str) -> None:
        self.facts = Facts()
        super().__init__(model, where)
        for value in (*model.graph.inputs, *model.graph.initializers.values()):
            self._note_shape(value)

    def _edits(self, _routings: Routings) -> Editor:
        return _Noting(self._graph, self.facts)

    def _visit(self, node: ir.Node) -> None:
        try:
            super()._visit(node)
        except FlexcError as error:
            self.facts.problem = self.facts.problem or error
            raise

    def _infer(self, node: ir.Node) -> list[Spec]:
        specs = super()._infer(node)
        for value in node.outputs:
            self._note_shape(value)
        return specs

    def _rewrite(self, node: ir.Node) -> None:
        """Leave every operator as it is."""

    def _note_shape(self, value: ir.Value) -> None:
        shape = static_shape(value)
        if value.name and shape is not None:
            self.facts.shapes[str(value.name)] = shape
        if value.name and value.dtype is not None:
            self.facts.types[str(value.name)] = value.dtype


class _Noting(Editor):
    """Notes the numbers of values that constants take the place of."""

    def __init__(self, graph: ir.Graph, facts: Facts) -> None:
        super().__init__(graph)
        self._facts = facts

    def substitute(self, node: ir.Node, values: Sequence[ir.Value]) -> None:
        """Note which numbers take the place of a node's outputs."""
        for old, new in zip(node.outputs, values, strict=True):
            array = constant_array(new)
            if old.name and array is not None:
                self._facts.arrays[str(old.name)] = array
        super().substitute(node, values)

"""Segments of a graph as onnxruntime sessions, run over several windows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..processors import usable_processors
from ..session import Session
from .cuts import Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Values = dict[str, "Array"]
"""Values of one window, by name."""


def weight_input(linear: str) -> str:
    """Name the input through which an open segment takes a linear's weight."""
    return f"weight of {linear}"


class Stage:
    """One segment of a model.

    Args:
        model: the graph that the segment is of.
        segment: which part.
        opened: take the weights of the segment's linears as inputs, called :func:`weight_input`; else they are
            constants, which onnxruntime lays out for its kernels once.
        weights: constants to take the place of the model's own, by linear name, in the weight's own layout.
        threads: threads within an operator.
    """

    def __init__(
        self,
        model: ir.Model,
        segment: Segment,
        *,
        opened: bool = False,
        weights: Mapping[str, Array] | None = None,
        threads: int = 1,
    ) -> None:
        self._outputs = list(segment.outputs)
        self._session = None
        if segment.nodes:
            part = _extract(model, segment)
            if opened:
                _open(part, segment.linears)
            elif weights:
                _replace(part, {name: weights[name] for name in segment.linears if name in weights})
            self._session = Session(part, threads=threads)

    def run(self, values: Mapping[str, Array], weights: Mapping[str, Array] | None = None) -> Values:
        """Run on the values of one window; an open segment takes `weights` by linear name, in their own layout."""
        if self._session is None:
            return {}
        if weights:
            values = {**values, **{weight_input(name): array for name, array in weights.items()}}
        return self._session.run(values, self._outputs)


class Workers:
    """Threads that take a window each; sessions then need only one thread of their own."""

    def __init__(self, windows: int) -> None:
        cores = usable_processors()
        self.count = max(1, min(cores, windows))
        self.threads = max(1, cores // self.count)
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None

    def map(self, work: Callable[[int], Any], count: int) -> list[Any]:
        """Return work(0), ..., work(count - 1)."""
        if self._pool is None:
            return [work(index) for index in range(count)]
        return list(self._pool.map(work, range(count)))


def _extract(model: ir.Model, segment: Segment) -> ir.Model:
    """Return the segment as a model of its own; the weights are shared, not copied."""
    graph = ir.convenience.extract(model.graph, list(segment.inputs), list(segment.outputs))
    return ir.Model(graph, ir_version=model.ir_version)


def _open(part: ir.Model, linears: Sequence[str]) -> None:
    """Let the weights of linears be inputs."""
    for node in _named(part, linears):
        old = node.inputs[1]
        assert old is not None, "a linear has a weight"
        value = ir.Value(name=weight_input(str(node.name)), shape=old.shape, type=old.type)
        part.graph.inputs.append(value)
        _swap(part, node, value)


def _replace(part: ir.Model, weights: Mapping[str, Array]) -> None:
    """Let linears have other weights of the same shape."""
    for node in _named(part, list(weights)):
        name = weight_input(str(node.name))
        tensor = ir.Tensor(weights[str(node.name)], name=name)
        value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        part.graph.register_initializer(value)
        _swap(part, node, value)


def _named(part: ir.Model, names: Sequence[str]) -> list[ir.Node]:
    wanted = set(names)
    return [node for node in part.graph if node.name in wanted]


def _swap(part: ir.Model, node: ir.Node, weight: ir.Value) -> None:
    """Give a linear another weight, and drop the old one where nobody else reads it."""
    old = node.inputs[1]
    node.replace_input_with(1, weight)
    if old is not None and not old.uses():
        part.graph.initializers.pop(str(old.name), None)

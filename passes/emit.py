"""Emission of the nodes that replace one linear: names, metadata, dtypes and shapes set on everything made."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of

LINEAR_KEY = "flexc.linear"
"""Metadata key of every node that a linear became: the linear's name."""

ROLE_KEY = "flexc.role"
"""Metadata key that says what such a node is for, see :data:`Role`."""

PIN_KEY = "flexc.pin"
"""Metadata key of a node that the user wants on a certain engine: ``array``, ``vector`` or ``host``."""

PIN_NM_KEY = "flexc.pin_nm"
"""Metadata key of a linear's node whose N:M pattern the user fixed: ``4:8`` or ``dense``."""

Role = Literal["quantise", "multiply", "dequantise", "reshape", "bias"]

_AXES_INPUT_SINCE = {"ReduceSum": 13, "ReduceMax": 18, "ReduceSumSquare": 18}
"""The opset from which a reduction takes its axes as an input; as an attribute before."""


def pin_of(node: ir.Node) -> str:
    """Return the engine that the user wants a node on, or an empty string."""
    return node.metadata_props.get(PIN_KEY, "")


@dataclass
class Emitter:
    """Collects the new nodes of one linear; each is named ``<linear>/<what>``, made unique among the names `taken`."""

    graph: ir.Graph
    opset: int
    taken: set[str]
    linear: str
    nodes: list[ir.Node] = field(default_factory=list)
    #: Constants that nodes of several linears may read, by a key of their makers' choice.
    known: dict[Hashable, list[ir.Value]] = field(default_factory=dict)

    @staticmethod
    def names_of(graph: ir.Graph) -> set[str]:
        """Return the names of all nodes and values of a graph, for `taken`."""
        taken = {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
        for node in graph.all_nodes():
            taken.add(str(node.name))
            taken.update(str(value.name) for value in node.outputs)
        return taken

    def unique(self, what: str) -> str:
        """Return ``<linear>/<what>``, with the first number that makes it new to the graph where it is not."""
        name = candidate = f"{self.linear}/{what}"
        number = 1
        while candidate in self.taken:
            number += 1
            candidate = f"{name}_{number}"
        self.taken.add(candidate)
        return candidate

    def constant(self, what: str, array: np.ndarray[Any, Any]) -> ir.Value:
        """Register an initializer."""
        name = self.unique(what)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def shared(self, what: str, array: np.ndarray[Any, Any], key: Hashable) -> ir.Value:
        """Return an initializer that may already be there: ``key`` is equal for equal arrays, and tells most apart."""
        same = self.known.setdefault((what, array.shape, key), [])
        for value in same:
            if value.const_value is not None and np.array_equal(value.const_value.numpy(), array):
                return value
        same.append(self.constant(what, array))
        return same[-1]

    def node(
        self,
        op: str,
        what: str,
        role: Role | None,
        inputs: Sequence[ir.Value],
        shape: Sequence[int],
        *,
        dtype: ir.DataType = ir.DataType.FLOAT,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Append a node with one output of `shape` and `dtype`, and return that output; no role, no metadata."""
        name = self.unique(what)
        metadata = {LINEAR_KEY: self.linear, ROLE_KEY: role} if role else {}
        node = ir.node(op, inputs, attributes, name=name, metadata_props=metadata)
        output = node.outputs[0]
        output.name, output.dtype, output.shape = name, dtype, ir.Shape(list(shape))
        self.nodes.append(node)
        return output

    def reshape(self, what: str, role: Role | None, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Append a Reshape of a float `value` to `shape`, or return `value` when it has that shape already."""
        if shape_of(value) == tuple(shape):
            return value
        target = self.constant(f"{what}/shape", np.array(shape, np.int64))
        return self.node("Reshape", what, role, [value, target], shape)

    def cast(self, what: str, role: Role | None, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Append a Cast of `value` to `dtype`, or return `value` when it is that already."""
        if value.dtype == dtype:
            return value
        return self.node("Cast", what, role, [value], shape_of(value), dtype=dtype, attributes={"to": dtype})

    def reduce(
        self, op: str, what: str, role: Role | None, value: ir.Value, axes: Sequence[int], *, keep: bool = False
    ) -> ir.Value:
        """Append a float reduction of `value` that drops `axes` (or leaves 1 there), as the opset has it."""
        shape = [1 if axis in axes else size for axis, size in enumerate(shape_of(value)) if keep or axis not in axes]
        if self.opset < _AXES_INPUT_SINCE[op]:
            return self.node(op, what, role, [value], shape, attributes={"axes": list(axes), "keepdims": int(keep)})
        constant = self.constant(f"{what}/axes", np.array(axes, np.int64))
        return self.node(op, what, role, [value, constant], shape, attributes={"keepdims": int(keep)})

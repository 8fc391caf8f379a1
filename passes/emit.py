"""Emission of the nodes that replace one linear: names, metadata, dtypes and shapes set on everything made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from .shapes import static_shape

LINEAR_KEY = "flexc.linear"
"""Metadata key of every node that a linear became: the linear's name."""

ROLE_KEY = "flexc.role"
"""Metadata key that says what such a node is for, see :data:`Role`."""

Role = Literal["quantise", "multiply", "dequantise", "reshape", "bias"]


@dataclass
class Emitter:
    """Collects the new nodes of one linear; each is named ``<linear>/<what>``, made unique among the names `taken`."""

    graph: ir.Graph
    opset: int
    taken: set[str]
    linear: str
    nodes: list[ir.Node] = field(default_factory=list)

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

    def node(
        self,
        op: str,
        what: str,
        role: Role,
        inputs: Sequence[ir.Value],
        shape: Sequence[int],
        *,
        dtype: ir.DataType = ir.DataType.FLOAT,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Append a node with one output of `shape` and `dtype`, and return that output."""
        name = self.unique(what)
        metadata = {LINEAR_KEY: self.linear, ROLE_KEY: role}
        node = ir.node(op, inputs, attributes, name=name, metadata_props=metadata)
        output = node.outputs[0]
        output.name, output.dtype, output.shape = name, dtype, ir.Shape(list(shape))
        self.nodes.append(node)
        return output

    def reshape(self, what: str, role: Role, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Append a Reshape of a float `value` to `shape`, or return `value` when it has that shape already."""
        if static_shape(value) == tuple(shape):
            return value
        target = self.constant(f"{what}/shape", np.array(shape, np.int64))
        return self.node("Reshape", what, role, [value, target], shape)

    def row_max(self, what: str, role: Role, value: ir.Value) -> ir.Value:
        """Append a ReduceMax over all axes but the first (an input since opset 18, an attribute before)."""
        rows, *rest = static_shape(value)
        axes = list(range(1, 1 + len(rest)))
        if self.opset < 18:
            return self.node("ReduceMax", what, role, [value], [rows], attributes={"axes": axes, "keepdims": 0})
        constant = self.constant(f"{what}/axes", np.array(axes, np.int64))
        return self.node("ReduceMax", what, role, [value, constant], [rows], attributes={"keepdims": 0})

"""Numbers that depend on how many positions of a cache are valid: worked out by the program while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .lengths import Line


class RunTime:
    """Makes nodes and constants for what follows the number of valid positions; the graph is to be sorted afterwards.

    Args:
        graph: nodes are added at its end.
        valid: int64 [1], the number of positions valid before a step.
    """

    def __init__(self, graph: ir.Graph, valid: ir.Value) -> None:
        self._graph, self._valid = graph, valid
        self._made: dict[object, ir.Value] = {}

    def constant(self, array: npt.NDArray[np.generic]) -> ir.Value:
        """Return an initializer; equal ones are one."""
        array = np.ascontiguousarray(array)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            name = self._name("constant")
            tensor = ir.Tensor(array, name=name)
            shape, kind = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
            value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
            self._graph.register_initializer(value)
            self._made[key] = value
        return self._made[key]

    def node(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Iterable[ir.Attr] = ()) -> ir.Value:
        """Return the output of a new node; the same node is made once."""
        attributes = tuple(attributes)
        key = (op_type, tuple(map(id, inputs)), tuple((each.name, str(each.value)) for each in attributes))
        if key not in self._made:
            name = self._name(op_type)
            node = ir.Node("", op_type, inputs, attributes, name=name)
            node.outputs[0].name = f"{name}.out"
            self._graph.append(node)
            self._made[key] = node.outputs[0]
        return self._made[key]

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None], output: int) -> ir.Value:
        """Return an output of the same operator on other inputs."""
        twin = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
        twin.name = self._name(node.op_type)
        for place, value in enumerate(twin.outputs):
            value.name = f"{twin.name}.{place}"
        self._graph.append(twin)
        return twin.outputs[output]

    def line(self, line: Line, like: npt.NDArray[np.generic]) -> ir.Value:
        """Return ``base + slope * valid``, of the type and shape of an array."""
        valid = self._valid
        if like.dtype != np.int64:
            to = ir.AttrInt64("to", int(ir.DataType.from_numpy(like.dtype)))
            valid = self.node("Cast", [valid], [to])
        if not like.ndim:
            valid = self.node("Reshape", [valid, self.constant(np.zeros(0, np.int64))])
        slope, base = line.slope.astype(like.dtype), line.base.astype(like.dtype)
        moved = valid if (slope == 1).all() else self.node("Mul", [valid, self.constant(slope)])
        return moved if not base.any() and like.shape in ((), (1,)) else self.node("Add", [moved, self.constant(base)])

    def positions(self, first: int, count: int, stride: int = 1) -> ir.Value:
        """Return int64 [count]: ``valid + first``, and on in steps of ``stride``."""
        base = first + stride * np.arange(count, dtype=np.int64)
        return self.line(Line(base, np.asarray(1)), base)

    def inside(self, capacity: int, surplus: int, axis: int, rank: int) -> ir.Value:
        """Return truth values, ``capacity`` of them along an axis: which positions are below ``valid + surplus``."""
        shape = [capacity if each == axis else 1 for each in range(rank)]
        end = self.positions(surplus, 1)
        return self.node("Less", [self.constant(np.arange(capacity, dtype=np.int64).reshape(shape)), end])

    def _name(self, what: str) -> str:
        return f"cache.{what}.{len(self._made)}"

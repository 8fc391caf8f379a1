"""What a linear is: the one declaration that pruning, quantisation and mapping share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import constant_array, int_attribute, is_constant, shape_of

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


@dataclass(frozen=True)
class Linear:
    """A MatMul or Conv with a constant weight.

    Attributes:
        node: the MatMul or Conv.
        name: its node name, unique in the model.
        weight: the initializer.
        groups: 1, or the Conv's group.
        k: length of the lowered reduction; Conv: kernel positions (row by row), C_in / groups innermost.
        n: output columns in all; Conv: C_out.
        tied: whether the weight equals a table some Gather reads rows of, transposed or not.
    """

    node: ir.Node
    name: str
    weight: ir.Value
    groups: int
    k: int
    n: int
    tied: bool

    def matrix(self) -> np.ndarray:
        """Return the weight as float32 [n, k]: one row an output channel, K in lowered order; read-only."""
        array = _numbers(self.weight)
        rows = array.T if self.node.op_type == "MatMul" else np.moveaxis(array, 1, -1)
        matrix = np.ascontiguousarray(rows, dtype=np.float32).reshape(self.n, self.k)
        matrix.flags.writeable = False  # it may be the file itself, memory-mapped
        return matrix

    def to_weight(self, matrix: np.ndarray) -> np.ndarray:
        """Return ``matrix`` [n, k] in the weight's own shape, layout and element type, contiguous."""
        if matrix.shape != (self.n, self.k):
            raise ValueError(f"linear '{self.name}' takes a matrix [{self.n}, {self.k}], not {list(matrix.shape)}")
        dtype = _numbers(self.weight).dtype
        if self.node.op_type == "MatMul":
            return np.ascontiguousarray(matrix.T, dtype=dtype)
        out, channels, *kernel = shape_of(self.weight)
        lowered = matrix.reshape(out, *kernel, channels)
        return np.ascontiguousarray(np.moveaxis(lowered, -1, 1), dtype=dtype)


def find_linears(model: ir.Model) -> list[Linear]:
    """Return the linears of the main graph of a loaded model, in graph order."""
    tables = list({value: None for node in model.graph if (value := _gathered_table(node)) is not None})
    return [linear for node in model.graph for linear in _linear(node, tables)]


def _linear(node: ir.Node, tables: list[ir.Value]) -> Iterator[Linear]:
    if node.domain != "" or node.op_type not in ("MatMul", "Conv"):
        return
    x, weight = node.inputs[0], node.inputs[1]
    if weight is None or is_constant(x) or not is_constant(weight) or weight.dtype not in _FLOATS:
        return
    dims = shape_of(weight)
    if node.op_type == "MatMul":
        if len(dims) == 2:
            yield Linear(node, str(node.name), weight, 1, dims[0], dims[1], _is_tied(weight, tables))
    else:
        yield Linear(node, str(node.name), weight, int_attribute(node, "group", 1), math.prod(dims[1:]), dims[0], False)


def _gathered_table(node: ir.Node) -> ir.Value | None:
    """Return the table of an embedding: the constant matrix whose rows a Gather picks."""
    table = node.inputs[0] if node.op_type == "Gather" and node.domain == "" else None
    if table is None or not is_constant(table) or len(shape_of(table)) != 2 or int_attribute(node, "axis", 0):
        return None
    return table


def _is_tied(weight: ir.Value, tables: list[ir.Value]) -> bool:
    return any(_same_numbers(weight, table) for table in tables)


def _same_numbers(weight: ir.Value, table: ir.Value) -> bool:
    """Return whether two matrices are equal, as they are or transposed; cheap checks come first."""
    if weight is table:
        return True
    rows, columns = shape_of(table)
    if weight.dtype != table.dtype or shape_of(weight) not in ((rows, columns), (columns, rows)):
        return False
    ours, theirs = _numbers(weight), _numbers(table)
    straight = ours.shape == theirs.shape and _equal(ours, theirs)
    return straight or (ours.shape == theirs.T.shape and _equal(ours, theirs.T))


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    if left.__array_interface__["data"] == right.__array_interface__["data"] and left.strides == right.strides:
        return True
    borders = np.array_equal(left[:1], right[:1]) and np.array_equal(left[:, :1], right[:, :1])
    return borders and np.array_equal(left, right)


def _numbers(value: ir.Value) -> np.ndarray:
    array = constant_array(value)
    if array is None:
        raise ValueError(f"value '{value.name}' is no constant")
    return array


def replace_weight(model: ir.Model, linear: Linear, matrix: np.ndarray) -> Linear:
    """Give ``linear`` a new weight of its own and return the linear with it.

    Whoever else reads the old weight (another linear, an embedding) keeps it. The new initializer has the old one's
    name where nobody else reads that, and ``<old>.<node name>`` otherwise.

    Args:
        model: the model ``linear`` was found in; changed.
        linear: one of ``find_linears(model)``.
        matrix: [n, k], in the order of :meth:`Linear.matrix`.
    """
    old, initializers = linear.weight, model.graph.initializers
    name = str(old.name)
    array = linear.to_weight(matrix)
    if len(old.uses()) == 1 and not old.is_graph_output():
        del initializers[name]
    else:
        name = _free_name(f"{name}.{linear.name}", model.graph)
    tensor = ir.Tensor(array, dtype=old.dtype, name=name)
    new = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(new)
    linear.node.replace_input_with(1, new)
    return dataclasses.replace(linear, weight=new, tied=False)


def _free_name(wished: str, graph: ir.Graph) -> str:
    taken = set(graph.initializers) | {str(value.name) for value in graph.inputs}
    taken |= {str(value.name) for node in graph for value in node.outputs}
    name, number = wished, 0
    while name in taken:
        number += 1
        name = f"{wished}_{number}"
    return name

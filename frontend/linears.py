"""What a linear is: the one declaration that pruning, quantisation and mapping share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .codes import codes_of
from .edit import constant_array, free_name, int_attribute, is_constant, shape_of

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_BYTES = {ir.DataType.INT8, ir.DataType.UINT8}
INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class Linear:
    """A MatMul or Conv with a constant weight, which may come quantised: dequantised first, or of an integer product.

    Attributes:
        node: the MatMul, Conv, MatMulInteger or ConvInteger.
        name: its node name, unique in the model.
        weight: the initializer.
        groups: 1, or the Conv's group.
        k: length of the lowered reduction; Conv: kernel positions (row by row), C_in / groups innermost.
        n: output columns in all; Conv: C_out.
        tied: whether the weight equals a table some Gather reads rows of, transposed or not.
        zero: of a weight that comes quantised, the zero point, one or one an output column; None: 0.
    """

    node: ir.Node
    name: str
    weight: ir.Value
    groups: int
    k: int
    n: int
    tied: bool
    zero: ir.Value | None = None

    @property
    def quantised(self) -> bool:
        """Whether the weight comes as integers, which are kept as they are."""
        return self.weight.dtype in _BYTES

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.node.op_type in ("Conv", "ConvInteger")

    def matrix(self) -> np.ndarray:
        """Return the weight as float32 [n, k]: one row an output channel, K in lowered order; read-only.

        Of a weight that comes quantised these are integers, less their zero point.
        """
        array = _numbers(self.weight)
        rows = np.moveaxis(array, 1, -1) if self.is_conv else array.T
        matrix = np.ascontiguousarray(rows, dtype=np.float32).reshape(self.n, self.k)
        if self.quantised:
            matrix = matrix - self._zeros()
        matrix.flags.writeable = False  # it may be the file itself, memory-mapped
        return matrix

    def _zeros(self) -> np.ndarray:
        """Return the zero points as a column [n or 1, 1]."""
        zero = constant_array(self.zero)
        return np.zeros((1, 1), np.float32) if zero is None else zero.astype(np.float32).reshape(-1, 1)

    def to_weight(self, matrix: np.ndarray) -> np.ndarray:
        """Return ``matrix`` [n, k] in the weight's own shape, layout and element type, contiguous.

        Integers are the nearest that the type holds.
        """
        if matrix.shape != (self.n, self.k):
            raise ValueError(f"linear '{self.name}' takes a matrix [{self.n}, {self.k}], not {list(matrix.shape)}")
        dtype = _numbers(self.weight).dtype
        if self.quantised:
            limits = np.iinfo(dtype)
            matrix = np.clip(np.rint(matrix) + self._zeros(), limits.min, limits.max)
        if not self.is_conv:
            return np.ascontiguousarray(matrix.T, dtype=dtype)
        out, channels, *kernel = shape_of(self.weight)
        lowered = matrix.reshape(out, *kernel, channels)
        return np.ascontiguousarray(np.moveaxis(lowered, -1, 1), dtype=dtype)


def find_linears(model: ir.Model) -> list[Linear]:
    """Return the linears of the main graph of a loaded model, in graph order."""
    tables = list({value: None for node in model.graph if (value := _gathered_table(node)) is not None})
    return [linear for node in model.graph for linear in _linear(node, tables)]


def _linear(node: ir.Node, tables: list[ir.Value]) -> Iterator[Linear]:
    read = _read_weight(node)
    if read is None or is_constant(node.inputs[0]):
        return
    weight, zero = read
    dims, name = shape_of(weight), str(node.name)
    if node.op_type in ("Conv", "ConvInteger"):
        groups = int_attribute(node, "group", 1)
        yield Linear(node, name, weight, groups, math.prod(dims[1:]), dims[0], False, zero)
    elif len(dims) == 2:
        yield Linear(node, name, weight, 1, dims[0], dims[1], _is_tied(weight, tables), zero)


def sharing(linears: Sequence[Linear]) -> list[list[Linear]]:
    """Group linears that have one weight, in order of their first: turns of a recurrence, layers run several times.

    Nodes of the file share it, or loading made copies of it; so equal numbers count, unless all are one number, which
    says nothing.
    """
    alike: dict[object, list[list[Linear]]] = {}
    groups: list[list[Linear]] = []
    for linear in linears:
        array = _numbers(linear.weight)
        kind = (linear.node.op_type, linear.groups, array.shape, array.dtype, array[:1].ravel()[:16].tobytes())
        known = alike.setdefault(kind, [])
        for group in known:
            if _one_weight(group[0], linear):
                group.append(linear)
                break
        else:
            known.append([linear])
            groups.append(known[-1])
    return groups


def _one_weight(one: Linear, other: Linear) -> bool:
    if one.zero is not other.zero and not _same_zero(one.zero, other.zero):
        return False
    if one.weight is other.weight:
        return True
    ours = _numbers(one.weight)
    return _equal(ours, _numbers(other.weight)) and bool((ours != ours[:1].ravel()[:1]).any())


def _same_zero(one: ir.Value | None, other: ir.Value | None) -> bool:
    return one is not None and other is not None and np.array_equal(_numbers(one), _numbers(other))


def _read_weight(node: ir.Node) -> tuple[ir.Value, ir.Value | None] | None:
    """Return the constant weight of a product and its zero point, or None where it has no such weight."""
    if node.domain != "" or node.op_type not in ("MatMul", "Conv", *INTEGER_PRODUCTS):
        return None
    weight = node.inputs[1]
    if node.op_type in INTEGER_PRODUCTS:
        zero = node.inputs[3] if len(node.inputs) > 3 else None
        known = weight is not None and is_constant(weight) and (zero is None or is_constant(zero))
        return (weight, zero) if weight is not None and known else None
    found = codes_of(weight)
    if found is not None:
        return (found.codes, found.zero) if found.is_constant and found.codes.dtype in _BYTES else None
    return (weight, None) if weight is not None and is_constant(weight) and weight.dtype in _FLOATS else None


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
    if len(old.uses()) == 1 and not old.is_graph_output() and not _is_shared(linear):
        del initializers[name]
    else:
        name = free_name(model.graph, f"{name}.{linear.name}")
    tensor = ir.Tensor(array, dtype=old.dtype, name=name)
    new = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(new)
    _give(linear, new, model.graph)
    return dataclasses.replace(linear, weight=new, tied=False)


def share_again(model: ir.Model, groups: Sequence[Sequence[Linear]]) -> None:
    """Let linears that had one weight have one again, wherever the new ones are equal.

    Args:
        model: the model, after weights were replaced; changed.
        groups: what :func:`sharing` gave before.
    """
    now = {linear.name: linear for linear in find_linears(model)} if any(len(group) > 1 for group in groups) else {}
    for group in groups:
        first, *others = [now[linear.name] for linear in group] if len(group) > 1 else group
        for other in others:
            direct = first.weight in first.node.inputs and other.weight in other.node.inputs
            if other.weight is first.weight or not direct or not _one_weight(first, other):
                continue
            other.node.replace_input_with(1, first.weight)
            if not other.weight.uses() and not other.weight.is_graph_output():
                model.graph.initializers.pop(str(other.weight.name), None)


def _give(linear: Linear, weight: ir.Value, graph: ir.Graph) -> None:
    """Let ``linear`` alone read another weight: a DequantizeLinear that others read, too, is copied for it."""
    node = linear.node
    if linear.weight in node.inputs:
        node.replace_input_with(1, weight)
        return
    reader = _dequantiser(linear)
    if _is_shared(linear):
        copy = ir.Node("", reader.op_type, reader.inputs, reader.attributes.values(), name=f"{reader.name}.{node.name}")
        copy.outputs[0].name = f"{reader.outputs[0].name}.{node.name}"
        copy.outputs[0].type, copy.outputs[0].shape = reader.outputs[0].type, reader.outputs[0].shape
        graph.insert_before(node, copy)
        node.replace_input_with(1, copy.outputs[0])
        reader = copy
    reader.replace_input_with(0, weight)


def _is_shared(linear: Linear) -> bool:
    """Return whether others read the numbers that the linear's quantised weight is dequantised to."""
    value = linear.node.inputs[1]
    return value is not None and value is not linear.weight and len(value.uses()) > 1


def _dequantiser(linear: Linear) -> ir.Node:
    value = linear.node.inputs[1]
    node = value.producer() if value is not None else None
    if node is None:
        raise ValueError(f"the weight of '{linear.name}' is not dequantised")
    return node

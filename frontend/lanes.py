"""Rows chosen at run time, as mixtures of experts choose them: NonZero of a mask, without a shape that depends on it.

``NonZero(mask)`` becomes the places of all elements, a constant; what was computed for the rows chosen is computed for
all, and where it is added up again (index_add: ScatterND, ScatterElements with ``add``) rows that the mask leaves out
add nothing. That is right as long as everything in between treats its rows one by one, which is checked node by node:
the axis along which the rows lie is followed from NonZero to the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..isa.errors import FlexcError
from .edit import Editor, constant_array, int_attribute, shape_of
from .experts import Site
from .integer import reduced
from .remedies import static_remedy
from .rewrite.site import Site as At
from .routing import chooser
from .rules import reduce_axes
from .slots import Slots, Sums

ONE_BY_ONE = {
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Sub", "Swish", "Tanh", "Where",
}  # fmt: skip
ALONG_LAST = {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"}
_SUMS = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL2"}
#: Operands that are shapes, and operators that shapes are worked out with.
_SHAPE_OPERANDS = {("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0), ("Slice", 1), ("Slice", 2), ("Tile", 1)}
_SHAPE_ARITHMETIC = {"Add", "Cast", "Concat", "Equal", "Gather", "Mul", "Slice", "Squeeze", "Unsqueeze", "Where"}
_REMEDY = (
    static_remedy("NonZero")
    + "; of a mixture of experts export a form that computes all (transformers: experts_implementation='batched_mm')"
)


@dataclass(frozen=True)
class _Rows:
    """A value with one row for every element of a mask, or for those in an expert's slots: along which axis."""

    axis: int
    mask: ir.Value
    origin: str
    slots: Slots | None = None


class Lanes:
    """Follows such rows through one graph as its nodes are visited."""

    def __init__(self, editor: Editor, where: str) -> None:
        self._editor, self._where = editor, where
        self._rows: dict[ir.Value, _Rows] = {}
        self._sums = Sums(editor)
        self._masked = self._sums.readers  # what reads rows to add up those of the mask
        editor.on_substitute = self._carry

    def __contains__(self, value: ir.Value) -> bool:
        return value in self._rows

    def _carry(self, old: ir.Value, new: ir.Value) -> None:
        """Let a value that takes the place of another have its rows, too."""
        if old in self._rows:
            self._rows.setdefault(new, self._rows[old])
        self._sums.carry(old, new)

    def places(self, node: ir.Node) -> bool:
        """Put the places of all elements in the place of a NonZero, or of those that an expert has slots for."""
        mask = node.inputs[0] if node.op_type == "NonZero" and node.domain == "" else None
        if mask is None or constant_array(mask) is not None or mask.shape is None or not shape_of(mask):
            return False
        origin = f"node '{node.name}' (NonZero): output '{node.outputs[0].name}'"
        slots = self._slots(node, mask)
        if slots is None:
            every = np.indices(shape_of(mask)).reshape(len(shape_of(mask)), -1)
            value = self._editor.constant(f"{node.name}.places", every.astype(np.int64), shared=False)
        else:
            value = slots.places
        self._rows[value] = _Rows(1, mask, origin, slots)
        if node.outputs[0].is_graph_output():
            raise self._refusal(self._rows[value], node)
        self._editor.substitute(node, [value])
        return True

    def _slots(self, node: ir.Node, mask: ir.Value) -> Slots | None:
        """Emit the places in the slots of the expert whose pairs a mask has; None where it has no declared capacity."""
        routings, found = self._editor.routings, chooser(mask)
        if routings is None:
            return None
        if found is None:
            routings.leave(mask)
            return None
        index, expert, experts = found
        site = At(node, self._editor)
        routing = routings.of(site, index, experts, index.at.size)
        if routing is None:
            return None
        coordinates = np.indices(shape_of(mask)).reshape(len(shape_of(mask)), -1).T
        every, first = routings.rows(site, routing, coordinates), expert * routing.capacity
        own = site.slice(every, 0, first, first + routing.capacity)
        return Slots(routing, expert, site.op("Transpose", own, perm=[1, 0]))

    def follow(self, node: ir.Node) -> None:
        """Work out along which axis the rows of a node's outputs lie.

        Raises:
            FlexcError: the node does not treat them one by one, or the graph puts them out.
        """
        given = [(place, self._rows[value]) for place, value in enumerate(node.inputs) if value in self._rows]
        if not given or node in self._masked:
            return
        first = given[0][1]
        if node.op_type == "Shape" and _only_shapes(node.outputs[0]):
            return
        axis = self._axis(node, given) if all(rows.mask is first.mask for _, rows in given) else None
        if axis is None or any(output.is_graph_output() for output in node.outputs):
            raise self._refusal(first, node)
        for output in node.outputs:
            self._rows[output] = replace(first, axis=axis)

    def explain(self, node: ir.Node) -> None:
        """Say of a node with impossible shapes that it takes chosen rows for a number known beforehand, if it does.

        Raises:
            FlexcError: it reads rows that a mask chooses.
        """
        rows = next((self._rows[value] for value in node.inputs if value in self._rows), None)
        if rows is not None:
            raise self._refusal(rows, node)

    def _refusal(self, rows: _Rows, node: ir.Node) -> FlexcError:
        text = f"{rows.origin} has a shape that depends on run-time data, and '{node.name}' ({node.op_type}) with it"
        return FlexcError(text, where=self._where, remedy=_REMEDY)

    def _axis(self, node: ir.Node, given: list[tuple[int, _Rows]]) -> int | None:
        op, (place, rows) = node.op_type, given[0]
        if op in ONE_BY_ONE:
            return _aligned(node, given)
        if op in ("Gather", "GatherND"):
            return _gathered(node, place, rows.axis, len(given))
        if op == "Concat":
            rank = len(shape_of(node.outputs[0]))
            apart = int_attribute(node, "axis", 0) % rank != rows.axis and len(given) == len(node.inputs)
            return rows.axis if apart and all(each.axis == rows.axis for _, each in given) else None
        if len(given) > 1 or place:
            return None
        return _moved(node, rows.axis)

    def add_up(self, node: ir.Node) -> bool:
        """Put masked sums in the place of a ScatterND or ScatterElements that puts such rows into another value.

        Without ``add`` a sum takes the place of what was there; ONNX then allows no place twice.
        """
        joined = self._sums.join(node) if node.op_type == "Add" and node.domain == "" else None
        if joined is not None:
            self._editor.substitute(node, [joined])
            return True
        if node.op_type not in ("ScatterND", "ScatterElements") or len(node.inputs) < 3:
            return False
        data, index, updates = node.inputs[:3]
        if data is None or index is None or updates is None or data in self._rows:
            return False
        found, other = self._rows.get(index), self._rows.get(updates)
        if found is None or other is None or node.attributes.get_string("reduction", "none") not in ("add", "none"):
            return False
        if found.mask is not other.mask or (found.axis, other.axis) != (0, 0):
            return False
        axis = _row_axis(index, found, shape_of(data)[0])
        if axis is None or shape_of(updates)[1:] != shape_of(data)[1:] or int_attribute(node, "axis", 0):
            return False
        if found.slots is None:
            self._editor.substitute(node, [self._sum(node, found.mask, axis)])
        else:
            self._editor.substitute(node, [self._sums.put(node, found.slots, shape_of(found.mask), axis)])
        return True

    def _sum(self, node: ir.Node, mask: ir.Value, axis: int) -> ir.Value:
        """Emit data + the sum of the masked rows over all axes of the mask but one."""
        data, updates = node.inputs[0], node.inputs[2]
        assert data is not None
        assert updates is not None
        rest, dims, site = shape_of(updates)[1:], shape_of(mask), Site(node, self._editor)
        gate = site.put("Cast", mask, attributes=[ir.AttrInt64("to", int(ir.DataType.BOOL))])
        gate = site.reshape(gate, *dims, *[1] * len(rest))
        zero = self._editor.constant("zero", np.zeros((), (updates.dtype or ir.DataType.FLOAT).numpy()))
        parts = site.reshape(updates, *dims, *rest)
        self._masked.add(parts.producer())
        kept = site.put("Where", gate, parts, zero)
        others = [each for each in range(len(dims)) if each != axis]
        turned = site.transpose(kept, axis, *range(len(dims), len(dims) + len(rest)), *others)
        flat = site.reshape(turned, dims[axis], *rest, math.prod(dims[each] for each in others))
        total = reduced(node, "ReduceSum", flat, [len(rest) + 1], self._editor)
        if node.attributes.get_string("reduction", "none") == "add":
            return site.put("Add", data, total)
        real = site.put("Cast", mask, attributes=[ir.AttrInt64("to", int(ir.DataType.FLOAT))])
        turned = site.reshape(site.transpose(real, axis, *others), dims[axis], -1)
        hits = reduced(node, "ReduceMax", site.put("Abs", turned), [1], self._editor)
        hit = site.put("Cast", hits, attributes=[ir.AttrInt64("to", int(ir.DataType.BOOL))])
        return site.put("Where", site.reshape(hit, -1, *[1] * len(rest)), total, data)


def _only_shapes(value: ir.Value) -> bool:
    """Return whether a number of rows serves to give shapes, and to nothing else."""
    for use in value.uses():
        if (use.node.op_type, use.idx) in _SHAPE_OPERANDS:
            continue
        if use.node.op_type not in _SHAPE_ARITHMETIC or not all(_only_shapes(each) for each in use.node.outputs):
            return False
    return not value.is_graph_output()


def _aligned(node: ir.Node, given: list[tuple[int, _Rows]]) -> int | None:
    """Return the axis of an elementwise result whose operands have the same rows, or none."""
    rank = len(shape_of(node.outputs[0]))
    axes = set()
    with_rows = {place for place, _ in given}
    for place, rows in given:
        value = node.inputs[place]
        assert value is not None
        axes.add(rows.axis + rank - len(shape_of(value)))
    if len(axes) != 1:
        return None
    (axis,) = axes
    for place, value in enumerate(node.inputs):
        if value is None or place in with_rows:
            continue
        own = (1,) * (rank - len(shape_of(value))) + shape_of(value)
        if own[axis] != 1:
            return None
    return axis


def _gathered(node: ir.Node, place: int, axis: int, count: int) -> int | None:
    """Return the axis after rows were picked by places that have one a row, or from a value that has."""
    index = node.inputs[1]
    if count > 1 or index is None:
        return None
    if node.op_type == "GatherND":
        last = len(shape_of(index)) - 1
        return axis if place == 1 and axis < last and not int_attribute(node, "batch_dims", 0) else None
    along = int_attribute(node, "axis", 0) % len(shape_of(node.inputs[0] or index))
    if place == 1:
        return along + axis
    if along == axis:
        return None
    return axis if axis < along else axis + len(shape_of(index)) - 1


def _moved(node: ir.Node, axis: int) -> int | None:
    """Return the axis after an operator whose first operand has the rows."""
    op, out, value = node.op_type, node.outputs[0], node.inputs[0]
    assert value is not None
    rank = len(shape_of(value))
    if op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return _reshaped(shape_of(value), shape_of(out), axis)
    if op == "Transpose":
        return list(node.attributes.get_ints("perm") or range(rank)[::-1]).index(axis)
    if op in ("MatMul", "Gemm"):
        return axis if axis < rank - 1 and not int_attribute(node, "transA", 0) else None
    if op == "Expand":
        return axis + len(shape_of(out)) - rank
    if op in ("Slice", "Split"):
        return axis if shape_of(out)[axis] == shape_of(value)[axis] and _forward(node) else None
    if op in ALONG_LAST:
        return axis if axis != rank - 1 and int_attribute(node, "axis", -1) in (-1, rank - 1) else None
    return _reduced_axis(node, axis) if op in _SUMS else None


def _reduced_axis(node: ir.Node, axis: int) -> int | None:
    axes = reduce_axes(node)
    if axes is None or axis in axes:
        return None
    return axis if int_attribute(node, "keepdims", 1) else axis - sum(each < axis for each in axes)


def _forward(node: ir.Node) -> bool:
    steps = constant_array(node.inputs[4]) if node.op_type == "Slice" and len(node.inputs) > 4 else None
    return steps is None or bool((steps > 0).all())


def _reshaped(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Return where an axis is after a reshape that keeps it whole."""
    for place, size in enumerate(after):
        if size == before[axis] and math.prod(after[:place]) == math.prod(before[:axis]):
            return place
    return None


def _row_axis(index: ir.Value, found: _Rows, rows: int) -> int | None:
    """Return the axis of a mask, of so many rows, whose coordinates an index has; None where it has others."""
    mask = shape_of(found.mask)
    if found.slots is not None:
        axis = found.slots.coordinate(index)
        return axis if axis is not None and mask[axis] == rows else None
    places = constant_array(index)
    return None if places is None else _coordinate(places, mask, rows)


def _coordinate(places: np.ndarray, mask: tuple[int, ...], rows: int) -> int | None:
    """Return the axis of a mask whose coordinates these places are, for every element of it in order."""
    own = places.reshape(len(places), -1)
    if not (own == own[:, :1]).all():
        return None
    for axis, coordinates in enumerate(np.indices(mask).reshape(len(mask), -1)):
        if mask[axis] == rows and np.array_equal(coordinates, own[:, 0]):
            return axis
    return None

"""Row forms: how a value lies as rows x columns, so that a chain of nodes can work through it a few rows at a time.

A row kernel visits the rows of one *row space*, the leading dimensions without those of size 1. Every value inside has
all its rows and some columns: the last dimension, or 1 for one number a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.operators import OPERATORS
from ..frontend.rules import reduce_axes

RowSpace = tuple[int, ...]

#: View operators that may leave every row as it is.
KEEPS_ROWS = ("Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten")


@dataclass(frozen=True)
class Form:
    """Rows x columns of one value; ``bare`` when its shape has no last dimension of 1 for the one number a row."""

    rows: RowSpace
    cols: int
    bare: bool = False


@dataclass(frozen=True)
class Tail:
    """Row work at the end of an array kernel, on results that have not left the buffer.

    ``views`` only name the results differently. A tail works on a piece of the results at a time, whichever columns
    it has, or on ``whole`` rows.
    """

    nodes: tuple[ir.Node, ...]
    views: tuple[ir.Node, ...]
    forms: Mapping[ir.Value, Form]
    whole: bool


def operand(node: ir.Node, place: int = 0) -> ir.Value:
    """Return an input that the operator always has."""
    value = node.inputs[place]
    assert value is not None
    return value


def result(node: ir.Node) -> ir.Value:
    """Return the output that a row kernel makes of a node: the first, of a TopK the places."""
    return node.outputs[1 if node.op_type == "TopK" else 0]


def squeezed(dims: tuple[int, ...]) -> RowSpace:
    """Return the dimensions that are not 1."""
    return tuple(dim for dim in dims if dim != 1)


def plain(shape: tuple[int, ...]) -> Form:
    """Return the form of a shape whose last dimension is the columns."""
    return Form(squeezed(shape[:-1]), shape[-1]) if shape else Form((), 1)


def reduced_axes(node: ir.Node) -> tuple[int, ...]:
    """Return the axes that a reduction or a global pooling runs over: always the last ones."""
    if node.op_type in ("ArgMax", "ArgMin"):
        return (len(shape_of(operand(node))) - 1,)
    axes = reduce_axes(node)
    assert axes is not None
    return tuple(range(2, len(shape_of(operand(node))))) if node.op_type == "GlobalAveragePool" else axes


def row_length(node: ir.Node, value: ir.Value) -> int:
    """Return how many columns of a value a node takes at once."""
    shape = shape_of(value)
    if value is node.inputs[0] and OPERATORS[node.op_type].kind == "reduce":
        return math.prod(shape[axis] for axis in reduced_axes(node))
    return shape[-1] if shape else 1


def is_elementwise(nodes: Iterable[ir.Node], forms: Mapping[ir.Value, Form], *, views: bool = False) -> bool:
    """Return whether every element of what these nodes make can be worked on by itself: rows may be cut anywhere.

    With ``views`` they may be among the nodes: inside a row kernel they leave every element where it is.
    """
    found = set(forms.values())
    one = len(found) == 1 and not next(iter(found)).bare and next(iter(found)).cols > 1
    kinds = ("row", "view") if views else ("row",)
    return one and all(OPERATORS[node.op_type].kind in kinds or _one_scale(node) for node in nodes)


def _one_scale(node: ir.Node) -> bool:
    """Return whether a node quantises with one scale and one zero point for all elements."""
    given = [value for value in node.inputs[1:] if value is not None]
    return node.op_type == "QuantizeLinear" and all(math.prod(shape_of(value)) == 1 for value in given)


def row_product(node: ir.Node) -> bool:
    """Return whether a product is one of rows with a vector: one number a row, so that it can stand in a row kernel."""
    if node.op_type != "MatMul":
        return False
    left, right = shape_of(operand(node)), shape_of(operand(node, 1))
    return len(left) >= len(right) >= 2 and left[-1] > 1 == right[-1] and shape_of(node.outputs[0])[:-1] == left[:-1]


def output_form(node: ir.Node, kind: str, inside: Mapping[ir.Value, Form]) -> Form | None:
    """Return the form of a node's output given the forms of those inputs that the kernel makes, or None: no fit."""
    own = {value: inside[value] for value in node.inputs if value is not None and value in inside}
    if kind == "view":
        return _view_form(node, own)
    if kind == "reduce":
        return _reduce_form(node, own)
    if node.op_type == "QuantizeLinear":
        return _quantize_form(node, own)
    if kind == "concat":
        return _concat_form(node, own)
    if kind == "pick":
        return _pick_form(node, own)
    if kind == "matmul":
        return _product_form(node, own)
    return _elementwise_form(node, kind, own)


def _elementwise_form(node: ir.Node, kind: str, own: Mapping[ir.Value, Form]) -> Form | None:
    shape = shape_of(result(node))
    form = plain(shape)
    if any(each.bare for each in own.values()):
        if kind == "row_axis":  # it works along what are rows here
            return None
        rows = squeezed(shape)
        return Form(rows, 1, bare=True) if all(each.bare and each.rows == rows for each in own.values()) else None
    return form if all(each.rows == form.rows and each.cols in (1, form.cols) for each in own.values()) else None


def _reduce_form(node: ir.Node, own: Mapping[ir.Value, Form]) -> Form | None:
    shape = shape_of(operand(node))
    axes = reduced_axes(node)
    rows = squeezed(shape[: len(shape) - len(axes)])
    if own and (len(axes) != 1 or next(iter(own.values())) != Form(rows, shape[-1])):
        return None
    out = shape_of(node.outputs[0])
    return Form(rows, 1, bare=plain(out).rows != rows)


def _quantize_form(node: ir.Node, own: Mapping[ir.Value, Form]) -> Form | None:
    source, scale = operand(node), operand(node, 1)
    form = plain(shape_of(source))
    if source in own and own[source] != form:
        return None
    per_row = math.prod(shape_of(scale)) > 1
    if per_row and (node.attributes.get_int("axis", 1) != 0 or len(shape_of(source)) != 2 or len(shape_of(scale)) != 1):
        return None
    if scale in own and own[scale] != Form(form.rows, 1, bare=True):
        return None
    return form


def _concat_form(node: ir.Node, own: Mapping[ir.Value, Form]) -> Form | None:
    shape = shape_of(node.outputs[0])
    if node.attributes.get_int("axis", 0) % len(shape) != len(shape) - 1:
        return None
    form = plain(shape)
    return form if all(not each.bare and each.rows == form.rows for each in own.values()) else None


def _product_form(node: ir.Node, own: Mapping[ir.Value, Form]) -> Form | None:
    left = plain(shape_of(operand(node)))
    fits = operand(node, 1) not in own and own.get(operand(node), left) == left
    return Form(left.rows, 1) if fits else None


def _pick_form(node: ir.Node, own: Mapping[ir.Value, Form]) -> Form | None:
    form = plain(shape_of(result(node)))
    return form if all(not each.bare and each.rows == form.rows for each in own.values()) else None


def _view_form(node: ir.Node, own: Mapping[ir.Value, Form]) -> Form | None:
    source = operand(node)
    if source not in own or node.op_type not in KEEPS_ROWS:
        return None
    form, shape = own[source], shape_of(node.outputs[0])
    if plain(shape) == Form(form.rows, form.cols):
        return Form(form.rows, form.cols)
    return Form(form.rows, 1, bare=True) if form.cols == 1 and squeezed(shape) == form.rows else None

"""Rules: what a node must keep to so that the machine runs it itself. The docstring is the sentence the user sees.

A rule returns why a node cannot run natively, or an empty string.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .edit import int_attribute

if TYPE_CHECKING:
    import onnx_ir as ir

#: Returns why a node cannot run natively, or an empty string.
Rule = Callable[["ir.Node"], str]


def fine(_node: ir.Node) -> str:
    """Any type and shape."""
    return ""


def _dtype(value: ir.Value | None) -> str:
    return value.dtype.name if value is not None and value.dtype is not None else "?"


def _last_axis(node: ir.Node, axis: int) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return shape is not None and axis in (-1, len(shape) - 1)


def float_only(node: ir.Node) -> str:
    """Works on float32 tensors only."""
    bad = {_dtype(value) for value in (*node.inputs, *node.outputs) if value is not None} - {"FLOAT"}
    return f"works on float32, not {', '.join(sorted(bad))}" if bad else ""


def float_input(node: ir.Node) -> str:
    """Reads a float32 tensor."""
    dtype = _dtype(node.inputs[0])
    return "" if dtype == "FLOAT" else f"reads float32, not {dtype}"


NUMBERS = {"FLOAT", "INT32", "INT64"}
ELEMENT_TYPES = NUMBERS | {"BOOL", "INT8", "UINT8", "INT16", "UINT16", "FLOAT16"}
"""What the machine can hold."""


def numbers(node: ir.Node) -> str:
    """Works on float32, int32 and int64."""
    bad = {_dtype(value) for value in node.inputs if value is not None} - NUMBERS
    return f"works on float32, int32 and int64, not {', '.join(sorted(bad))}" if bad else ""


def comparable(node: ir.Node) -> str:
    """Works on float32, int32, int64 and truth values."""
    bad = {_dtype(value) for value in node.inputs if value is not None} - NUMBERS - {"BOOL"}
    return f"works on float32, int32, int64 and truth values, not {', '.join(sorted(bad))}" if bad else ""


def truth(node: ir.Node) -> str:
    """Works on truth values only."""
    bad = {_dtype(value) for value in node.inputs if value is not None} - {"BOOL"}
    return f"works on truth values, not {', '.join(sorted(bad))}" if bad else ""


def cast(node: ir.Node) -> str:
    """Converts between float32, float16, int32, int64, 16-bit and 8-bit integers and truth values."""
    bad = {_dtype(node.inputs[0]), _dtype(node.outputs[0])} - ELEMENT_TYPES
    return f"no conversion for {', '.join(sorted(bad))}" if bad else ""


def where(node: ir.Node) -> str:
    """Picks between tensors of float32, int32, int64 or truth values."""
    bad = {_dtype(value) for value in node.inputs[1:] if value is not None} - NUMBERS - {"BOOL"}
    return f"works on float32, int32, int64 and truth values, not {', '.join(sorted(bad))}" if bad else ""


def reduce_axes(node: ir.Node) -> tuple[int, ...] | None:
    """Return the axes of a reduction, counted from 0, whichever opset wrote it; None where they are not constant."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    rank = len(shape) if shape is not None else 0
    attribute = node.attributes.get("axes")
    if attribute is not None:
        axes = tuple(attribute.as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = node.inputs[1].const_value
        if constant is None:
            return None
        axes = tuple(int(axis) for axis in constant.numpy().reshape(-1))
    else:
        axes = ()
    return tuple(sorted(axis % rank for axis in axes)) if axes else tuple(range(rank))


def reduces(node: ir.Node) -> str:
    """Reduces float32 (int32 and int64, too, except for means) over the last axes; the axes are constant."""
    axes = reduce_axes(node)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    known = {"FLOAT"} if node.op_type == "ReduceMean" else NUMBERS
    if _dtype(node.inputs[0]) not in known or shape is None:
        what = "float32" if len(known) == 1 else "float32, int32 and int64"
        return f"reduces {what}, not {_dtype(node.inputs[0])}"
    if axes is None or axes != tuple(range(len(shape) - len(axes), len(shape))):
        return f"reduces the last axes only, not axes {axes}"
    return ""


def _along_last(node: ir.Node, default: int) -> str:
    axis = node.attributes.get_int("axis", default)
    return "" if _last_axis(node, axis) else f"works along the last axis only, not axis {axis}"


def ranks(node: ir.Node) -> str:
    """Float32, along the last axis; of equal elements the first."""
    if node.attributes.get_int("select_last_index", 0):
        return "finds the first of equal elements"
    return float_input(node) or _along_last(node, 0)


def top_k(node: ir.Node) -> str:
    """Float32, along the last axis; makes the places, by which the values are picked."""
    values = node.outputs[0]
    known = float_input(node) or constant_after(1)(node) or _along_last(node, -1)
    return known or ("makes places only" if values.uses() or values.is_graph_output() else "")


def picks(node: ir.Node) -> str:
    """Along the last axis; the indices have the data's other dimensions."""
    return _along_last(node, 0) or _same_rows(node)


def puts(node: ir.Node) -> str:
    """Along the last axis, without a reduction; the indices have the data's other dimensions."""
    reduction = node.attributes.get_string("reduction", "none")
    if reduction != "none":
        return f"puts elements in their places, without reduction '{reduction}'"
    return _along_last(node, 0) or _same_rows(node)


def _same_rows(node: ir.Node) -> str:
    shapes = [value.shape.numpy() for value in node.inputs[:2] if value is not None and value.shape is not None]
    return "" if shapes[0][:-1] == shapes[1][:-1] else f"indices {list(shapes[1])} for data {list(shapes[0])}"


def cumulates(node: ir.Node) -> str:
    """Float32, int32 and int64, along the last axis, forwards, each element included."""
    if node.attributes.get_int("exclusive", 0) or node.attributes.get_int("reverse", 0):
        return "adds forwards, each element included"
    axis = node.inputs[1].const_value if node.inputs[1] is not None else None
    if axis is None:
        return "the axis must be constant"
    place = int(axis.numpy().reshape(-1)[0])
    known = numbers(node)
    return known or ("" if _last_axis(node, place) else f"adds along the last axis only, not axis {place}")


def softmax(node: ir.Node) -> str:
    """Float32 over the last axis."""
    axis = node.attributes.get_int("axis", -1)
    return float_only(node) or ("" if _last_axis(node, axis) else f"works along the last axis only, not axis {axis}")


def norm(node: ir.Node) -> str:
    """Float32 over the last axis, one output."""
    axis = node.attributes.get_int("axis", -1)
    if len(node.outputs) > 1 and any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return "only the first output is made"
    return "" if _last_axis(node, axis) else f"normalises the last axis only, not from axis {axis}"


def constant_after(first: int) -> Rule:
    """Return the rule that the inputs from place ``first`` on are constant."""

    def rule(node: ir.Node) -> str:
        late = [value for value in node.inputs[first:] if value is not None and value.const_value is None]
        return f"'{late[0].name}' must be constant" if late else ""

    rule.__doc__ = "Operands that say how data moves are constant."
    return rule


def constant_bounds(node: ir.Node) -> str:
    """Constant bounds."""
    return constant_after(1)(node)


def expand(node: ir.Node) -> str:
    """Any type; the shape is static."""
    return ""


def concat(node: ir.Node) -> str:
    """Any type, any axis."""
    return ""


def pad(node: ir.Node) -> str:
    """Any type; the pads are constant, not negative, for all axes, and filled with one value."""
    pads = node.inputs[1] if len(node.inputs) > 1 else None
    if node.attributes.get_string("mode", "constant") != "constant" or (len(node.inputs) > 3 and node.inputs[3]):
        return "fills all axes with one value only"
    if pads is None or pads.const_value is None:
        return "the pads must be constant"
    return "" if (pads.const_value.numpy() >= 0).all() else "the pads must not be negative"


def gather(node: ir.Node) -> str:
    """Along axis 0, or along any axis with a constant scalar index."""
    axis = node.attributes.get_int("axis", 0)
    index = node.inputs[1]
    if index is not None and index.const_value is not None and index.const_value.size == 1:
        return ""
    return "" if axis == 0 else f"picks along axis 0 only, not axis {axis}"


def scatter(node: ir.Node) -> str:
    """Rows of the first dimension, by one index each; no reduction."""
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    if node.attributes.get_string("reduction", "none") != "none":
        return "writes rows, without a reduction"
    if shape is None or len(shape) != 2 or shape[-1] != 1:
        return f"takes one index a row, [rows, 1], not {list(shape or ())}"
    return ""


def quantize(node: ir.Node) -> str:
    """Float32 to int8 or uint8, one scale a row or one for all; one zero point."""
    if _dtype(node.inputs[0]) != "FLOAT" or _dtype(node.outputs[0]) not in ("INT8", "UINT8"):
        return f"makes int8 and uint8 of float32, not {_dtype(node.outputs[0])} of {_dtype(node.inputs[0])}"
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is None or (zero.shape is not None and zero.shape.numpy() in ((), (1,))):
        return ""
    if zero.const_value is None or len(set(zero.const_value.numpy().reshape(-1).tolist())) > 1:
        return "the zero point must be one number"
    return ""


def matmul(node: ir.Node) -> str:
    """Two float32 tensors of two or more dimensions."""
    ranks = [len(value.shape) for value in node.inputs if value is not None and value.shape is not None]
    return float_only(node) or ("" if min(ranks) >= 2 else "works on tensors of two or more dimensions")


def pool(node: ir.Node) -> str:
    """Images or signals, float32, without indices; explicit padding."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) not in (3, 4):
        return "works on images of one or two dimensions"
    if len(node.outputs) > 1:
        return "does not make indices"
    if int_attribute(node, "ceil_mode", 0) or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "padding must be explicit"
    return float_only(node)


def constant_weight(node: ir.Node) -> str:
    """The weight is constant; see the linears."""
    weight = node.inputs[1]
    return "" if weight is not None and weight.const_value is not None else "the weight must be constant"


def integer_product(node: ir.Node) -> str:
    """The weight is constant (see the linears), or both operands are int8 made at run time, without zero points."""
    if not constant_weight(node):
        return ""
    types = {_dtype(value) for value in node.inputs[:2]}
    if types != {"INT8"} or any(value is not None for value in node.inputs[2:]):
        return "the weight must be constant, or both operands int8 without zero points"
    return ""


def conv(node: ir.Node) -> str:
    """The weight is constant; images or signals."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) not in (3, 4):
        return "works on images of one or two dimensions"
    return constant_weight(node)

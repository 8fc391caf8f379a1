"""The operators that run on the machine itself, once each: the rule to meet and how closely results are checked.

An operator that is not here, or whose rule a node breaks, runs as a host segment; the sentence says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .edit import int_attribute

if TYPE_CHECKING:
    import onnx_ir as ir

#: Returns why a node cannot run natively, or an empty string.
Rule = Callable[["ir.Node"], str]


@dataclass(frozen=True)
class Tolerance:
    """|difference| <= c * 2^-23 * scale, against onnxruntime on the same inputs.

    ``scale`` is what the error is relative to: ``element``, each reference value itself; ``row``, the greatest of its
    row (last axis); ``sum``, the sum of the magnitudes that were added up; ``unit``, 1 (a larger value itself).
    """

    c: float
    scale: str


@dataclass(frozen=True)
class Operator:
    """One operator of ONNX: ``kind`` is the way it is lowered, ``tolerance`` how closely it must agree."""

    op_type: str
    kind: str
    tolerance: Tolerance
    rule: Rule


EXACT = Tolerance(0, "element")
#: Two roundings of the same real value: the reference library's own functions are that accurate for these.
ROUNDED = Tolerance(2, "element")
#: Sums in another order: the error of n additions, relative to the sum of magnitudes, grows like sqrt(n) or slower.
SUMMED = Tolerance(16, "sum")


def _fine(_node: ir.Node) -> str:
    return ""


def _dtype(value: ir.Value | None) -> str:
    return value.dtype.name if value is not None and value.dtype is not None else "?"


def _last_axis(node: ir.Node, axis: int) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return shape is not None and axis in (-1, len(shape) - 1)


def _float_only(node: ir.Node) -> str:
    """Works on float32 tensors only."""
    bad = {_dtype(value) for value in (*node.inputs, *node.outputs) if value is not None} - {"FLOAT"}
    return f"works on float32, not {', '.join(sorted(bad))}" if bad else ""


def _float_input(node: ir.Node) -> str:
    """Reads a float32 tensor."""
    dtype = _dtype(node.inputs[0])
    return "" if dtype == "FLOAT" else f"reads float32, not {dtype}"


NUMBERS = {"FLOAT", "INT32", "INT64"}


def _numbers(node: ir.Node) -> str:
    """Works on float32, int32 and int64."""
    bad = {_dtype(value) for value in node.inputs if value is not None} - NUMBERS
    return f"works on float32, int32 and int64, not {', '.join(sorted(bad))}" if bad else ""


def _truth(node: ir.Node) -> str:
    """Works on truth values only."""
    bad = {_dtype(value) for value in node.inputs if value is not None} - {"BOOL"}
    return f"works on truth values, not {', '.join(sorted(bad))}" if bad else ""


def _cast(node: ir.Node) -> str:
    """Converts between float32, int32, int64, int8, uint8 and truth values."""
    known = NUMBERS | {"BOOL", "INT8", "UINT8"}
    bad = {_dtype(node.inputs[0]), _dtype(node.outputs[0])} - known
    return f"no conversion for {', '.join(sorted(bad))}" if bad else ""


def _where(node: ir.Node) -> str:
    """Picks between float32, int32 or int64 tensors."""
    bad = {_dtype(value) for value in node.inputs[1:] if value is not None} - NUMBERS
    return f"works on float32, int32 and int64, not {', '.join(sorted(bad))}" if bad else ""


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


def _reduce(node: ir.Node) -> str:
    """Reduces float32 over the last axes; the axes are constant."""
    axes = reduce_axes(node)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if _dtype(node.inputs[0]) != "FLOAT" or shape is None:
        return f"reduces float32, not {_dtype(node.inputs[0])}"
    if axes is None or axes != tuple(range(len(shape) - len(axes), len(shape))):
        return f"reduces the last axes only, not axes {axes}"
    return ""


def _softmax(node: ir.Node) -> str:
    """Float32 over the last axis."""
    axis = node.attributes.get_int("axis", -1)
    return _float_only(node) or ("" if _last_axis(node, axis) else f"works along the last axis only, not axis {axis}")


def _norm(node: ir.Node) -> str:
    """Float32 over the last axis, one output."""
    axis = node.attributes.get_int("axis", -1)
    if len(node.outputs) > 1 and any(out.uses() for out in node.outputs[1:]):
        return "only the first output is made"
    return "" if _last_axis(node, axis) else f"normalises the last axis only, not from axis {axis}"


def _constant_after(first: int) -> Rule:
    def rule(node: ir.Node) -> str:
        late = [value for value in node.inputs[first:] if value is not None and value.const_value is None]
        return f"'{late[0].name}' must be constant" if late else ""

    rule.__doc__ = "Operands that say how data moves are constant."
    return rule


def _slice(node: ir.Node) -> str:
    """Constant bounds."""
    return _constant_after(1)(node)


def _expand(node: ir.Node) -> str:
    """Any type; the shape is static."""
    return ""


def _concat(node: ir.Node) -> str:
    """Any type, any axis."""
    return ""


def _gather(node: ir.Node) -> str:
    """Along axis 0, or along any axis with a constant scalar index."""
    axis = node.attributes.get_int("axis", 0)
    index = node.inputs[1]
    if index is not None and index.const_value is not None and index.const_value.size == 1:
        return ""
    return "" if axis == 0 else f"picks along axis 0 only, not axis {axis}"


def _quantize(node: ir.Node) -> str:
    """Float32 to int8 or uint8, one scale a row or one for all."""
    if _dtype(node.inputs[0]) != "FLOAT" or _dtype(node.outputs[0]) not in ("INT8", "UINT8"):
        return f"makes int8 and uint8 of float32, not {_dtype(node.outputs[0])} of {_dtype(node.inputs[0])}"
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and (zero.const_value is None or len(set(zero.const_value.numpy().reshape(-1).tolist())) > 1):
        return "the zero point must be one constant"
    return ""


def _matmul(node: ir.Node) -> str:
    """Two float32 tensors of two or more dimensions."""
    ranks = [len(value.shape) for value in node.inputs if value is not None and value.shape is not None]
    return _float_only(node) or ("" if min(ranks) >= 2 else "works on tensors of two or more dimensions")


def _max_pool(node: ir.Node) -> str:
    """Two-dimensional, floor mode, without indices."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) != 4 or shape[0] != 1:
        return "works on one image of two dimensions"
    if len(node.outputs) > 1 or int_attribute(node, "ceil_mode", 0):
        return "neither indices nor ceil_mode"
    return _float_only(node)


def _array(node: ir.Node) -> str:
    """The weight is constant; see the linears."""
    weight = node.inputs[1]
    return "" if weight is not None and weight.const_value is not None else "the weight must be constant"


def _integer_product(node: ir.Node) -> str:
    """The weight is constant (see the linears), or both operands are int8 made at run time, without zero points."""
    if not _array(node):
        return ""
    types = {_dtype(value) for value in node.inputs[:2]}
    if types != {"INT8"} or any(value is not None for value in node.inputs[2:]):
        return "the weight must be constant, or both operands int8 without zero points"
    return ""


def _conv(node: ir.Node) -> str:
    """The weight is constant; one image or signal."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) not in (3, 4) or shape[0] != 1:
        return "works on one image of one or two dimensions"
    return _array(node)


_LIST: tuple[tuple[str, str, Tolerance, Rule], ...] = (
    ("Add", "row", EXACT, _numbers),
    ("Sub", "row", EXACT, _numbers),
    ("Mul", "row", EXACT, _numbers),
    ("Div", "row", ROUNDED, _float_only),
    ("Max", "row", EXACT, _float_only),
    ("Min", "row", EXACT, _float_only),
    ("Pow", "row", Tolerance(4, "element"), _float_only),
    ("Equal", "row", EXACT, _numbers),
    ("Less", "row", EXACT, _numbers),
    ("LessOrEqual", "row", EXACT, _numbers),
    ("Greater", "row", EXACT, _numbers),
    ("GreaterOrEqual", "row", EXACT, _numbers),
    ("And", "row", EXACT, _truth),
    ("Or", "row", EXACT, _truth),
    ("Xor", "row", EXACT, _truth),
    ("Not", "row", EXACT, _truth),
    ("Where", "row", EXACT, _where),
    ("Cast", "row", EXACT, _cast),
    ("Abs", "row", EXACT, _float_only),
    ("Neg", "row", EXACT, _numbers),
    ("Sqrt", "row", ROUNDED, _float_only),
    ("Reciprocal", "row", ROUNDED, _float_only),
    ("Exp", "row", Tolerance(8, "element"), _float_only),
    ("Log", "row", Tolerance(8, "element"), _float_only),
    ("Tanh", "row", Tolerance(8, "unit"), _float_only),
    ("Erf", "row", Tolerance(4, "unit"), _float_only),
    ("Sigmoid", "row", Tolerance(4, "unit"), _float_only),
    ("Softplus", "row", Tolerance(4, "unit"), _float_only),
    ("Gelu", "row", Tolerance(8, "row"), _float_only),
    ("Floor", "row", EXACT, _float_only),
    ("Ceil", "row", EXACT, _float_only),
    ("Round", "row", EXACT, _float_only),
    ("Sin", "row", Tolerance(4, "unit"), _float_only),
    ("Cos", "row", Tolerance(4, "unit"), _float_only),
    ("Sign", "row", EXACT, _float_only),
    ("IsNaN", "row", EXACT, _float_input),
    ("Relu", "row", EXACT, _float_only),
    ("Clip", "row", EXACT, _constant_after(1)),
    ("LeakyRelu", "row", ROUNDED, _float_only),
    ("HardSwish", "row", Tolerance(2, "row"), _float_only),
    ("HardSigmoid", "row", Tolerance(2, "unit"), _float_only),
    ("ReduceMean", "reduce", SUMMED, _reduce),
    ("ReduceSum", "reduce", SUMMED, _reduce),
    ("ReduceMax", "reduce", EXACT, _reduce),
    ("ReduceMin", "reduce", EXACT, _reduce),
    ("GlobalAveragePool", "reduce", SUMMED, _fine),
    ("Softmax", "row_axis", Tolerance(16, "row"), _softmax),
    ("LayerNormalization", "row_axis", Tolerance(8, "sum"), _norm),
    ("RMSNormalization", "row_axis", Tolerance(8, "row"), _norm),
    ("QuantizeLinear", "row_axis", EXACT, _quantize),
    ("Reshape", "view", EXACT, _constant_after(1)),
    ("Flatten", "view", EXACT, _fine),
    ("Squeeze", "view", EXACT, _constant_after(1)),
    ("Unsqueeze", "view", EXACT, _constant_after(1)),
    ("Identity", "view", EXACT, _fine),
    ("Transpose", "view", EXACT, _fine),
    ("Slice", "view", EXACT, _slice),
    ("Split", "view", EXACT, _constant_after(1)),
    ("Expand", "view", EXACT, _expand),
    ("Concat", "concat", EXACT, _concat),
    ("Gather", "gather", EXACT, _gather),
    ("MatMul", "matmul", Tolerance(16, "sum"), _matmul),
    ("MaxPool", "pool", EXACT, _max_pool),
    ("MatMulInteger", "linear", EXACT, _integer_product),
    ("ConvInteger", "conv", EXACT, _conv),
)

OPERATORS = {name: Operator(name, kind, tolerance, rule) for name, kind, tolerance, rule in _LIST}


def native(node: ir.Node) -> tuple[Operator | None, str]:
    """Return (operator, "") where the machine runs the node itself, else (None, the reason why the host must)."""
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        return None, f"{node.op_type} has no lowering to the machine"
    reason = operator.rule(node)
    return (None, f"{node.op_type}: {reason}") if reason else (operator, "")

"""Operators of onnxruntime's own domain, com.microsoft, that its quantisers and optimisers write, in standard ones.

Their definitions: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from . import packed, wide
from .codes import Codes
from .edit import Editor, constant_array, float_attribute, int_attribute, shape_of
from .integer import dequantised, reduced
from .rewrite import fused, grouped_query
from .rewrite.site import at_site

DOMAIN = "com.microsoft"
_FLOAT = int(ir.DataType.FLOAT)
Rule = Callable[[ir.Node, Editor], bool]


def _inputs(node: ir.Node, count: int) -> list[ir.Value | None]:
    """Return that many inputs, None for each that is left out."""
    given = list(node.inputs)[:count]
    return [*given, *[None] * (count - len(given))]


def _quantised(node: ir.Node, value: ir.Value, scale: ir.Value | None, zero: ir.Value | None, editor: Editor) -> None:
    """Put a QuantizeLinear of a value in the node's place."""
    inputs = [value, scale, zero] if zero is not None else [value, scale]
    editor.substitute(node, [editor.insert(node, "QuantizeLinear", inputs, suffix=".codes")])


def _operand(node: ir.Node, parts: Sequence[ir.Value | None], editor: Editor, suffix: str) -> ir.Value:
    """Emit the dequantisation of an operand given as codes, scale and zero point."""
    codes, scale, zero = parts
    assert codes is not None, "an operand has codes"
    assert scale is not None, "an operand has a scale"
    return dequantised(node, Codes(codes, scale, zero, len(shape_of(codes)) - 1), editor, suffix)


def _two(op: str) -> Rule:
    """QLinearAdd, QLinearMul: (a, its scale, zero point, b, its scale, zero point, scale and zero point of the sum)."""

    def rule(node: ir.Node, editor: Editor) -> bool:
        inputs = _inputs(node, 8)
        a, b = _operand(node, inputs[:3], editor, ".a"), _operand(node, inputs[3:6], editor, ".b")
        _quantised(node, editor.insert(node, op, [a, b], suffix=".float"), inputs[6], inputs[7], editor)
        return True

    rule.__doc__ = f"{op} of what the operands stand for, quantised again."
    return rule


def _one(op: str, *passed: str) -> Rule:
    """An operator of one operand: (x, its scale, zero point, scale and zero point of the result)."""

    def rule(node: ir.Node, editor: Editor) -> bool:
        inputs = _inputs(node, 5)
        if int_attribute(node, "channels_last", 0):
            return False
        x = _operand(node, inputs[:3], editor, ".x")
        attributes = [node.attributes[name] for name in passed if name in node.attributes]
        value = editor.insert(node, op, [x], suffix=".float", attributes=attributes)
        _quantised(node, value, inputs[3], inputs[4], editor)
        return True

    rule.__doc__ = f"{op} of what the operand stands for, quantised again; channels first."
    return rule


def _concat(node: ir.Node, editor: Editor) -> bool:
    """QLinearConcat: (scale and zero point of the result, then x, its scale, zero point of every operand)."""
    inputs = list(node.inputs)
    parts = [_operand(node, inputs[place : place + 3], editor, f".{place}") for place in range(2, len(inputs), 3)]
    value = editor.insert(node, "Concat", parts, suffix=".float", attributes=[node.attributes["axis"]])
    _quantised(node, value, inputs[0], inputs[1], editor)
    return True


def _reduce_mean(node: ir.Node, editor: Editor) -> bool:
    """QLinearReduceMean, with axes as an attribute."""
    inputs = _inputs(node, 5)
    x = _operand(node, inputs[:3], editor, ".x")
    axes = node.attributes.get_ints("axes") or range(len(shape_of(node.inputs[0] or x)))
    value = reduced(node, "ReduceMean", x, axes, editor, keep=int_attribute(node, "keepdims", 1))
    _quantised(node, value, inputs[3], inputs[4], editor)
    return True


def _where(node: ir.Node, editor: Editor) -> bool:
    """QLinearWhere: (condition, x, its scale, zero point, y, its scale, zero point, then the result's)."""
    inputs = _inputs(node, 9)
    x, y = _operand(node, inputs[1:4], editor, ".x"), _operand(node, inputs[4:7], editor, ".y")
    _quantised(node, editor.insert(node, "Where", [inputs[0], x, y], suffix=".float"), inputs[7], inputs[8], editor)
    return True


def _matmul_integer_to_float(node: ir.Node, editor: Editor) -> bool:
    """MatMulIntegerToFloat: (a, b, scale of a, scale of b, zero point of a, zero point of b, bias)."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = _inputs(node, 7)
    return _dequantised_product(node, (a, a_scale, a_zero), (b, b_scale, b_zero), bias, editor)


def _dynamic_quantize_matmul(node: ir.Node, editor: Editor) -> bool:
    """DynamicQuantizeMatMul: (a in float, b, scale of b, zero point of b, bias)."""
    a, b, b_scale, b_zero, bias = _inputs(node, 5)
    dynamic = ir.Node("", "DynamicQuantizeLinear", [a], num_outputs=3, name=f"{node.name}.quantise")
    for name, output in zip(("codes", "scale", "zero"), dynamic.outputs, strict=True):
        output.name = f"{node.outputs[0].name}.{name}"
    editor.adopt(node, dynamic)
    codes, scale, zero = dynamic.outputs
    return _dequantised_product(node, (codes, scale, zero), (b, b_scale, b_zero), bias, editor)


def _dequantised_product(
    node: ir.Node,
    a: Sequence[ir.Value | None],
    b: Sequence[ir.Value | None],
    bias: ir.Value | None,
    editor: Editor,
) -> bool:
    left, right = (_late(node, each, editor, suffix) for each, suffix in ((a, ".a"), (b, ".b")))
    result = editor.insert(node, "MatMul", [left, right], suffix=".product")
    if bias is not None:
        result = editor.insert(node, "Add", [result, bias], suffix=".biased")
    editor.substitute(node, [result])
    return True


def _late(node: ir.Node, parts: Sequence[ir.Value | None], editor: Editor, suffix: str) -> ir.Value:
    """Emit a dequantisation of codes whose shape may not be known yet; scales are one for all or one a column."""
    codes, scale, zero = parts
    inputs = [codes, scale] if zero is None else [codes, scale, zero]
    known = scale is not None and scale.shape is not None and len(scale.shape) == 1 and scale.shape[0] != 1
    axis = [ir.AttrInt64("axis", -1)] if known else []
    return editor.insert(node, "DequantizeLinear", inputs, suffix=suffix, attributes=axis)


def _qgemm(node: ir.Node, editor: Editor) -> bool:
    """QGemm: (a, its scale, zero point, b, its scale, zero point, bias in int32, then the result's)."""
    a, a_scale, a_zero, b, b_scale, b_zero, bias, scale, zero = _inputs(node, 9)
    if a is None or b is None or float_attribute(node, "alpha", 1.0) != 1.0:
        return False
    columns = 0 if int_attribute(node, "transB", 0) else 1
    flags = [node.attributes[name] for name in ("transA", "transB") if name in node.attributes]
    assert b_scale is not None, "the operator has a scale for b"
    left = _operand(node, (a, a_scale, a_zero), editor, ".a")
    right = dequantised(node, Codes(b, b_scale, b_zero, columns), editor, ".b")
    inputs = [left, right]
    if bias is not None:
        own = [constant_array(each) for each in (a_scale, b_scale)]
        if own[0] is None or own[1] is None:
            return False
        factor = (own[0].reshape(()) * own[1].reshape(-1)).astype(np.float32)
        factor = factor.reshape(()) if factor.size == 1 else factor
        scales = editor.constant(f"{node.name}.bias_scale", factor)
        inputs.append(dequantised(node, Codes(bias, scales, None, len(shape_of(bias)) - 1), editor, ".bias"))
    result = editor.insert(node, "Gemm", inputs, suffix=".float", attributes=flags)
    if scale is None:
        editor.substitute(node, [result])
    else:
        _quantised(node, result, scale, zero, editor)
    return True


_POOLING = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
#: The rules for each operator of the domain.
CONTRIB: dict[str, tuple[Rule, ...]] = {
    "QuantizeLinear": (wide.standard,),
    "DequantizeLinear": (wide.standard,),
    "QLinearAdd": (_two("Add"),),
    "QLinearMul": (_two("Mul"),),
    "QLinearSigmoid": (_one("Sigmoid"),),
    "QLinearLeakyRelu": (_one("LeakyRelu", "alpha"),),
    "QLinearSoftmax": (_one("Softmax", "axis"),),
    "QLinearGlobalAveragePool": (_one("GlobalAveragePool"),),
    "QLinearAveragePool": (_one("AveragePool", *_POOLING),),
    "QLinearConcat": (_concat,),
    "QLinearReduceMean": (_reduce_mean,),
    "QLinearWhere": (_where,),
    "MatMulIntegerToFloat": (_matmul_integer_to_float,),
    "DynamicQuantizeMatMul": (_dynamic_quantize_matmul,),
    "QGemm": (_qgemm,),
    **{name: (rule,) for name, rule in packed.RULES.items()},
    **{name: (at_site(rule),) for name, rule in (fused.RULES | grouped_query.RULES).items()},
}

"""Canonical linears: whatever the exporter wrote becomes ``MatMul(x, W[K, N])`` or ``Conv(x, W, b)``.

A rule looks at one node whose inputs have final types. It either leaves the node and returns False, or puts new nodes
in its place through the editor and returns True.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import chosen, codes, expert_einsum, experts, integer, wide
from .edit import Editor, constant_array, float_attribute, int_attribute, is_constant, shape_of
from .recurrent import GATES, recurrent

Rule = Callable[[ir.Node, Editor], bool]
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


def _gemm(node: ir.Node, editor: Editor) -> bool:
    """Gemm -> MatMul and Add; constants take up transB, alpha and beta."""
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None or left.dtype not in _FLOATS:
        return False
    if int_attribute(node, "transA", 0):
        left = _swapped(node, left, editor, ".a")
    if int_attribute(node, "transB", 0):
        right = _swapped(node, right, editor, ".b")
    alpha = float_attribute(node, "alpha", 1.0)
    if is_constant(right):
        result = editor.insert(node, "MatMul", [left, _scaled(node, right, alpha, editor, ".alpha")])
    else:
        product = editor.insert(node, "MatMul", [left, right])
        product.type = left.type
        result = _scaled(node, product, alpha, editor, ".alpha")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (beta := float_attribute(node, "beta", 1.0)) != 0.0:
        result = editor.insert(node, "Add", [result, _scaled(node, bias, beta, editor, ".beta")], suffix=".bias")
    editor.substitute(node, [result])
    return True


def _swapped(node: ir.Node, value: ir.Value, editor: Editor, suffix: str) -> ir.Value:
    """Return ``value`` with its last two axes swapped: a view of a constant, a Transpose of anything else."""
    array = constant_array(value)
    if array is not None:
        return editor.constant(f"{value.name}.T", array.swapaxes(-1, -2), value.dtype)
    return _transposed(node, value, len(shape_of(value)), editor, suffix)


def _transposed(node: ir.Node, value: ir.Value, rank: int, editor: Editor, suffix: str) -> ir.Value:
    perm = ir.AttrInt64s("perm", [*range(rank - 2), rank - 1, rank - 2])
    return editor.insert(node, "Transpose", [value], suffix=suffix, attributes=[perm])


def _scaled(node: ir.Node, value: ir.Value, factor: float, editor: Editor, suffix: str) -> ir.Value:
    if factor == 1.0:
        return value
    array = constant_array(value)
    if array is not None:
        return editor.constant(f"{value.name}{suffix}", (array * factor).astype(array.dtype), value.dtype)
    scale = editor.constant(f"{node.name}{suffix}", np.array(factor, dtype=constant_dtype(value)), value.dtype)
    return editor.insert(node, "Mul", [value, scale], suffix=suffix)


def _matmul(node: ir.Node, editor: Editor) -> bool:
    """Bring the constant operand of a MatMul to the right and to rank 2; a reduction of length 1 is a Mul."""
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None:
        return False
    a, b = shape_of(left), shape_of(right)
    if len(a) >= 2 and len(b) >= 2 and a[-1] == 1:
        editor.substitute(node, [editor.insert(node, "Mul", [left, right])])
        return True
    if is_constant(right):
        return _flatten_right(node, left, right, editor)
    return is_constant(left) and _move_left(node, left, right, editor)


def _flatten_right(node: ir.Node, left: ir.Value, right: ir.Value, editor: Editor) -> bool:
    dims, array = shape_of(right), constant_array(right)
    if array is None or len(dims) <= 2 or max(dims[:-2]) > 1 or len(shape_of(left)) < len(dims):
        return False
    weight = editor.constant(f"{right.name}.2d", array.reshape(dims[-2:]), right.dtype)
    editor.substitute(node, [editor.insert(node, "MatMul", [left, weight])])
    return True


def _move_left(node: ir.Node, left: ir.Value, right: ir.Value, editor: Editor) -> bool:
    """MatMul(W, x) -> Transpose(MatMul(Transpose(x), W transposed))."""
    dims, rank, array = shape_of(left), len(shape_of(right)), constant_array(left)
    if array is None or len(dims) < 2 or max(dims[:-2], default=1) > 1 or len(dims) > max(rank, 2):
        return False
    weight = editor.constant(f"{left.name}.T", array.reshape(dims[-2:]).T, left.dtype)
    if rank == 1:
        result = editor.insert(node, "MatMul", [right, weight])
    else:
        swapped = _swapped(node, right, editor, ".x")
        product = editor.insert(node, "MatMul", [swapped, weight])
        result = _transposed(node, product, rank, editor, ".y")
    editor.substitute(node, [result])
    return True


def _batch_normalization(node: ir.Node, editor: Editor) -> bool:
    """Inference BatchNormalization -> part of the Conv before it, or Mul and Add."""
    value = node.inputs[0]
    params = [constant_array(each) for each in node.inputs[1:5]]
    scale, shift, mean, variance = (None if each is None else each.astype(np.float64) for each in params)
    if value is None or int_attribute(node, "training_mode", 0) or len(node.outputs) > 1:
        return False
    if scale is None or shift is None or mean is None or variance is None:
        return False
    factor = scale / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    offset = shift - mean * factor
    conv = value.producer()
    if conv is not None and _foldable_conv(conv, value):
        return _into_conv(node, conv, factor, offset, editor)
    column = (-1,) + (1,) * (len(shape_of(value)) - 2)
    dtype = constant_dtype(value)
    factors = editor.constant(f"{node.name}.scale", factor.astype(dtype).reshape(column), value.dtype)
    offsets = editor.constant(f"{node.name}.shift", offset.astype(dtype).reshape(column), value.dtype)
    product = editor.insert(node, "Mul", [value, factors], suffix=".scale")
    editor.substitute(node, [editor.insert(node, "Add", [product, offsets])])
    return True


def constant_dtype(value: ir.Value) -> np.dtype:
    """Return numpy's type for the elements of ``value``."""
    return (value.dtype or ir.DataType.FLOAT).numpy()


def _foldable_conv(conv: ir.Node, value: ir.Value) -> bool:
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    constant = conv.op_type == "Conv" and conv.domain == "" and is_constant(conv.inputs[1])
    return alone and constant and (bias is None or is_constant(bias))


def _into_conv(node: ir.Node, conv: ir.Node, factor: np.ndarray, offset: np.ndarray, editor: Editor) -> bool:
    weight = conv.inputs[1]
    array, bias = constant_array(weight), constant_array(conv.inputs[2] if len(conv.inputs) > 2 else None)
    if weight is None or array is None:
        return False
    scaled = array.astype(np.float64) * factor.reshape((-1,) + (1,) * (array.ndim - 1))
    moved = offset if bias is None else offset + bias.astype(np.float64) * factor
    new_weight = editor.constant(f"{weight.name}.bn", scaled.astype(array.dtype), weight.dtype)
    new_bias = editor.constant(f"{conv.name}.bias", moved.astype(array.dtype), weight.dtype)
    conv.resize_inputs(3)
    conv.replace_input_with(1, new_weight)
    conv.replace_input_with(2, new_bias)
    editor.substitute(node, [conv.outputs[0]])
    return True


def _conv(node: ir.Node, _editor: Editor) -> bool:
    """Conv of a zero-padded value -> Conv with that padding."""
    value = node.inputs[0]
    pad = value.producer() if value is not None else None
    auto = node.attributes.get("auto_pad")
    if pad is None or pad.op_type != "Pad" or pad.domain != "" or (auto and auto.as_string() != "NOTSET"):
        return False
    pads = _zero_padding(pad)
    spatial = len(shape_of(pad.outputs[0])) - 2
    if pads is None or len(pads) != 2 * (spatial + 2) or any(pads[axis] for axis in (0, 1, spatial + 2, spatial + 3)):
        return False
    own = node.attributes.get("pads")
    before = list(own.as_ints()) if own else [0] * (2 * spatial)
    added = [*pads[2 : 2 + spatial], *pads[4 + spatial :]]
    node.attributes["pads"] = ir.AttrInt64s("pads", [old + new for old, new in zip(before, added, strict=True)])
    node.replace_input_with(0, pad.inputs[0])
    return False  # the node stays, and so does its output type


def _zero_padding(pad: ir.Node) -> list[int] | None:
    """Return the pads of a Pad over all axes that adds zeros and cuts nothing away, else None."""
    mode, pads = pad.attributes.get("mode"), constant_array(pad.inputs[1])
    number, axes = (pad.inputs[i] if len(pad.inputs) > i else None for i in (2, 3))
    fill = constant_array(number)
    if (mode and mode.as_string() != "constant") or pads is None or axes is not None or (pads < 0).any():
        return None
    if number is not None and (fill is None or fill.any()):
        return None
    return [int(each) for each in pads]


def _einsum(node: ir.Node, editor: Editor) -> bool:
    """Einsum that is a plain linear (``...k,kn->...n`` or ``...k,nk->...n``) -> MatMul."""
    if len(node.inputs) != 2:
        return False
    terms, _, out = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    names = terms.split(",")
    operands = [value for value in node.inputs if value is not None]
    if is_constant(operands[0]):
        names, operands = names[::-1], operands[::-1]
    x, w = names
    if not is_constant(operands[1]) or len(w) != 2 or "." in w or not x or x[-1] not in w:
        return False
    column = w.replace(x[-1], "", 1)
    if out != x[:-1] + column or column in x or x[-1] in x[:-1]:
        return False
    weight = operands[1] if w[0] == x[-1] else _swapped(node, operands[1], editor, ".b")
    editor.substitute(node, [editor.insert(node, "MatMul", [operands[0], weight])])
    return True


#: The rules for each operator, in the order they are tried until one applies.
RULES: dict[str, tuple[Rule, ...]] = {
    "Gemm": (_gemm,),
    "MatMul": (
        integer.left_weight,
        integer.flat_weight,
        integer.quantised_product,
        integer.numbers_instead,
        _matmul,
        experts.stacked_experts,
        chosen.chosen_experts,
    ),
    "GatherND": (chosen.gather_one_axis,),
    "BatchNormalization": (_batch_normalization,),
    "Conv": (_conv, integer.quantised_product, integer.numbers_instead),
    "Einsum": (integer.numbers_instead, expert_einsum.chosen_einsum, _einsum),
    "DequantizeLinear": (codes.dequantise, wide.dequantise_wide),
    "Add": (integer.bias_into_sums,),
    "QuantizeLinear": (wide.quantise_wide, integer.requantised),
    "DynamicQuantizeLinear": (integer.dynamic_quantise,),
    "QLinearMatMul": (integer.quantised_linear,),
    "QLinearConv": (integer.quantised_linear,),
    **dict.fromkeys(codes.VIEWS, (codes.through_view,)),
    **dict.fromkeys(GATES, (recurrent,)),
}

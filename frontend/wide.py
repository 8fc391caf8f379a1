"""Codes of 16 bits: activations that quantisers write with more than a byte, as fake quantisation in float32.

The vector unit quantises to bytes; for 16 bits it takes the steps of the definition, which float32 holds exactly:

    q = Clip(Round(x / scale) + zero point, least, greatest)        x' = (q - zero point) * scale

(ONNX operator reference, QuantizeLinear and DequantizeLinear.) An array's product of such values quantises them anew.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .codes import Codes, as_bytes, codes_read, mark_requantised
from .edit import Editor, constant_array, int_attribute, is_constant, shape_of

WIDE_KEY = "flexc.wide"
"""Metadata key of a node that makes float32 of codes of 16 bits: their type."""

_FLOAT = ir.DataType.FLOAT
WIDE = {ir.DataType.INT16, ir.DataType.UINT16}


def quantise_wide(node: ir.Node, editor: Editor) -> bool:
    """Codes of 16 bits: Clip(Round(x / scale) + zero point), in float32."""
    x, scale, zero = [*node.inputs, None][:3]
    dtype = zero.dtype if zero is not None else node.outputs[0].dtype
    if x is None or scale is None or dtype not in WIDE or int_attribute(node, "block_size", 0):
        return False
    found = Codes(x, scale, zero, int_attribute(node, "axis", 1) % max(1, len(shape_of(x))))
    limits = np.iinfo(dtype.numpy())
    low, high = (editor.constant("limit", np.array(each, np.float32)) for each in (limits.min, limits.max))
    value = editor.insert(node, "Div", [x, _along(node, scale, found, editor)], suffix=".scaled")
    value = editor.insert(node, "Round", [value], suffix=".rounded")
    if zero is not None:
        value = editor.insert(node, "Add", [value, _zero(node, zero, found, editor)], suffix=".moved")
    value = editor.insert(node, "Clip", [value, low, high], suffix=".clipped")
    to = [ir.AttrInt64("to", int(dtype))]
    editor.substitute(node, [editor.insert(node, "Cast", [value], suffix=".codes", attributes=to)])
    return True


def dequantise_wide(node: ir.Node, editor: Editor) -> bool:
    """What codes of 16 bits stand for, (q - zero point) * scale, in float32."""
    found = codes_read(node)
    if found is None or found.codes.dtype not in WIDE or found.block or is_constant(found.codes):
        return False
    value = editor.insert(node, "Cast", [found.codes], suffix=".float", attributes=[ir.AttrInt64("to", int(_FLOAT))])
    if found.zero is not None:
        value = editor.insert(node, "Sub", [value, _zero(node, found.zero, found, editor)], suffix=".above_zero")
    scale = _along(node, found.scale, found, editor)
    result = editor.insert(node, "Mul", [value, scale], suffix=".scaled")
    maker = result.producer()
    assert maker is not None, "it has just been inserted"
    maker.metadata_props[WIDE_KEY] = found.codes.dtype.name
    editor.substitute(node, [result])
    return True


def _zero(node: ir.Node, zero: ir.Value, found: Codes, editor: Editor) -> ir.Value:
    array = constant_array(zero)
    if array is not None:
        zero = editor.constant(f"{node.name}.zero", array.astype(np.float32))
    else:
        zero = editor.insert(node, "Cast", [zero], suffix=".zero", attributes=[ir.AttrInt64("to", int(_FLOAT))])
    return _along(node, zero, found, editor)


def _along(node: ir.Node, numbers: ir.Value, found: Codes, editor: Editor) -> ir.Value:
    """Return one number, or one an index of the axis, in a shape that broadcasts over the codes."""
    target = [-1 if axis == found.axis else 1 for axis in range(len(shape_of(found.codes)))]
    shape: list[int] = [] if found.per_tensor else target
    array = constant_array(numbers)
    if array is not None:
        return editor.constant(f"{node.name}.{numbers.name}", array.reshape(shape))
    dims = editor.constant("shape", np.array(shape, np.int64))
    return editor.insert(node, "Reshape", [numbers, dims], suffix=f".{numbers.name}")


def standard(node: ir.Node, editor: Editor) -> bool:
    """The standard operator; codes of 16 bits, which it lacks below opset 21, in float32."""
    if (quantise_wide if node.op_type == "QuantizeLinear" else dequantise_wide)(node, editor):
        return True
    found = codes_read(node) if node.op_type == "DequantizeLinear" else None
    if found is not None and found.is_constant and found.codes.dtype in WIDE:
        mark_requantised(node.outputs[0])
        editor.substitute(node, [editor.constant(f"{found.codes.name}.numbers", found.numbers())])
        return True
    inputs = [as_bytes(value, editor) for value in node.inputs]
    made = editor.insert(node, node.op_type, inputs, suffix=".standard", attributes=node.attributes.values())
    editor.substitute(node, [made])
    return True

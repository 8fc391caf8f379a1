"""Codes that the vector unit does not make itself: activations of 16 bits, or with scales along an axis or by blocks.

The vector unit quantises to bytes, with one scale a row at most; elsewhere it takes the steps of the definition, which
float32 holds exactly:

    q = Clip(Round(x / scale) + zero point, least, greatest)        x' = (q - zero point) * scale

(ONNX operator reference, QuantizeLinear and DequantizeLinear.) An array's product of such values quantises them anew.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .codes import Codes, as_bytes, codes_read, mark_requantised
from .edit import Editor, constant_array, int_attribute, is_constant, shape_of
from .rules import quantize

WIDE_KEY = "flexc.wide"
"""Metadata key of a node that makes float32 of codes of 16 bits: their type."""

_FLOAT = ir.DataType.FLOAT
WIDE = {ir.DataType.INT16, ir.DataType.UINT16}
_KNOWN = WIDE | {ir.DataType.INT8, ir.DataType.UINT8}


def quantise_wide(node: ir.Node, editor: Editor) -> bool:
    """Codes of 16 bits, or with scales along an axis or by blocks: Clip(Round(x / scale) + zero point), in float32."""
    x, scale, zero = [*node.inputs, None][:3]
    dtype = zero.dtype if zero is not None else node.outputs[0].dtype
    if x is None or scale is None or dtype not in _KNOWN or x.dtype != _FLOAT:
        return False
    block = int_attribute(node, "block_size", 0)
    found = Codes(x, scale, zero, int_attribute(node, "axis", 1) % max(1, len(shape_of(x))), block)
    by_rows = found.per_tensor or (len(shape_of(x)) == 2 and found.axis == 0 and not block)
    if dtype not in WIDE and by_rows and not quantize(node):
        return False
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
    """What codes of 16 bits or with scales by blocks stand for: (q - zero point) * scale, in float32."""
    found = codes_read(node)
    if found is None or found.codes.dtype not in _KNOWN or is_constant(found.codes):
        return False
    if found.codes.dtype not in WIDE and not found.block:
        return False
    value = editor.insert(node, "Cast", [found.codes], suffix=".float", attributes=[ir.AttrInt64("to", int(_FLOAT))])
    if found.zero is not None:
        value = editor.insert(node, "Sub", [value, _zero(node, found.zero, found, editor)], suffix=".above_zero")
    scale = _along(node, found.scale, found, editor)
    result = editor.insert(node, "Mul", [value, scale], suffix=".scaled")
    maker = result.producer()
    assert maker is not None, "it has just been inserted"
    if found.codes.dtype in WIDE:
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
    """Return one number, or one an index of the axis or a block, in a shape that broadcasts over the codes."""
    if found.block:
        return _repeated(node, numbers, found, editor)
    target = [-1 if axis == found.axis else 1 for axis in range(len(shape_of(found.codes)))]
    shape: list[int] = [] if found.per_tensor else target
    array = constant_array(numbers)
    if array is not None:
        return editor.constant(f"{node.name}.{numbers.name}", array.reshape(shape))
    dims = editor.constant("shape", np.array(shape, np.int64))
    return editor.insert(node, "Reshape", [numbers, dims], suffix=f".{numbers.name}")


def _repeated(node: ir.Node, numbers: ir.Value, found: Codes, editor: Editor) -> ir.Value:
    """Return one number a block as one an element."""
    axis, whole, given = found.axis, shape_of(found.codes), shape_of(found.scale)

    def put(op: str, value: ir.Value, *dims: list[int]) -> ir.Value:
        inputs = [value, *(editor.constant("dims", np.array(each, np.int64)) for each in dims)]
        return editor.insert(node, op, inputs, suffix=f".{numbers.name}.{op.lower()}")

    wide = put("Unsqueeze", numbers, [axis + 1])
    wide = put("Expand", wide, [*given[: axis + 1], found.block, *given[axis + 1 :]])
    flat = put("Reshape", wide, [*given[:axis], given[axis] * found.block, *given[axis + 1 :]])
    return put("Slice", flat, [0], [whole[axis]], [axis])


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

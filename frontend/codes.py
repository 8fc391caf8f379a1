"""Weights that come quantised: integers, scale and zero point of a DequantizeLinear of constants, kept as they are.

Constant folding leaves such a node alone where a product reads it, directly or through views, so that the integers
reach the array without being quantised anew. Whoever else reads it gets the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, int_attribute, is_constant, shape_of

CODES_KEY = "flexc.codes"
"""Metadata key of a product: the integers of its weight are ``kept`` as they came, ``requantised``, or ``made``.

A Gather from a table that came quantised by blocks has ``dequantised``.
"""

#: Element types of weights that fit a cell, and of the sums that a bias is added to.
CODE_TYPES = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4}
BIAS_TYPE = ir.DataType.INT32
_BYTES: dict[ir.DataType, type[np.integer]] = {ir.DataType.INT4: np.int8, ir.DataType.UINT4: np.uint8}
#: The operand of each product that may be a weight, and its bias where it has one of its own.
_WEIGHTS = {"MatMul": (0, 1), "Gemm": (0, 1), "Conv": (1,), "Einsum": (0, 1)}
_BIASES = {"Gemm": (2,), "Conv": (2,), "Add": (0, 1)}
VIEWS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


@dataclass(frozen=True)
class Codes:
    """What a DequantizeLinear reads: value = (codes - zero) * scale.

    There is one scale for all, one an index of ``axis``, or, where ``block`` is not 0, one for so many indices of it.
    """

    codes: ir.Value
    scale: ir.Value
    zero: ir.Value | None
    axis: int
    block: int = 0

    @property
    def per_tensor(self) -> bool:
        """Whether there is one scale for all."""
        return not self.block and all(dim == 1 for dim in shape_of(self.scale))

    @property
    def is_constant(self) -> bool:
        """Whether all of it is known at compile time."""
        return all(value is None or is_constant(value) for value in (self.codes, self.scale, self.zero))

    def integers(self) -> np.ndarray:
        """Return codes - zero as int32, in the shape of the codes; they are constants."""
        codes = constant_array(self.codes)
        assert codes is not None, "the codes are constants"
        zero = constant_array(self.zero)
        wide = codes.astype(np.int32)
        return wide if zero is None else wide - self._along(zero.astype(np.int32), wide)

    def numbers(self) -> np.ndarray:
        """Return the real numbers, in the type of the scale; everything is constant."""
        scale = constant_array(self.scale)
        assert scale is not None, "the scale is a constant"
        integers = self.integers()
        real = integers.astype(np.float32) * self._along(scale.astype(np.float32), integers)
        return np.asarray(real).astype(scale.dtype)

    def _along(self, numbers: np.ndarray, integers: np.ndarray) -> np.ndarray:
        """Return scales or zero points in a shape that broadcasts over the integers."""
        if self.block:
            repeated = numbers.repeat(self.block, axis=self.axis)
            return repeated.take(range(integers.shape[self.axis]), axis=self.axis)
        if numbers.size == 1:
            return numbers.reshape(())
        return numbers.reshape([-1 if axis == self.axis else 1 for axis in range(integers.ndim)])


def codes_of(value: ir.Value | None) -> Codes | None:
    """Return what a value is dequantised from, or None where it is not."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain != "":
        return None
    return codes_read(node)


def codes_read(node: ir.Node) -> Codes | None:
    """Return what a DequantizeLinear reads, of whichever domain; None where shapes are not known."""
    block = int_attribute(node, "block_size", 0)
    codes, scale = node.inputs[0], node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if codes is None or scale is None or codes.shape is None or scale.shape is None:
        return None
    axis = int_attribute(node, "axis", 1)
    return Codes(codes, scale, zero, axis % max(1, len(codes.shape)), block)


def kept(node: ir.Node) -> bool:
    """Return whether a DequantizeLinear of constants is to stay: a product reads it, or reads a view of it."""
    return any(True for _ in _product_uses(node))


def _product_uses(node: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    """Yield the uses of a dequantised constant that lead to a product: (reader, place of the operand)."""
    found = codes_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
    if found is None or not found.is_constant:
        return
    bias = found.codes.dtype == BIAS_TYPE
    if not found.block and (bias or found.codes.dtype in CODE_TYPES):
        for use in node.outputs[0].uses():
            if _leads_to_product(use.node, use.idx, bias=bias):
                yield use.node, use.idx


def _leads_to_product(reader: ir.Node, place: int, *, bias: bool) -> bool:
    if reader.domain != "":
        return False
    if bias:
        return place in _BIASES.get(reader.op_type, ())
    if reader.op_type in VIEWS and place == 0:
        return any(_leads_to_product(use.node, use.idx, bias=False) for use in reader.outputs[0].uses())
    return place in _WEIGHTS.get(reader.op_type, ())


def folded(node: ir.Node) -> list[np.ndarray] | None:
    """Return the numbers of a DequantizeLinear of constants, unless a product needs its codes."""
    found = codes_of(node.outputs[0])
    if found is None or not found.is_constant or kept(node):
        return None
    mark_requantised(node.outputs[0])
    return [found.numbers()]


def mark_requantised(value: ir.Value) -> None:
    """Note on the products that read a dequantised constant, or a view of it, that its integers are not theirs."""
    for use in value.uses():
        if use.node.op_type in VIEWS:
            mark_requantised(use.node.outputs[0])
        elif use.idx in _WEIGHTS.get(use.node.op_type, ()):
            use.node.metadata_props[CODES_KEY] = "requantised"


def dequantise(node: ir.Node, editor: Editor) -> bool:
    """Give everyone but products the numbers of a dequantised constant; widen 4-bit codes to a byte."""
    found = codes_of(node.outputs[0])
    if found is None or not found.is_constant:
        return False
    wanted = set(_product_uses(node))
    output = node.outputs[0]
    others = [use for use in output.uses() if (use.node, use.idx) not in wanted]
    if others or not wanted:
        numbers = editor.constant(f"{found.codes.name}.numbers", found.numbers(), output.dtype)
        for use in others:
            use.node.replace_input_with(use.idx, numbers)
    for place, value in enumerate(node.inputs):
        node.replace_input_with(place, as_bytes(value, editor))
    return False


def as_bytes(value: ir.Value | None, editor: Editor) -> ir.Value | None:
    """Return a constant of 4-bit numbers as one of bytes, anything else as it is."""
    array = constant_array(value)
    wide = _BYTES.get(value.dtype) if value is not None and value.dtype is not None else None
    if value is None or array is None or wide is None:
        return value
    return editor.constant(f"{value.name}.bytes", array.astype(wide))


def through_view(node: ir.Node, editor: Editor) -> bool:
    """View of something dequantised on its way to a product -> dequantised view of it.

    A constant whose scales are no longer one an index of an axis is dequantised at compile time.
    """
    found = codes_of(node.inputs[0])
    if found is None or node.op_type not in VIEWS:
        return False
    codes = constant_array(found.codes) if found.is_constant else None
    if codes is None:
        return found.per_tensor and _leads_to_product(node, 0, bias=False) and _view_of_codes(node, found, editor)
    output = node.outputs[0]
    moved, axis = _viewed(node, codes, found)
    if axis is None:
        numbers = _viewed(node, found.numbers(), found)[0]
        editor.substitute(node, [editor.constant(f"{found.codes.name}.numbers", numbers, output.dtype)])
        return True
    inputs = [editor.constant(f"{found.codes.name}.view", moved, found.codes.dtype), found.scale]
    inputs += [] if found.zero is None else [found.zero]
    new = editor.insert(node, "DequantizeLinear", inputs, attributes=[ir.AttrInt64("axis", axis)])
    editor.substitute(node, [new])
    return True


def _view_of_codes(node: ir.Node, found: Codes, editor: Editor) -> bool:
    inputs = [found.codes, *list(node.inputs)[1:]]
    moved = editor.insert(node, node.op_type, inputs, suffix=".codes", attributes=node.attributes.values())
    parts = [moved, found.scale] if found.zero is None else [moved, found.scale, found.zero]
    editor.substitute(node, [editor.insert(node, "DequantizeLinear", parts)])
    return True


def _viewed(node: ir.Node, array: np.ndarray, found: Codes) -> tuple[np.ndarray, int | None]:
    """Return an array under a view, and where the axis of the scales is then; None where it is no longer one."""
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm") or list(range(array.ndim))[::-1]
        return array.transpose(perm), list(perm).index(found.axis)
    moved = array.reshape(shape_of(node.outputs[0]))
    if found.per_tensor:
        return moved, 0
    count, before = array.shape[found.axis], int(np.prod(array.shape[: found.axis]))
    for axis, size in enumerate(moved.shape):
        if size == count and int(np.prod(moved.shape[:axis])) == before:
            return moved, axis
    return moved, None

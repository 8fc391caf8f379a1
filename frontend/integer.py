"""Products of quantised numbers, however they are written, as integer products and what scales their sums.

``MatMul(DQ(x), DQ(W))``, ``Conv(DQ(x), DQ(W), DQ(b))``, QLinearMatMul and QLinearConv with a constant weight become

    a = MatMulInteger(x, W, zero point of x, zero point of W)        int32, exact
    a = Add(a, bias)                                                 int32, where the bias is quantised
    y = Cast(a) * (scale of x * scale of W)                          float32

and where y is quantised again by a constant scale, that scale is divided out of the factor: y' = QuantizeLinear(Cast(a)
* ((scale of x * scale of W) / scale of y), 1, zero point), as onnxruntime's QLinearMatMul and QLinearConv compute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from .codes import CODES_KEY, Codes, codes_of
from .edit import Editor, constant_array, is_constant, shape_of

Array: TypeAlias = np.ndarray

#: A quantised bias counts as one of the sums when its scale is theirs but for rounding.
_SAME_SCALE = 1e-5
_BYTES = {ir.DataType.INT8, ir.DataType.UINT8}
#: The product, the axis of its weight that is one column of the result each, and the operators it comes from.
_INTEGER = {"MatMul": ("MatMulInteger", 1), "Conv": ("ConvInteger", 0)}


class Product:
    """Emits an integer product in front of ``node``: ``op`` is MatMul or Conv, the weight a constant."""

    def __init__(self, node: ir.Node, op: str, source: Codes, weight: Codes, editor: Editor) -> None:
        self.node, self.source, self.weight, self.editor = node, source, weight, editor
        self.op, self.axis = _INTEGER[op]

    @property
    def fits(self) -> bool:
        """Whether the machine's integers can do it: bytes, one scale for all of x and for each column of W."""
        source, weight = self.source, self.weight
        small = source.codes.dtype in _BYTES and weight.codes.dtype in _BYTES
        columns = weight.per_tensor or weight.axis == self.axis
        flat = self.op == "ConvInteger" or len(shape_of(weight.codes)) == 2
        return weight.is_constant and small and source.per_tensor and columns and flat and self._zero_fits()

    def _zero_fits(self) -> bool:
        """Return whether the weight has one zero point, or none is left once it is subtracted; Conv has no others."""
        zero = self.weight.zero
        one = zero is None or zero.const_value is None or zero.const_value.size == 1
        return one or self.op == "MatMulInteger" or signed_integers(self.weight) is not None

    def sums(self, bias: Array | None = None) -> ir.Value:
        """Emit the product, and add an int32 bias, one a column."""
        node, source, weight = self.node, self.source, self.weight
        signed = signed_integers(weight)
        codes, zero = weight.codes, weight.zero
        if signed is not None:
            codes, zero = self.editor.constant(f"{weight.codes.name}.signed", signed), None
        inputs = [source.codes, codes, source.zero, zero]
        while inputs[-1] is None:
            inputs.pop()
        attributes = node.attributes.values() if self.op == "ConvInteger" else ()
        sums = self.editor.insert(node, self.op, inputs, attributes=attributes)
        if bias is None:
            return sums
        addend = self.editor.constant(f"{node.name}.addend", self._column(bias.astype(np.int32)))
        return self.editor.insert(node, "Add", [sums, addend], suffix=".with_bias")

    def scaled(self, sums: ir.Value, divisor: Array | None = None) -> ir.Value:
        """Emit float(sums) * ((scale of x * scale of W) / divisor)."""
        cast = [ir.AttrInt64("to", int(ir.DataType.FLOAT))]
        real = self.editor.insert(self.node, "Cast", [sums], suffix=".float", attributes=cast)
        return self.editor.insert(self.node, "Mul", [real, self._factor(divisor)], suffix=".scaled")

    def _factor(self, divisor: Array | None) -> ir.Value:
        weight = constant_array(self.weight.scale)
        source = constant_array(self.source.scale)
        assert weight is not None, "a weight's scale is a constant"
        if source is None:
            own = self.editor.constant(f"{self.node.name}.weight_scale", self._column(weight.astype(np.float32)))
            return self.editor.insert(self.node, "Mul", [self.source.scale, own], suffix=".factor")
        return self.editor.constant(f"{self.node.name}.factor", self._column(_factor(source, weight, divisor)))

    def bias(self, value: ir.Value | None) -> Array | None:
        """Return a bias as int32 where it is a constant quantised with the scale of the sums, else None."""
        found, scale = codes_of(value), constant_array(self.source.scale)
        weight = constant_array(self.weight.scale)
        if found is None or not found.is_constant or scale is None or weight is None:
            return None
        return found.integers().reshape(-1) if _same_scale(found, _factor(scale, weight, None)) else None

    def added(self, value: ir.Value, bias: Array) -> ir.Value:
        """Emit the addition of a float bias, one a column."""
        addend = self.editor.constant(f"{self.node.name}.bias", self._column(bias))
        return self.editor.insert(self.node, "Add", [value, addend], suffix=".biased")

    def _column(self, numbers: Array) -> Array:
        """Return numbers, one a column or one for all, in a shape that broadcasts over the result."""
        if numbers.size == 1:
            return numbers.reshape(())
        spatial = len(shape_of(self.weight.codes)) - 2 if self.op == "ConvInteger" else 0
        return numbers.reshape((-1, *[1] * spatial))


def _factor(source: Array, weight: Array, divisor: Array | None) -> Array:
    """Return (scale of x * scale of W) / scale of y in float32, rounded after each step as onnxruntime does."""
    factor = (source.astype(np.float32).reshape(()) * weight.astype(np.float32)).astype(np.float32)
    return factor if divisor is None else np.asarray(factor / divisor.astype(np.float32).reshape(()), np.float32)


def signed_integers(weight: Codes) -> Array | None:
    """Return codes - zero point as int8, or None where that does not fit."""
    integers, limits = weight.integers(), np.iinfo(np.int8)
    fits = integers.min(initial=0) >= limits.min and integers.max(initial=0) <= limits.max
    return integers.astype(np.int8) if fits else None


def numbers_of(value: ir.Value | None) -> Array | None:
    """Return the numbers of a constant, dequantised or not."""
    found = codes_of(value)
    return found.numbers() if found is not None and found.is_constant else constant_array(value)


def quantised_product(node: ir.Node, editor: Editor) -> bool:
    """MatMul or Conv of a dequantised value and a dequantised constant -> integer product."""
    weight, source = codes_of(node.inputs[1]), codes_of(node.inputs[0])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    numbers = numbers_of(bias)
    if weight is None or source is None or (bias is not None and numbers is None):
        return False
    product = Product(node, node.op_type, source, weight, editor)
    if not product.fits:
        return False
    whole = product.bias(bias)
    result = product.scaled(product.sums(whole))
    if whole is None and numbers is not None:
        result = product.added(result, numbers.reshape(-1))
    editor.substitute(node, [result])
    return True


def numbers_instead(node: ir.Node, editor: Editor) -> bool:
    """Dequantise at compile time what a product reads and neither array nor passes can take as it is."""
    for place, value in enumerate(node.inputs):
        found = codes_of(value)
        if value is None or found is None or not found.is_constant:
            continue
        axis = _INTEGER[node.op_type][1] if node.op_type in _INTEGER else None
        columns = found.codes.dtype in _BYTES and (found.per_tensor or found.axis == axis)
        flat = node.op_type == "Conv" or len(shape_of(found.codes)) == 2
        if place != 1 or not (columns and flat):
            numbers = editor.constant(f"{found.codes.name}.numbers", found.numbers(), value.dtype)
            node.replace_input_with(place, numbers)
            node.metadata_props[CODES_KEY] = "requantised"
    return False


def left_weight(node: ir.Node, editor: Editor) -> bool:
    """MatMul(DQ(W), x) -> Transpose(MatMul(Transpose(x), Transpose(DQ(W))))."""
    weight, other, known = codes_of(node.inputs[0]), node.inputs[1], codes_of(node.inputs[1])
    if weight is None or other is None or not weight.is_constant:
        return False
    rank = len(shape_of(other))
    if is_constant(other) or (known is not None and known.is_constant) or len(shape_of(weight.codes)) != 2 or rank < 2:
        return False
    swap = [ir.AttrInt64s("perm", [*range(rank - 2), rank - 1, rank - 2])]
    turned = editor.insert(node, "Transpose", [node.inputs[0]], suffix=".w", attributes=[ir.AttrInt64s("perm", [1, 0])])
    swapped = editor.insert(node, "Transpose", [other], suffix=".x", attributes=swap)
    product = editor.insert(node, "MatMul", [swapped, turned], suffix=".product")
    editor.substitute(node, [editor.insert(node, "Transpose", [product], suffix=".y", attributes=swap)])
    return True


def flat_weight(node: ir.Node, editor: Editor) -> bool:
    """MatMul(x, DQ(W[1, K, N])) -> MatMul(x, DQ(W[K, N]))."""
    weight, left = codes_of(node.inputs[1]), node.inputs[0]
    dims = shape_of(weight.codes) if weight is not None and weight.is_constant else ()
    if len(dims) <= 2 or max(dims[:-2]) > 1 or left is None or len(shape_of(left)) < len(dims):
        return False
    target = editor.constant(f"{node.name}.2d", np.array(dims[-2:], np.int64))
    flat = editor.insert(node, "Reshape", [node.inputs[1], target], suffix=".2d")
    editor.substitute(node, [editor.insert(node, "MatMul", [left, flat], suffix=".product")])
    return True


def quantised_linear(node: ir.Node, editor: Editor) -> bool:
    """QLinearMatMul, QLinearConv -> integer product, quantised again; of two activations: dequantised ones."""
    x, w = _operand(node, 0), _operand(node, 3)
    scale, zero = node.inputs[6], node.inputs[7]
    assert scale is not None, "the operator has a scale for its result"
    op = node.op_type.removeprefix("QLinear")
    divisor = constant_array(scale)
    product = Product(node, op, x, w, editor)
    bias = constant_array(node.inputs[8] if len(node.inputs) > 8 else None)
    if w.is_constant and divisor is not None and divisor.size == 1 and product.fits and is_constant(x.scale):
        result = product.scaled(product.sums(bias), divisor)
        scale = editor.constant("one", np.array(1, np.float32))
    else:
        result = _in_floats(node, op, (x, w), editor)
    editor.substitute(node, [editor.insert(node, "QuantizeLinear", [result, scale, zero], suffix=".codes")])
    return True


def _operand(node: ir.Node, place: int) -> Codes:
    """Return the quantised operand of a QLinear operator: codes, scale, zero point; a weight's axis is its columns'."""
    codes, scale, zero = node.inputs[place : place + 3]
    assert codes is not None, "the operator has codes"
    assert scale is not None, "the operator has scales"
    is_conv = node.op_type == "QLinearConv"
    axis = 0 if is_conv else len(shape_of(codes)) - (1 if place else 2)
    return Codes(codes, scale, zero, axis)


def _in_floats(node: ir.Node, op: str, operands: tuple[Codes, Codes], editor: Editor) -> ir.Value:
    """Emit the product of the dequantised operands."""
    inputs = [dequantised(node, each, editor, f".{place}") for place, each in enumerate(operands)]
    if len(node.inputs) > 8 and node.inputs[8] is not None:
        inputs.append(_float_bias(node, operands, editor))
    attributes = node.attributes.values() if op == "Conv" else ()
    return editor.insert(node, op, inputs, suffix=".float", attributes=attributes)


def _float_bias(node: ir.Node, operands: tuple[Codes, Codes], editor: Editor) -> ir.Value:
    """Return the bias of a QLinearConv, int32 with the scale of the sums, in float32."""
    x, w = operands
    whole = Codes(_given(node, 8), editor.constant("one", np.array(1, np.float32)), None, 0)
    scales = editor.insert(node, "Mul", [x.scale, w.scale], suffix=".bias_scale")
    return editor.insert(node, "Mul", [dequantised(node, whole, editor, ".b"), scales], suffix=".float_bias")


def _given(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None, "an input that the operator always has"
    return value


def dequantised(node: ir.Node, operand: Codes, editor: Editor, suffix: str) -> ir.Value:
    """Emit a DequantizeLinear."""
    inputs = [operand.codes, operand.scale, operand.zero]
    axis = [] if operand.per_tensor else [ir.AttrInt64("axis", operand.axis)]
    kept = inputs if operand.zero is not None else inputs[:2]
    return editor.insert(node, "DequantizeLinear", kept, suffix=suffix, attributes=axis)


def requantised(node: ir.Node, editor: Editor) -> bool:
    """QuantizeLinear([Relu](Cast(sums) * factor), scale) -> QuantizeLinear([Relu](Cast(sums) * new factor), 1)."""
    scale = constant_array(node.inputs[1])
    chain = _scaling(node.inputs[0])
    if scale is None or scale.size != 1 or scale.item() == 1 or not chain:
        return False
    mul = chain[-2]
    factor = constant_array(mul.inputs[1])
    assert factor is not None, "_scaling finds constant factors only"
    scaled = editor.constant(f"{node.name}.factor", np.asarray(factor / scale.reshape(()), np.float32))
    value = editor.insert(node, "Mul", [mul.inputs[0], scaled], suffix=".scaled")
    for relu in chain[-3::-1]:
        value = editor.insert(node, relu.op_type, [value], suffix=".relu")
    one = editor.constant("one", np.array(1, np.float32))
    inputs = [value, one, *node.inputs[2:]]
    editor.substitute(node, [editor.insert(node, "QuantizeLinear", inputs, attributes=node.attributes.values())])
    return True


def bias_into_sums(node: ir.Node, editor: Editor) -> bool:
    """Add(Cast(sums) * factor, DQ(int32 bias)) -> Cast(sums + bias) * factor, where the bias has the sums' scale."""
    for place, value in enumerate(node.inputs):
        found = codes_of(value)
        if value is None or found is None or not found.is_constant:
            continue
        chain = _scaling(node.inputs[1 - place])
        if len(chain) == 2 and _same_scale(found, constant_array(chain[0].inputs[1])):
            mul, cast = chain
            addend = editor.constant(f"{found.codes.name}.addend", found.integers())
            sums = editor.insert(node, "Add", [cast.inputs[0], addend], suffix=".sums")
            real = editor.insert(node, "Cast", [sums], suffix=".float", attributes=cast.attributes.values())
            editor.substitute(node, [editor.insert(node, "Mul", [real, mul.inputs[1]], suffix=".scaled")])
            return True
        node.replace_input_with(place, editor.constant(f"{found.codes.name}.numbers", found.numbers(), value.dtype))
    return False


def _same_scale(bias: Codes, factor: Array | None) -> bool:
    own = constant_array(bias.scale)
    if factor is None or own is None or bias.codes.dtype != ir.DataType.INT32:
        return False
    return np.allclose(own.reshape(-1), factor.reshape(-1), rtol=_SAME_SCALE, atol=0)


def _scaling(value: ir.Value | None) -> list[ir.Node]:
    """Return the nodes that scale the sums of an integer product, the last first: Relus, Mul, Cast; or nothing."""
    chain: list[ir.Node] = []
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None or node.op_type not in ("Relu", "Mul"):
            return []
        chain.append(node)
        value = node.inputs[0]
        if node.op_type == "Mul":
            cast = _cast_of_sums(value)
            return [*chain, cast] if cast is not None and is_constant(node.inputs[1]) else []
    return []


def _cast_of_sums(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return None
    return node if node.inputs[0].dtype == ir.DataType.INT32 else None


def dynamic_quantise(node: ir.Node, editor: Editor) -> bool:
    """DynamicQuantizeLinear -> the steps of its definition, with onnxruntime's scale of 1 for a tensor of zeros."""
    x = node.inputs[0]
    if x is None:
        return False

    def put(op: str, name: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        made = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        return editor.insert(node, op, inputs, suffix=f".{name}", attributes=made)

    def number(value: float) -> ir.Value:
        return editor.constant("number", np.array(value, np.float32))

    low, high = (_over_all(node, op, x, editor) for op in ("ReduceMin", "ReduceMax"))
    low, high = put("Min", "low", low, number(0)), put("Max", "high", high, number(0))
    span = put("Sub", "span", high, low)
    even = put("Div", "even", span, number(255))
    scale = put("Where", "scale", put("Equal", "flat", high, low), number(1), even)
    start = put("Clip", "start", put("Neg", "negative", put("Div", "first", low, scale)), number(0), number(255))
    zero = put("Cast", "zero", put("Round", "rounded", start), to=int(ir.DataType.UINT8))
    codes = put("QuantizeLinear", "codes", x, scale, zero)
    editor.substitute(node, [codes, scale, zero])
    return True


def _over_all(node: ir.Node, op: str, x: ir.Value, editor: Editor) -> ir.Value:
    """Emit a reduction over all axes: over the last one first, so that no row is as long as the whole tensor."""
    value, rank = x, len(shape_of(x))
    steps = [[rank - 1], list(range(rank - 1))] if rank > 1 else [[0]] if rank else []
    for axes in steps:
        value = reduced(node, op, value, axes, editor)
    return value


def reduced(node: ir.Node, op: str, value: ir.Value, axes: Sequence[int], editor: Editor, *, keep: int = 0) -> ir.Value:
    """Emit a reduction; from opset 18 on its axes are an input, those of ReduceSum from 13 on."""
    given, attributes = [value], [ir.AttrInt64("keepdims", keep)]
    if editor.graph.opset_imports.get("", 0) < (13 if op == "ReduceSum" else 18):
        attributes.append(ir.AttrInt64s("axes", list(axes)))
    else:
        given.append(editor.constant("axes", np.array(list(axes), np.int64)))
    return editor.insert(node, op, given, suffix=f".{op}{len(axes)}", attributes=attributes)

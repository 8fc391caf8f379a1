"""The array multiplies signed bytes: products of other integers are rewritten to that, exactly.

With x' = x - 128 for unsigned x (and its zero point z' = z - 128 likewise), and the same for weights,

    sum (x - zx)(w - zw) = sum x'w' - zx' sum w' - zw' sum x' + K zx' zw'

The second and fourth terms are one int32 number a column, known at compile time unless zx' is made at run time. Weights
take their zero point with them where w - zw fits a signed byte, as zeros of a sparse weight must; where it does not, a
sparse weight becomes the sum of two, and a dense one takes the third term from a product with a column of ones.

A convolution's border is made explicit where its zero point is not 0: Pad(x', zx'), so that it counts as zero.
What else reads quantised numbers is told in floats: DequantizeLinear becomes Cast, Sub, Mul.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ..frontend.codes import CODE_TYPES, CODES_KEY, codes_of
from ..frontend.edit import constant_array, is_constant, shape_of
from ..frontend.linears import INTEGER_PRODUCTS
from .convolution import conv_shape
from .emit import Emitter
from .prune import NM_KEY
from .signed import MIDDLE, Shared, Signed, optional_input, signed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers: TypeAlias = NDArray[np.integer[Any]]

_INT8, _INT32, _FLOAT = ir.DataType.INT8, ir.DataType.INT32, ir.DataType.FLOAT


def make_signed(model: ir.Model, taken: set[str]) -> None:
    """Rewrite the integer products of a graph, and what dequantises and pools bytes; the graph is changed in place.

    Args:
        model: a static graph.
        taken: names of its nodes and values; the new ones are added.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    shared = Shared()
    opset = model.opset_imports.get("", 13)
    for node in tuple(model.graph):
        rewrite = _REWRITES.get(node.op_type) if node.domain == "" else None
        if rewrite is None:
            continue
        emitter = Emitter(model.graph, opset, taken, str(node.name))
        result = rewrite(node, emitter, shared)
        if result is not None:
            old = node.outputs[0]
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], emitter.nodes, [old], [result])
    RemoveUnusedNodesPass()(model)


class _Product:
    """Rewrites one integer product with a constant weight."""

    def __init__(self, node: ir.Node, emitter: Emitter, shared: Shared) -> None:
        self.node, self.emitter, self.shared = node, emitter, shared
        self.is_conv = node.op_type == "ConvInteger"
        self.shape = shape_of(node.outputs[0])
        self.pattern = node.metadata_props.get(NM_KEY, "dense")

    def run(self) -> ir.Value | None:
        """Emit the product in signed bytes and return its sums; None where it is in that form already."""
        x = self.node.inputs[0]
        if x is None or not is_constant(self.node.inputs[1]):
            return None
        if self._is_signed() and len(self.node.inputs) == 2:
            self.node.metadata_props.setdefault(CODES_KEY, "kept")
            return None
        if self._is_signed():
            return self._sums(x, self._integers())
        source = signed(x, optional_input(self.node, 2), self.emitter, self.shared)
        codes = self._padded(source)
        weight = self._integers()
        left: Integers = np.zeros(1, np.int32)
        if _fits(weight):
            sums = self._sums(codes, weight)
        elif self.pattern != "dense":
            sums = self._split(codes, weight)
        else:
            weight, left = self._with_zero()
            sums = self._sums(codes, weight)
        return self._corrected(sums, codes, source.zero, weight, left)

    def _is_signed(self) -> bool:
        """Whether both operands are signed bytes whose zero points, where there are any, are 0."""
        given = [value for value in self.node.inputs[:2] if value is not None]
        zeros = [optional_input(self.node, place) for place in (2, 3)]
        return all(value.dtype == _INT8 for value in given) and all(_is_zero(zero) for zero in zeros)

    def _integers(self) -> Integers:
        """Return the weight less its zero point."""
        zero = constant_array(optional_input(self.node, 3))
        weight = _array(self.node.inputs[1]).astype(np.int32)
        return weight if zero is None else weight - self._column(zero.astype(np.int32), weight.ndim)

    def _with_zero(self) -> tuple[Integers, Integers]:
        """Return the weight as signed bytes, and the zero points that are left, one or one a column."""
        weight, zero = self.node.inputs[1], constant_array(optional_input(self.node, 3))
        shift = MIDDLE if weight is not None and weight.dtype != _INT8 else 0
        left = np.zeros(1, np.int32) if zero is None else zero.astype(np.int32).reshape(-1)
        return _array(weight).astype(np.int32) - shift, left - shift

    def _column(self, numbers: Integers, rank: int) -> Integers:
        """Return numbers, one or one a column of the result, in a shape that broadcasts over the weight."""
        if numbers.size == 1:
            return numbers.reshape(())
        return numbers.reshape((-1, *[1] * (rank - 1)) if self.is_conv else (-1,))

    def _over(self, numbers: Integers) -> Integers:
        """Return numbers, one or one a column, in a shape that broadcasts over the result."""
        wrapped = numbers.astype(np.int64).astype(np.int32)
        if wrapped.size == 1:
            return wrapped.reshape(())
        return wrapped.reshape((-1, *[1] * (len(self.shape) - 2)) if self.is_conv else (-1,))

    def _padded(self, source: Signed) -> ir.Value:
        """Return the codes with the border of a convolution around them, unless that is zero."""
        if not self.is_conv or source.zero == 0:
            return source.codes
        pads = conv_shape(self.node).pads
        if not any(pads):
            return source.codes
        half = len(pads) // 2
        widths = self.emitter.constant("pads", np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64))
        zero = source.zero
        fill = self.emitter.constant("border", np.array(zero, np.int8)) if isinstance(zero, int) else None
        if fill is None:
            assert isinstance(zero, ir.Value), "a zero point is a number or a value"
            fill = self.emitter.cast("border", "quantise", zero, _INT8)
        sizes = [size + pads[axis] + pads[axis + half] for axis, size in enumerate(shape_of(source.codes)[2:])]
        shape = [*shape_of(source.codes)[:2], *sizes]
        return self.emitter.node("Pad", "pad", "quantise", [source.codes, widths, fill], shape, dtype=_INT8)

    def _sums(self, codes: ir.Value, weight: Integers, what: str = "multiply", pattern: str = "") -> ir.Value:
        """Emit a product with a weight of signed bytes."""
        inputs = [codes, self.emitter.constant(f"{what}/weight", weight.astype(np.int8))]
        shape = self.shape if self.is_conv else (*self.shape[:-1], weight.shape[-1])
        if self.is_conv:
            shape = (shape[0], weight.shape[0], *shape[2:])
        attributes = self._attributes(codes) if self.is_conv else None
        sums = self.emitter.node(
            self.node.op_type, what, "multiply", inputs, shape, dtype=_INT32, attributes=attributes
        )
        self.emitter.nodes[-1].metadata_props[NM_KEY] = pattern or self.pattern
        if what == "multiply":
            self.emitter.nodes[-1].metadata_props[CODES_KEY] = "kept"
        return sums

    def _attributes(self, codes: ir.Value) -> dict[str, Any]:
        """Return the attributes of a convolution; without pads where the codes have their border already."""
        kept = dict(self.node.attributes)
        if codes.producer() is not None and codes in [
            made.outputs[0] for made in self.emitter.nodes if made.op_type == "Pad"
        ]:
            for name in ("pads", "auto_pad"):
                kept.pop(name, None)
        return kept

    def _split(self, codes: ir.Value, weight: Integers) -> ir.Value:
        """Emit the sum of two products: what fits a signed byte, and the rest."""
        limits = np.iinfo(np.int8)
        first = np.clip(weight, limits.min, limits.max)
        sums = self._sums(codes, first)
        rest = self._sums(codes, weight - first, "multiply_rest")
        return self.emitter.node("Add", "sum", "dequantise", [sums, rest], self.shape, dtype=_INT32)

    def _corrected(
        self, sums: ir.Value, codes: ir.Value, zero: int | ir.Value, weight: Integers, left: Integers
    ) -> ir.Value:
        """Emit the terms of the zero points: of the activations, and what is left of the weights'."""
        axes = tuple(range(1, weight.ndim)) if self.is_conv else (0,)
        terms = math.prod(weight.shape[axis] for axis in axes)
        per_column = terms * left - weight.sum(axis=axes, dtype=np.int64)
        if isinstance(zero, int):
            offset = None if zero == 0 else self.emitter.constant("offset", self._over(zero * per_column))
        else:
            factor = self.emitter.constant("offset/factor", self._over(per_column))
            shape = np.broadcast_shapes(shape_of(zero), shape_of(factor))
            offset = self.emitter.node("Mul", "offset", "dequantise", [zero, factor], shape, dtype=_INT32)
        if offset is not None:
            sums = self.emitter.node("Add", "less_zero", "dequantise", [sums, offset], self.shape, dtype=_INT32)
        if not left.any():
            return sums
        rows, factor = self._row_sums(codes, weight), self.emitter.constant("weight_zero", self._over(-left))
        shape = np.broadcast_shapes(shape_of(rows), shape_of(factor))
        rest = self.emitter.node("Mul", "weight_offset", "dequantise", [rows, factor], shape, dtype=_INT32)
        return self.emitter.node("Add", "less_weight_zero", "dequantise", [sums, rest], self.shape, dtype=_INT32)

    def _row_sums(self, codes: ir.Value, weight: Integers) -> ir.Value:
        """Return the sum of the codes under every window or of every row: a product with ones."""
        if self.is_conv:
            alike = self.node.attributes.get_int("group", 1) == 1
            shape = (1, *weight.shape[1:]) if alike else weight.shape
            return self._sums(codes, np.ones(shape, np.int32), "window_sums", "dense")
        if codes not in self.shared.row_sums:
            ones = np.ones((weight.shape[0], 1), np.int32)
            self.shared.row_sums[codes] = self._sums(codes, ones, "row_sums", "dense")
        return self.shared.row_sums[codes]


def _array(value: ir.Value | None) -> NDArray[Any]:
    array = constant_array(value)
    assert array is not None, "the weight is a constant"
    return array


def _is_zero(value: ir.Value | None) -> bool:
    array = constant_array(value)
    return value is None or (array is not None and not array.any())


def _fits(integers: Integers) -> bool:
    limits = np.iinfo(np.int8)
    return bool(integers.min(initial=0) >= limits.min and integers.max(initial=0) <= limits.max)


def _product(node: ir.Node, emitter: Emitter, shared: Shared) -> ir.Value | None:
    return _Product(node, emitter, shared).run()


def _dequantise(node: ir.Node, emitter: Emitter, shared: Shared) -> ir.Value | None:
    """DequantizeLinear -> (Cast(x) - zero) * scale, exactly: bytes and their difference are exact in float32."""
    found = codes_of(node.outputs[0])
    if found is None or found.block or found.is_constant or node.outputs[0].dtype != _FLOAT:
        return None
    x, zero, shape = found.codes, found.zero, shape_of(node.outputs[0])
    if x.dtype in CODE_TYPES and found.per_tensor:
        source = signed(x, zero, emitter, shared)
        x = source.codes
        made = source.zero
        zero = emitter.constant("zero", np.array(made, np.float32)) if isinstance(made, int) else made
    real = emitter.cast("real", "dequantise", x, _FLOAT)
    if zero is not None and not _is_zero(zero):
        zero = emitter.cast("zero", "dequantise", _along(zero, found.axis, len(shape), emitter), _FLOAT)
        real = emitter.node("Sub", "above_zero", "dequantise", [real, zero], shape)
    scale = _along(found.scale, found.axis, len(shape), emitter)
    return emitter.node("Mul", "scaled", "dequantise", [real, scale], shape)


def _along(value: ir.Value, axis: int, rank: int, emitter: Emitter) -> ir.Value:
    """Return one number, or one an index of an axis, in a shape that broadcasts over a tensor of that rank."""
    after = rank - 1 - axis
    if len(shape_of(value)) == 0 or shape_of(value)[0] == 1 or after == 0:
        return value
    axes = emitter.constant("axes", np.arange(1, after + 1, dtype=np.int64))
    dtype = value.dtype or _FLOAT
    return emitter.node(
        "Unsqueeze", "along", "dequantise", [value, axes], [*shape_of(value), *[1] * after], dtype=dtype
    )


def _pool(node: ir.Node, emitter: Emitter, _shared: Shared) -> ir.Value | None:
    """MaxPool of bytes -> of floats, which hold them exactly."""
    x, output = node.inputs[0], node.outputs[0]
    if x is None or x.dtype not in CODE_TYPES or len(node.outputs) > 1:
        return None
    real = emitter.cast("real", "reshape", x, _FLOAT)
    pooled = emitter.node("MaxPool", "pool", "reshape", [real], shape_of(output), attributes=dict(node.attributes))
    return emitter.cast("codes", "reshape", pooled, x.dtype)


_REWRITES = {
    **dict.fromkeys(INTEGER_PRODUCTS, _product),
    "DequantizeLinear": _dequantise,
    "MaxPool": _pool,
}

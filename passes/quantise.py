"""Quantisation to INT8 in standard ONNX: weights symmetric per output channel, activations per token, at run time.

A linear ``y = MatMul(x, W)`` becomes, with x flattened to [rows, K]:

    s  = Max(ReduceMax(Abs(x), axis 1), smallest normal) / 127      [rows]   quantise, shared by linears that read x
    q  = QuantizeLinear(x, s, zero point 0, axis=0)                 int8     quantise
    a  = MatMulInteger(q, Wq)                                       int32    multiply
    y  = Cast(a) * Unsqueeze(s, 1) * weight scale [N]               float32  dequantise: first s, then the weight's

and is reshaped back. A Conv becomes the same around ConvInteger, without flattening: its rows are the samples of the
batch, as ConvInteger has no finer scale. A following Add of a constant bias stays and is marked ``bias``; the bias
input of a Conv becomes such an Add. A weight that comes quantised (``W = DequantizeLinear(Wq)``) keeps its integers
and scales. onnxruntime runs ConvInteger with int8 activations exactly in 1-D, 2-D and 3-D,
grouped and depthwise, so that no zero point is needed anywhere and padding is zero.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..frontend.codes import CODES_KEY, codes_of
from ..frontend.edit import constant_array, shape_of
from ..frontend.experts import EXPERTS_KEY
from ..frontend.linears import INTEGER_PRODUCTS, Linear, find_linears
from ..isa.errors import FlexcError
from .emit import LINEAR_KEY, ROLE_KEY, Emitter, pin_of
from .prune import NM_KEY
from .zero_points import make_signed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_OPSET = 13
"""QuantizeLinear takes a scale for each index of an axis from here on."""

LEVELS = np.array(127, np.float32)
"""The greatest INT8 code: codes are symmetric."""

TINY = np.array(np.finfo(np.float32).tiny)
"""The smallest normal number: the peak of what is zero throughout."""

_CHUNK = 1 << 20
"""Weights quantised in one go."""


@dataclass(frozen=True)
class _Quantised:
    """An activation in INT8, its scales as a column that broadcasts over the product, and the rows' shape."""

    codes: ir.Value
    column: ir.Value
    rows: int


_Shared = dict[tuple[str, bool], _Quantised]
"""(name of an activation, whether a convolution reads it) -> its INT8 form."""


def quantise(model: ir.Model) -> ir.Model:
    """Return a copy of `model` whose linears compute in INT8; `model` keeps its float weights, which are shared.

    Linears that are pinned to another engine than the array stay in float.
    Every node that a linear became carries ``flexc.linear`` and ``flexc.role`` in its metadata, the integer product
    also ``flexc.nm``.

    Raises:
        FlexcError: an opset below 13, or a weight that is not finite.
    """
    opset = model.opset_imports.get("", 1)
    if opset < MIN_OPSET:
        raise FlexcError(f"opset {opset} is too old to quantise", remedy=f"export with opset {MIN_OPSET} or later")
    quantised = model.clone()
    taken = Emitter.names_of(quantised.graph)
    shared: _Shared = {}
    known: dict[Hashable, list[ir.Value]] = {}  # a recurrence unrolled is many linears with one weight
    for linear in find_linears(quantised):
        if linear.node.op_type not in INTEGER_PRODUCTS and pin_of(linear.node) not in ("vector", "host"):
            _replace(linear, Emitter(quantised.graph, opset, taken, linear.name, known=known), shared)
    make_signed(quantised, taken)
    return quantised


def quantise_weight(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise weights [n, k] symmetrically per output row: codes in -127..127 and scales float32 [n].

    scale = max |row| / 127 (the smallest normal for a row of zeros), code = rint(weight / scale), ties to even.

    Raises:
        FlexcError: a weight is NaN or infinite.
    """
    codes = np.empty_like(matrix, np.int8)
    scales = np.empty(len(matrix), np.float32)
    step = max(1, _CHUNK // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), step):
        rows = matrix[start : start + step]
        peak = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
        scale = np.maximum(peak / LEVELS, TINY)
        if not np.isfinite(scale).all():
            raise FlexcError("a weight is NaN or infinite")
        scaled = rows / scale[:, np.newaxis]
        codes[start : start + step] = np.clip(np.rint(scaled, out=scaled), -LEVELS, LEVELS, out=scaled)
        scales[start : start + step] = scale
    return codes, scales


def _replace(linear: Linear, emitter: Emitter, shared: _Shared) -> None:
    """Put the INT8 form of one linear in its place, and drop the float weight when nothing else reads it."""
    node = linear.node
    old = node.outputs[0]
    source = _quantised_input(linear, emitter, shared)
    new = _convolve(linear, emitter, source) if linear.is_conv else _multiply(linear, emitter, source)
    new = emitter.cast("narrow", "dequantise", new, old.dtype or ir.DataType.FLOAT)
    constants = [value for value in node.inputs[1:] if value is not None]
    makers = {value.producer() for value in constants} - {None}
    _mark_bias(linear)
    ir.convenience.replace_nodes_and_values(emitter.graph, node, [node], emitter.nodes, [old], [new])
    for maker in makers:
        if maker is not None and not maker.outputs[0].uses() and not maker.outputs[0].is_graph_output():
            emitter.graph.remove(maker, safe=True)
    for value in constants:
        if value.is_initializer() and not value.uses() and not value.is_graph_output():
            del emitter.graph.initializers[str(value.name)]


def _multiply(linear: Linear, emitter: Emitter, source: _Quantised) -> ir.Value:
    """Emit the INT8 form of a MatMul and return its float output, in the shape of the old one."""
    product, scales = _product(linear, emitter, "MatMulInteger", source, (source.rows, linear.n))
    result = _dequantise(emitter, product, source, scales)
    return emitter.reshape("unflatten", "reshape", result, shape_of(linear.node.outputs[0]))


def _convolve(linear: Linear, emitter: Emitter, source: _Quantised) -> ir.Value:
    """Emit the INT8 form of a Conv, its bias as an Add, and return its float output."""
    shape = shape_of(linear.node.outputs[0])
    per_channel = (-1, *(1 for _ in shape[2:]))
    product, scales = _product(linear, emitter, "ConvInteger", source, shape)
    result = _dequantise(emitter, product, source, scales.reshape(per_channel))
    bias = linear.node.inputs[2] if len(linear.node.inputs) > 2 else None
    if bias is None:
        return result
    if bias.const_value is None:
        raise FlexcError("the bias is not a constant", where=f"linear '{linear.name}'")
    addend = emitter.constant("bias", bias.const_value.numpy().astype(np.float32).reshape(per_channel))
    return emitter.node("Add", "add_bias", "bias", [result, addend], shape)


def _product(
    linear: Linear, emitter: Emitter, op: str, source: _Quantised, shape: tuple[int, ...]
) -> tuple[ir.Value, NDArray[np.float32]]:
    """Emit the integer product of `shape` and return it with the scales of the weight's rows."""
    inputs, scales = _weight(linear, emitter)
    inputs = [source.codes, *inputs]
    attributes = linear.node.attributes if op == "ConvInteger" else None
    product = emitter.node(op, "multiply", "multiply", inputs, shape, dtype=ir.DataType.INT32, attributes=attributes)
    notes = linear.node.metadata_props
    emitter.nodes[-1].metadata_props[NM_KEY] = notes.get(NM_KEY, "dense")
    if EXPERTS_KEY in notes:
        emitter.nodes[-1].metadata_props[EXPERTS_KEY] = notes[EXPERTS_KEY]
    emitter.nodes[-1].metadata_props[CODES_KEY] = "kept" if linear.quantised else notes.get(CODES_KEY, "made")
    return product, scales


def _weight(linear: Linear, emitter: Emitter) -> tuple[list[ir.Value], NDArray[np.float32]]:
    """Return the operands of a product that are its weight, and the scales of its rows [n].

    A weight that comes quantised stays as it is; its zero point, if it has one, becomes the product's.
    """
    if linear.quantised:
        found = codes_of(linear.node.inputs[1])
        assert found is not None, "a quantised weight is dequantised for its product"
        scale = constant_array(found.scale)
        assert scale is not None, "the scale of a quantised weight is a constant"
        scales = np.broadcast_to(scale.astype(np.float32).reshape(-1), (linear.n,))
        if found.zero is None:
            return [found.codes], scales
        no_zero = emitter.constant("source_zero_point", np.zeros((), np.int8))
        return [found.codes, no_zero, found.zero], scales
    try:
        codes, scales = quantise_weight(linear.matrix())
    except FlexcError as error:
        raise FlexcError(error.message, where=f"linear '{linear.name}'") from None
    return [emitter.shared("weight", linear.to_weight(codes).astype(np.int8), scales.tobytes())], scales


def _dequantise(emitter: Emitter, product: ir.Value, source: _Quantised, scales: NDArray[np.float32]) -> ir.Value:
    """Emit the way back to float32: times the activation's scale, then times the weight's."""
    shape = shape_of(product)
    scale = emitter.constant("weight_scale", scales)
    result = emitter.cast("to_float", "dequantise", product, ir.DataType.FLOAT)
    result = emitter.node("Mul", "times_activation_scale", "dequantise", [result, source.column], shape)
    return emitter.node("Mul", "times_weight_scale", "dequantise", [result, scale], shape)


def _quantised_input(linear: Linear, emitter: Emitter, shared: _Shared) -> _Quantised:
    """Return the INT8 form of what the linear reads, made on first need."""
    source = linear.node.inputs[0]
    assert source is not None, "find_linears gives only nodes with an input"
    is_conv = linear.is_conv
    key = (str(source.name), is_conv)
    if key not in shared:
        shared[key] = _quantise_input(source, is_conv, emitter)
    return shared[key]


def _quantise_input(source: ir.Value, is_conv: bool, emitter: Emitter) -> _Quantised:
    """Emit the quantisation of `source`, one scale a row: a token, or a sample of a convolution."""
    shape = shape_of(source)
    source = emitter.cast("widen", "quantise", source, ir.DataType.FLOAT)
    if not is_conv:
        shape = (prod(shape[:-1]), shape[-1])
        source = emitter.reshape("flatten", "quantise", source, shape)
    scale = _row_scales(source, emitter)
    inputs = [source, scale, emitter.constant("zero_point", np.zeros(shape[0], np.int8))]
    codes = emitter.node(
        "QuantizeLinear", "quantise", "quantise", inputs, shape, dtype=ir.DataType.INT8, attributes={"axis": 0}
    )
    axes = emitter.constant("scale_column/axes", np.arange(1, len(shape), dtype=np.int64))
    ones = [1] * (len(shape) - 1)
    column = emitter.node("Unsqueeze", "scale_column", "quantise", [scale, axes], [shape[0], *ones])
    return _Quantised(codes, column, shape[0])


def _row_scales(source: ir.Value, emitter: Emitter) -> ir.Value:
    """Emit max |row| / 127 of `source`, [rows]; a row of zeros gets a scale that is small but not zero."""
    shape = shape_of(source)
    size = emitter.node("Abs", "abs", "quantise", [source], shape)
    peak = emitter.reduce("ReduceMax", "peak", "quantise", size, range(1, len(shape)))
    floor = emitter.constant("floor", TINY)
    peak = emitter.node("Max", "guarded_peak", "quantise", [peak, floor], shape[:1])
    return emitter.node("Div", "scale", "quantise", [peak, emitter.constant("levels", LEVELS)], shape[:1])


def _mark_bias(linear: Linear) -> None:
    """Mark the Add of a constant per output channel that alone reads a MatMul's output, if there is one."""
    output = linear.node.outputs[0]
    users = output.uses()
    if linear.is_conv or len(users) != 1 or output.is_graph_output():
        return
    (use,) = users
    other = use.node.inputs[1 - use.idx] if use.node.op_type == "Add" else None
    if other is None or other.const_value is None:
        return
    *leading, last = shape_of(other)
    if last == linear.n and prod(leading) == 1:
        use.node.metadata_props.update({LINEAR_KEY: linear.name, ROLE_KEY: "bias"})

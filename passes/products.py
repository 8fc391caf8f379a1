"""Products of two activations (Q.K^T, P.V, a state times C): their integer form, for those that go to the array.

``y = MatMul(a, b)`` with a [.., M, K] and b [.., K, N] both made at run time becomes

    sa = Max(ReduceMax(Abs(a), last axis), smallest normal) / 127    one scale a row of a
    qa = Cast(Round(a / sa))                                         int8, within 127: no saturation needed
    sb, qb: the same of the columns of b                             b is what is written into cells
    y  = Cast(MatMulInteger(qa, qb)) * sa * sb

(QuantizeLinear has a scale for each index of one axis only; this needs no flattening of heads and rows.)

Quantising looks for the tensor that is worth it: through reshapes and expansions of leading dimensions (heads that
share a key are quantised once), transpositions of the last two dimensions (the columns of a transposed key are the
rows of the key) and factors, and repeats those on the codes and scales. What Softmax makes is not negative: no Abs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ..frontend.edit import is_constant, shape_of
from .emit import Emitter
from .prune import NM_KEY
from .quantise import LEVELS, MIN_OPSET, TINY

#: Views that leave the last two dimensions as they are when these have the same sizes before and after.
_LEADING = ("Reshape", "Unsqueeze", "Squeeze", "Expand", "Identity")
_FACTORS = ("Mul", "Div")


@dataclass(frozen=True)
class Operand:
    """INT8 codes of rows [.., R, C] and the scale of each row [.., R, 1]."""

    codes: ir.Value
    scales: ir.Value


@dataclass
class Trail:
    """How a value comes from ``base``: leading-dimension views and factors, and whether its last two dims swapped."""

    base: ir.Value
    swapped: bool = False
    views: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    factors: list[ir.Node] = field(default_factory=list)


Shared = dict[tuple[str, bool], Operand]
"""(name of an activation, whether its columns are what is quantised) -> its INT8 form."""


def find_products(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every MatMul of two float32 tensors of two or more dimensions that are both made at run time."""
    for node in model.graph:
        if node.op_type != "MatMul" or node.domain != "":
            continue
        inputs = [value for value in node.inputs if value is not None]
        floats = all(value.dtype == ir.DataType.FLOAT and len(shape_of(value)) >= 2 for value in inputs)
        if floats and not any(is_constant(value) for value in inputs):
            yield node


def quantise_products(model: ir.Model, on_array: Callable[[ir.Node], bool]) -> None:
    """Replace the products that ``on_array`` picks by their integer form, in place."""
    opset = model.opset_imports.get("", 1)
    chosen = [node for node in find_products(model) if opset >= MIN_OPSET and on_array(node)]
    taken = Emitter.names_of(model.graph)
    shared: Shared = {}
    for node in chosen:
        _replace(node, Emitter(model.graph, opset, taken, str(node.name)), shared)
    if chosen:
        common.RemoveUnusedNodesPass()(model)


def _replace(node: ir.Node, emitter: Emitter, shared: Shared) -> None:
    left, right = node.inputs
    assert left is not None
    assert right is not None
    a, b = _quantised(left, False, emitter, shared), _quantised(right, True, emitter, shared)
    shape = shape_of(node.outputs[0])
    columns, scales = _transposed(b.codes, "written", emitter), _transposed(b.scales, "written_scale", emitter)
    result = emitter.node("MatMulInteger", "multiply", "multiply", [a.codes, columns], shape, dtype=ir.DataType.INT32)
    emitter.nodes[-1].metadata_props.update({**node.metadata_props, NM_KEY: "dense"})
    result = emitter.cast("to_float", "dequantise", result, ir.DataType.FLOAT)
    result = emitter.node("Mul", "times_row_scale", "dequantise", [result, a.scales], shape)
    result = emitter.node("Mul", "times_column_scale", "dequantise", [result, scales], shape)
    old = node.outputs[0]
    ir.convenience.replace_nodes_and_values(emitter.graph, node, [node], emitter.nodes, [old], [result])


def _quantised(value: ir.Value, columns: bool, emitter: Emitter, shared: Shared) -> Operand:
    """Return the INT8 form of the rows of a value, or of its columns as rows; made on first need."""
    key = (str(value.name), columns)
    if key not in shared:
        shared[key] = _quantise(value, columns, emitter)
    return shared[key]


def _quantise(value: ir.Value, columns: bool, emitter: Emitter) -> Operand:
    trail = trail_of(value)
    rows = _transposed(trail.base, "rows", emitter) if trail.swapped != columns else trail.base
    for factor in reversed(trail.factors):
        rows = emitter.node(factor.op_type, "scaled", None, [rows, *_constants(factor)], shape_of(rows))
    scales = _scales(rows, emitter, positive=_not_negative(trail.base) and not trail.factors)
    codes = emitter.node("Div", "scale_down", "quantise", [rows, scales], shape_of(rows))
    codes = emitter.node("Round", "round", "quantise", [codes], shape_of(rows))
    codes = emitter.cast("quantise", "quantise", codes, ir.DataType.INT8)
    for op, target in reversed(trail.views):
        ends = target[-2:] if not columns else target[:-3:-1]
        codes = _lead(codes, (*target[:-2], *ends), emitter, op)
        scales = _lead(scales, (*target[:-2], ends[0], 1), emitter, op)
    return Operand(codes, scales)


def _scales(rows: ir.Value, emitter: Emitter, *, positive: bool) -> ir.Value:
    """Emit max |row| / 127, [.., R, 1]; a row of zeros gets a scale that is small but not zero."""
    shape = shape_of(rows)
    size = rows if positive else emitter.node("Abs", "abs", "quantise", [rows], shape)
    peak = emitter.reduce("ReduceMax", "peak", "quantise", size, [len(shape) - 1], keep=True)
    peak = emitter.node("Max", "guarded_peak", "quantise", [peak, emitter.constant("floor", TINY)], shape_of(peak))
    return emitter.node("Div", "scale", "quantise", [peak, emitter.constant("levels", LEVELS)], shape_of(peak))


def trail_of(value: ir.Value) -> Trail:
    """Follow a value back through what commutes with quantising its rows.

    Every view on the trail is noted with the shape it makes, as the value at the trail's end would have it: swaps
    before it are undone.
    """
    trail = Trail(value)
    while (node := trail.base.producer()) is not None and node.domain == "" and node.inputs[0] is not None:
        source = node.inputs[0]
        shape = shape_of(trail.base)
        if node.op_type == "Transpose" and _swaps(node):
            trail.swapped = not trail.swapped
        elif node.op_type in _LEADING and len(shape_of(source)) >= 2 and shape_of(source)[-2:] == shape[-2:]:
            seen = (*shape[:-2], *(shape[:-3:-1] if trail.swapped else shape[-2:]))
            trail.views.append(("Expand" if node.op_type == "Expand" else "Reshape", seen))
        elif node.op_type in _FACTORS and shape_of(source) == shape and node.inputs[1] in _constants(node):
            trail.factors.append(node)
        else:
            break
        trail.base = source
    return trail


def _swaps(node: ir.Node) -> bool:
    """Return whether a Transpose exchanges the last two dimensions and no others."""
    rank = len(shape_of(node.outputs[0]))
    return list(node.attributes.get_ints("perm", list(range(rank))[::-1])) == [*range(rank - 2), rank - 1, rank - 2]


def _constants(node: ir.Node) -> list[ir.Value]:
    """Return the operand of a node that is one constant number."""
    return [value for value in node.inputs if value is not None and is_constant(value) and prod(shape_of(value)) == 1]


def _not_negative(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Softmax"


def _transposed(value: ir.Value, what: str, emitter: Emitter) -> ir.Value:
    """Return a value with its last two dimensions exchanged, joined with a Transpose that made it."""
    shape = shape_of(value)
    perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    node = value.producer()
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        before = list(node.attributes.get_ints("perm", list(range(len(shape)))[::-1]))
        perm, value = [before[place] for place in perm], node.inputs[0]
    target = (*shape[:-2], shape[-1], shape[-2])
    dtype = value.dtype or ir.DataType.FLOAT
    return emitter.node("Transpose", what, "reshape", [value], target, dtype=dtype, attributes={"perm": perm})


def _lead(value: ir.Value, shape: Sequence[int], emitter: Emitter, op: str = "Reshape") -> ir.Value:
    """Return codes or scales under other leading dimensions."""
    if shape_of(value) == tuple(shape):
        return value
    target = emitter.constant(f"{op.lower()}/shape", np.array(shape, np.int64))
    return emitter.node(op, "view", "reshape", [value, target], shape, dtype=value.dtype or ir.DataType.FLOAT)

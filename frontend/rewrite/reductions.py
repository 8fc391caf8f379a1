"""Reductions over any axes, and what is made of them: norms of vectors, LogSoftmax, global pooling, ArgMax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..edit import is_constant, shape_of
from ..rules import reduce_axes
from .site import Site, SiteRule

#: What the machine reduces itself, over the last axes.
_CORE = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")

#: Elements from which on a reduction is done in steps: a row of them would fill much of the on-chip buffer.
LONG = 8192


def reduction(site: Site) -> bool:
    """Squares, magnitudes and exponentials before, roots and logarithms after; then any axes as the last ones."""
    axes = reduce_axes(site.node)
    if axes is None or not site.shape or not all(site.shape):
        return False
    op_type = site.node.op_type
    if _does_not_reduce(site):
        return site.is_float and site.done(_after(site, op_type, site.op("Identity", _before(site, op_type, site.x))))
    if op_type not in _CORE:
        return site.is_float and site.done(_derived(site, op_type, axes))
    last = tuple(range(site.rank - len(axes), site.rank))
    if not _reducible(site):
        return False
    if math.prod(site.shape[axis] for axis in axes) > LONG and (parts := _in_parts(site, axes)) is not None:
        return site.done(site.reshape(parts, shape_of(site.node.outputs[0])))
    if axes == last:
        return False
    kept = [axis for axis in range(site.rank) if axis not in axes]
    moved = site.transpose(site.x, [*kept, *axes])
    result = site.reduce(op_type, moved, last, keepdims=False)
    return site.done(site.reshape(result, shape_of(site.node.outputs[0])))


def _in_parts(site: Site, axes: Sequence[int]) -> ir.Value | None:
    """Return a long reduction in steps: the longest axis by itself, or in two; None where that cannot be done."""
    op_type, longest = site.node.op_type, max(axes, key=lambda axis: site.shape[axis])
    others = [axis - (axis > longest) for axis in axes if axis != longest]
    size = site.shape[longest]
    if others:
        inner = site.reduce(op_type, site.x, [longest], keepdims=False)
        return site.reduce(op_type, inner, others, keepdims=False)
    part = next((each for each in range(math.isqrt(size), 1, -1) if size % each == 0), None)
    if part is None:
        return None
    split = site.reshape(site.x, [*site.shape[:longest], part, size // part, *site.shape[longest + 1 :]])
    return site.reduce(op_type, site.reduce(op_type, split, [longest + 1], keepdims=False), [longest], keepdims=False)


def _reducible(site: Site) -> bool:
    return site.is_float or site.x.dtype in (ir.DataType.INT32, ir.DataType.INT64)


def _does_not_reduce(site: Site) -> bool:
    """Return whether there are no axes and the node says that this means none rather than all."""
    axes = site.maybe(1)
    empty = axes is None or (axes.const_value is not None and axes.const_value.size == 0)
    return bool(site.integer("noop_with_empty_axes", 0)) and "axes" not in site.node.attributes and empty


def _derived(site: Site, op_type: str, axes: Sequence[int]) -> ir.Value:
    keepdims = bool(site.integer("keepdims", 1))
    if op_type == "ReduceLogSumExp":
        return _log_sum_exp(site, axes, keepdims=keepdims)
    summed = site.reduce("ReduceSum", _before(site, op_type, site.x), axes, keepdims=keepdims)
    return _after(site, op_type, summed)


def _before(site: Site, op_type: str, x: ir.Value) -> ir.Value:
    if op_type == "ReduceL1":
        return site.op("Abs", x)
    if op_type in ("ReduceL2", "ReduceSumSquare"):
        return site.op("Mul", x, x)
    return site.op("Exp", x) if op_type == "ReduceLogSumExp" else x


def _after(site: Site, op_type: str, x: ir.Value) -> ir.Value:
    if op_type == "ReduceL2":
        return site.op("Sqrt", x)
    return site.op("Log", x) if op_type in ("ReduceLogSum", "ReduceLogSumExp") else x


def _log_sum_exp(site: Site, axes: Sequence[int], *, keepdims: bool) -> ir.Value:
    """Log of the sum of e^(x - m), plus m, where m is the greatest if that is finite: it does not overflow."""
    most = site.reduce("ReduceMax", site.x, axes)
    finite = site.op("Less", site.op("Abs", most), math.inf)
    offset = site.op("Where", finite, most, 0.0)
    summed = site.reduce("ReduceSum", site.op("Exp", site.op("Sub", site.x, offset)), axes)
    result = site.op("Add", site.op("Log", summed), offset)
    return result if keepdims else site.reshape(result, shape_of(site.node.outputs[0]))


def log_softmax(site: Site) -> bool:
    """X - max - log(sum(e^(x - max))) along one axis."""
    if not site.is_float or not site.shape:
        return False
    axis = site.axis(-1)
    centred = site.op("Sub", site.x, site.reduce("ReduceMax", site.x, [axis]))
    summed = site.reduce("ReduceSum", site.op("Exp", centred), [axis])
    return site.done(site.op("Sub", centred, site.op("Log", summed)))


def lp_normalization(site: Site) -> bool:
    """X over its norm along an axis; 0 where that is 0."""
    axis = site.axis(-1)
    if not site.is_float:
        return False
    norm = site.reduce("ReduceL1" if site.integer("p", 2) == 1 else "ReduceL2", site.x, [axis])
    zero = site.op("Equal", norm, 0.0)
    return site.done(site.op("Div", site.x, site.op("Where", zero, 1.0, norm)))


def global_max_pool(site: Site) -> bool:
    """The greatest over all but the first two axes."""
    return site.is_float and site.done(site.reduce("ReduceMax", site.x, range(2, site.rank)))


def global_lp_pool(site: Site) -> bool:
    """The p-norm over all but the first two axes."""
    p, axes = site.integer("p", 2), range(2, site.rank)
    if not site.is_float or p not in (1, 2):
        return False
    return site.done(site.reduce(f"ReduceL{p}", site.x, axes))


def arg(site: Site) -> bool:
    """The place of the greatest or least: along the last axis, the last of equal ones by looking from the end."""
    if not site.is_float or not site.shape:
        return False
    axis, last = site.axis(0), site.rank - 1
    if site.integer("select_last_index", 0):
        size = site.shape[axis]
        found = _arg(site, site.flip(site.x, axis), axis)
        return site.done(site.op("Sub", site.constant(np.array(size - 1, np.int64)), found))
    if axis == last:
        return False
    kept = [each for each in range(site.rank) if each != axis]
    found = site.op(site.node.op_type, site.transpose(site.x, [*kept, axis]), axis=last, keepdims=0)
    return site.done(site.reshape(found, shape_of(site.node.outputs[0])))


def _arg(site: Site, value: ir.Value, axis: int) -> ir.Value:
    return site.op(site.node.op_type, value, axis=axis, keepdims=site.integer("keepdims", 1))


def hardmax(site: Site) -> bool:
    """1 at the first greatest along an axis, else 0."""
    if not site.is_float or not site.shape:
        return False
    axis = site.axis(-1)
    first = site.op("ArgMax", site.x, axis=axis, keepdims=1)
    shape = [site.shape[axis] if each == axis else 1 for each in range(site.rank)]
    places = site.constant(np.arange(site.shape[axis], dtype=np.int64).reshape(shape))
    return site.done(site.op("Where", site.op("Equal", first, places), 1.0, 0.0))


def vector_product(site: Site) -> bool:
    """A MatMul with a vector: as a matrix of one row or column."""
    ranks = site.rank, len(shape_of(site.given(1)))
    matrices = [site.given(place) for place, rank in enumerate(ranks) if rank > 1]
    if len(matrices) == 2 or any(is_constant(matrix) for matrix in matrices):  # a constant matrix makes a linear
        return False
    left = site.op("Unsqueeze", site.x, site.ints([0])) if ranks[0] == 1 else site.x
    right = site.op("Unsqueeze", site.given(1), site.ints([1])) if ranks[1] == 1 else site.given(1)
    product = site.op("MatMul", left, right)
    return site.done(site.reshape(product, shape_of(site.node.outputs[0])))


RULES: dict[str, SiteRule] = {
    "MatMul": vector_product,
    **dict.fromkeys(_CORE, reduction),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), reduction),
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_normalization,
    "GlobalMaxPool": global_max_pool,
    "GlobalLpPool": global_lp_pool,
    "ArgMax": arg,
    "ArgMin": arg,
    "Hardmax": hardmax,
}

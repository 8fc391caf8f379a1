"""Softmax and normalisations over any axes: turned or joined so that they work along the last, where rows are."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .functions import expand
from .site import Site, SiteRule

_LAYER_NORMALIZATION_SINCE = 17


def softmax(site: Site) -> bool:
    """Softmax along another axis -> Transpose, Softmax along the last, Transpose back."""
    axis, last = site.axis(-1), site.rank - 1
    if not site.rank or axis == last:
        return False
    perm = list(range(site.rank))
    perm[axis], perm[last] = last, axis
    turned = site.op("Softmax", site.transpose(site.x, perm), axis=-1)
    return site.done(site.transpose(turned, perm))


def normalisation(site: Site) -> bool:
    """LayerNormalization or RMSNormalization over several last axes -> over one; with all outputs -> its definition."""
    if not site.only_first():
        return expand(site.node, site.editor)
    shape, axis = site.shape, site.axis(-1)
    given = [scale for scale in site.node.inputs[1:] if scale is not None]
    if axis == site.rank - 1 or not all(_repeats(shape_of(scale), shape[axis:]) for scale in given):
        return False
    length = prod(shape[axis:])
    scales = [_joined(site, scale, shape[axis:]) for scale in given]
    others = {"epsilon": site.real("epsilon", 1e-5), "stash_type": site.integer("stash_type", 1)}
    merged = site.reshape(site.x, (*shape[:axis], length))
    return site.done(site.reshape(site.op(site.node.op_type, merged, *scales, axis=-1, **others), shape))


def _repeats(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Return whether a shape repeats to another one."""
    ends = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(own in (1, wanted) for own, wanted in ends)


def _joined(site: Site, scale: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """Return a scale of several dimensions as one, repeated first where it is smaller."""
    if shape_of(scale) != shape:
        scale = site.op("Expand", scale, site.ints(shape))
    return site.reshape(scale, (prod(shape),))


def channel_normalisation(site: Site) -> bool:
    """InstanceNormalization and GroupNormalization -> LayerNormalization of every group, then a scale a channel."""
    shape, scale, bias = site.shape, site.given(1), site.given(2)
    if not site.is_float or shape_of(scale) != shape[1:2]:
        return False
    groups = site.integer("num_groups", shape[1])
    length = prod(shape[1:]) // groups
    even = _standardised(site, site.reshape(site.x, (shape[0], groups, length)), length)
    column = (shape[1], *(1 for _ in shape[2:]))
    scaled = site.op("Mul", site.reshape(even, shape), site.reshape(scale, column))
    return site.done(site.op("Add", scaled, site.reshape(bias, column)))


def _standardised(site: Site, rows: ir.Value, length: int) -> ir.Value:
    """Return rows with mean 0 and variance 1."""
    epsilon = site.real("epsilon", 1e-5)
    if site.opset >= _LAYER_NORMALIZATION_SINCE:
        ones = site.constant(np.ones(length, np.float32))
        return site.op("LayerNormalization", rows, ones, axis=-1, epsilon=epsilon)
    centred = site.op("Sub", rows, site.reduce("ReduceMean", rows, [2]))
    variance = site.reduce("ReduceMean", site.op("Mul", centred, centred), [2])
    return site.op("Div", centred, site.op("Sqrt", site.op("Add", variance, epsilon)))


RULES: dict[str, SiteRule] = {
    "Softmax": softmax,
    "LayerNormalization": normalisation,
    "RMSNormalization": normalisation,
    "InstanceNormalization": channel_normalisation,
    "GroupNormalization": channel_normalisation,
}

"""Transposed convolutions as plain ones, and normalisation across channels."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..edit import constant_array, shape_of
from .site import Site, SiteRule


def conv_transpose(site: Site) -> bool:
    """One Conv makes all phases of the output as channels; they are woven together and the border is cut off.

    Along each axis, output q * stride + r is the sum over j of x[q - j] * w[j * stride + r]: for every r a convolution
    with each stride-th tap (the "sub-pixel" form of a transposed convolution).
    """
    weight = constant_array(site.given(1))
    bias = site.maybe(2)
    if weight is None or (bias is not None and bias.const_value is None) or not site.is_float:
        return False
    spatial, groups = site.rank - 2, site.integer("group", 1)
    strides, out = site.list("strides", [1] * spatial), shape_of(site.node.outputs[0])[2:]
    dilated = _dilated(weight, site.list("dilations", [1] * spatial))
    begin = cut_in_front(site, dilated.shape[2:], strides, out)
    reach = [b + o - (n - 1) * s for b, o, n, s in zip(begin, out, site.shape[2:], strides, strict=True)]
    phases = _phases(dilated, reach, strides, groups)
    taps = phases.shape[2:]
    per_phase = None if bias is None else _repeated(site, bias, math.prod(strides))
    padding = [each - 1 for each in taps] * 2
    wide = site.op("Conv", site.x, site.constant(phases), per_phase, group=groups, pads=padding, kernel_shape=taps)
    lengths = [size + tap - 1 for size, tap in zip(site.shape[2:], taps, strict=True)]
    whole = _woven(site, wide, strides, lengths)
    for axis, (start, size) in enumerate(zip(begin, out, strict=True)):
        whole = site.slice(whole, axis + 2, start, start + size)
    return site.done(whole)


def _dilated(weight: np.ndarray, dilations: list[int]) -> np.ndarray:
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return wide


def _phases(weight: np.ndarray, reach: list[int], strides: list[int], groups: int) -> np.ndarray:
    """Return the filters [C_out * phases, C_in / groups, *taps] of a weight [C_in, C_out / groups, *kernel].

    ``reach`` is how far the output goes beyond the start of the last window: a kernel that is shorter gets zeros.
    """
    spatial = len(strides)
    taps = [-(-max(k, r) // s) for k, r, s in zip(weight.shape[2:], reach, strides, strict=True)]
    padding = [(0, t * s - k) for t, s, k in zip(taps, strides, weight.shape[2:], strict=True)]
    full = np.pad(weight, [(0, 0), (0, 0), *padding])
    split = full.reshape(*full.shape[:2], *(each for pair in zip(taps, strides, strict=True) for each in pair))
    turned = np.flip(split, axis=tuple(range(2, 2 + 2 * spatial, 2)))
    c_in, each = weight.shape[:2]
    grouped = turned.reshape(groups, c_in // groups, each, *turned.shape[2:])
    places = range(3, 3 + 2 * spatial)
    order = (0, 2, *(p + 1 for p in places if (p - 3) % 2 == 0), 1, *(p for p in places if (p - 3) % 2 == 0))
    filters = grouped.transpose(order)
    return np.ascontiguousarray(filters.reshape(groups * each * math.prod(strides), c_in // groups, *taps))


def _repeated(site: Site, bias: ir.Value, phases: int) -> ir.Value:
    numbers = constant_array(bias)
    assert numbers is not None
    return site.constant(np.repeat(numbers, phases))


def _woven(site: Site, wide: ir.Value, strides: list[int], lengths: list[int]) -> ir.Value:
    """Return [N, C, *(length * stride)] from [N, C * phases, *length]."""
    spatial = len(strides)
    n, channels = shape_of(site.node.outputs[0])[:2]
    split = site.reshape(wide, [n, channels, *strides, *lengths])
    perm = [0, 1, *(each for axis in range(spatial) for each in (2 + spatial + axis, 2 + axis))]
    whole = [length * stride for length, stride in zip(lengths, strides, strict=True)]
    return site.reshape(site.transpose(split, perm), [n, channels, *whole])


def cut_in_front(site: Site, kernel: tuple[int, ...], strides: list[int], out: tuple[int, ...]) -> list[int]:
    """Return how much is cut off in front (ONNX, ConvTranspose: pads, auto_pad and output_shape)."""
    spatial = len(strides)
    auto = site.text("auto_pad", "NOTSET")
    if auto == "NOTSET" and "output_shape" not in site.node.attributes:
        return site.list("pads", [0] * 2 * spatial)[:spatial]
    if auto == "VALID":
        return [0] * spatial
    extra = site.list("output_padding", [0] * spatial)
    rows = zip(site.shape[2:], kernel, strides, extra, out, strict=True)
    total = [max(0, (n - 1) * s + e + k - o) for n, k, s, e, o in rows]
    return [each // 2 if auto != "SAME_LOWER" else each - each // 2 for each in total]


def conv_of_three(site: Site) -> bool:
    """Three dimensions as two: the slices that a window reaches in depth are channels, the depths images of a batch."""
    weight = constant_array(site.given(1))
    plain, groups = site.text("auto_pad", "NOTSET") == "NOTSET", site.integer("group", 1)
    if weight is None or site.rank != 5 or not plain or not site.is_float:
        return False
    filters, channels, reach, *kernel = weight.shape
    n, out = site.shape[0], shape_of(site.node.outputs[0])[2:]
    strides, dilations, pads = (
        site.list("strides", [1] * 3),
        site.list("dilations", [1] * 3),
        site.list("pads", [0] * 6),
    )
    value = site.x
    if pads[0] or pads[3]:
        value = site.op("Pad", value, site.ints([0, 0, pads[0], 0, 0, 0, 0, pads[3], 0, 0]), mode="constant")
    starts = [place * dilations[0] for place in range(reach)]
    slices = [site.slice(value, 2, start, start + (out[0] - 1) * strides[0] + 1, strides[0]) for start in starts]
    grouped = [site.reshape(part, [n, groups, channels, out[0], *site.shape[3:]]) for part in slices]
    stacked = grouped[0] if reach == 1 else site.op("Concat", *grouped, axis=2)
    images = site.transpose(stacked, [0, 3, 1, 2, 4, 5])
    images = site.reshape(images, [n * out[0], groups * reach * channels, *site.shape[3:]])
    flat = np.ascontiguousarray(weight.transpose(0, 2, 1, 3, 4)).reshape(filters, reach * channels, *kernel)
    planes = site.op(
        "Conv",
        images,
        site.constant(flat),
        site.maybe(2),
        kernel_shape=kernel,
        strides=strides[1:],
        dilations=dilations[1:],
        pads=[*pads[1:3], *pads[4:]],
        group=groups,
    )
    result = site.reshape(planes, [n, out[0], filters, *out[1:]])
    return site.done(site.transpose(result, [0, 2, 1, 3, 4]))


def lrn(site: Site) -> bool:
    """X / (bias + alpha / size * sum of squares over neighbouring channels) ^ beta."""
    if not site.is_float:
        return False
    size, channels = site.integer("size", 1), site.shape[1]
    before, after = (size - 1) // 2, size // 2
    pads = site.ints([0, before, *[0] * (site.rank - 2), 0, after, *[0] * (site.rank - 2)])
    square = site.op("Pad", site.op("Mul", site.x, site.x), pads, mode="constant")
    total = site.slice(square, 1, 0, channels)
    for start in range(1, size):
        total = site.op("Add", total, site.slice(square, 1, start, start + channels))
    scaled = site.op("Mul", total, site.real("alpha", 1e-4) / size)
    power = site.op("Pow", site.op("Add", scaled, site.real("bias", 1.0)), site.real("beta", 0.75))
    return site.done(site.op("Div", site.x, power))


def batch_normalization(site: Site) -> bool:
    """With parameters made at run time: (x - mean) / sqrt(variance + epsilon) * scale + shift."""
    if site.integer("training_mode", 0) or not site.is_float or not site.only_first():
        return False
    params = [site.given(place) for place in range(1, 5)]
    if any(value.dtype != ir.DataType.FLOAT for value in params):
        return False
    shape = [site.shape[1], *[1] * (site.rank - 2)]
    scale, shift, mean, variance = (site.reshape(value, shape) for value in params)
    deviation = site.op("Sqrt", site.op("Add", variance, site.real("epsilon", 1e-5)))
    centred = site.op("Div", site.op("Sub", site.x, mean), deviation)
    return site.done(site.op("Add", site.op("Mul", centred, scale), shift))


def instance_normalization(site: Site) -> bool:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, over every channel of every image by itself."""
    if not site.is_float or site.rank < 3:
        return False
    axes = range(2, site.rank)
    centred = site.op("Sub", site.x, site.reduce("ReduceMean", site.x, axes))
    variance = site.reduce("ReduceMean", site.op("Mul", centred, centred), axes)
    deviation = site.op("Sqrt", site.op("Add", variance, site.real("epsilon", 1e-5)))
    shape = [site.shape[1], *[1] * (site.rank - 2)]
    scale, shift = (site.reshape(site.given(place), shape) for place in (1, 2))
    return site.done(site.op("Add", site.op("Mul", site.op("Div", centred, deviation), scale), shift))


RULES: dict[str, SiteRule] = {
    "InstanceNormalization": instance_normalization,
    "BatchNormalization": batch_normalization,
    "Conv": conv_of_three,
    "ConvTranspose": conv_transpose,
    "LRN": lrn,
}

"""Sampling at places that are made at run time: rows of pixels picked by number, weighted and added.

Coordinates, padding and interpolation follow the ONNX reference for GridSample, AffineGrid and DeformConv.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule

#: Keys' cubic convolution kernel (IEEE TASSP 29, 1981) with the coefficient that GridSample has.
_CUBIC = -0.75
_INT = ir.DataType.INT64


@dataclass(frozen=True)
class Axis:
    """One spatial axis of an image: its size, and where reflection turns round."""

    size: int
    low: float
    high: float
    padding: str


@dataclass(frozen=True)
class Tap:
    """A place on one axis that every sample reads, int64, and its weight in float32; None: 1."""

    place: ir.Value
    weight: ir.Value | None


def grid_sample(site: Site) -> bool:
    """Pixels are rows of a table, picked by number: one (nearest), two an axis (linear) or four (cubic)."""
    grid, spatial = site.given(1), site.shape[2:]
    mode, align = site.text("mode", "linear"), bool(site.integer("align_corners", 0))
    padding = site.text("padding_mode", "zeros")
    if not site.is_float or grid.dtype != ir.DataType.FLOAT or (padding == "reflection" and align and 1 in spatial):
        return False
    samples = list(shape_of(grid)[1:-1])
    taps = []
    for place, size in enumerate(spatial):
        low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        axis, component = Axis(size, low, high, padding), len(spatial) - 1 - place
        column = site.reshape(site.slice(grid, len(samples) + 1, component, component + 1), [site.shape[0], *samples])
        taps.append(_TAPS[mode](site, axis, _coordinates(site, axis, column, align=align)))
    picked = _sum_of_rows(site, site.x, site.shape, taps, samples)
    rank = len(samples)
    return site.done(site.transpose(picked, [0, rank + 1, *range(1, rank + 1)]))


def _coordinates(site: Site, axis: Axis, column: ir.Value, *, align: bool) -> ir.Value:
    """Return places in pixels for places in -1..1."""
    above = site.op("Add", column, 1.0)
    if align:
        return site.op("Mul", site.op("Div", above, 2.0), float(axis.size - 1))
    return site.op("Div", site.op("Sub", site.op("Mul", above, float(axis.size)), 1.0), 2.0)


def _inside(site: Site, axis: Axis, x: ir.Value) -> ir.Value:
    """Return places beyond the border as the padding has them; zeros leave them."""
    if axis.padding == "zeros":
        return x
    beyond = site.op("Or", site.op("Less", x, axis.low), site.op("Greater", x, axis.high))
    moved = site.op("Clip", x, 0.0, axis.size - 1.0) if axis.padding == "border" else _reflected(site, axis, x)
    return site.op("Where", beyond, moved, x)


def _reflected(site: Site, axis: Axis, x: ir.Value) -> ir.Value:
    """Return places reflected at both borders as often as it takes."""
    span = axis.high - axis.low
    distance = site.op("Abs", site.op("Sub", x, axis.low))
    turns = site.op("Floor", site.op("Div", distance, span))
    rest = site.op("Sub", distance, site.op("Mul", turns, span))
    half = site.op("Mul", turns, 0.5)
    even = site.op("Equal", half, site.op("Floor", half))
    return site.op("Where", even, site.op("Add", rest, axis.low), site.op("Sub", axis.high, rest))


def _pixel(site: Site, axis: Axis, x: ir.Value, weight: ir.Value | None) -> Tap:
    """Return the tap of whole places: within the image, or with no weight where padding is zeros."""
    x = _inside(site, axis, x)
    if axis.padding == "zeros":
        within = site.op("And", site.op("Greater", x, -1.0), site.op("Less", x, float(axis.size)))
        weight = site.op("Where", within, 1.0 if weight is None else weight, 0.0)
    return Tap(site.cast(site.op("Clip", x, 0.0, axis.size - 1.0), _INT), weight)


def _nearest(site: Site, axis: Axis, x: ir.Value) -> list[Tap]:
    return [_pixel(site, axis, site.op("Round", x), None)]


def _linear(site: Site, axis: Axis, x: ir.Value) -> list[Tap]:
    x = _inside(site, axis, x)
    first = site.op("Floor", x)
    part = site.op("Sub", x, first)
    weights = [site.op("Sub", 1.0, part), part]
    return [_pixel(site, axis, site.op("Add", first, float(step)), weight) for step, weight in enumerate(weights)]


def _cubic(site: Site, axis: Axis, x: ir.Value) -> list[Tap]:
    """Return four taps; the padding holds for each of them, not for the place (as in PyTorch and onnxruntime)."""
    first = site.op("Floor", x)
    part = site.op("Sub", x, first)
    rest = site.op("Sub", 1.0, part)
    weights = [_far(site, part), _near(site, part), _near(site, rest), _far(site, rest)]
    return [_pixel(site, axis, site.op("Add", first, step - 1.0), weight) for step, weight in enumerate(weights)]


def _near(site: Site, d: ir.Value) -> ir.Value:
    """Return the cubic kernel at a distance below 1: ((a + 2) d - (a + 3)) d^2 + 1."""
    inner = site.op("Sub", site.op("Mul", d, _CUBIC + 2), _CUBIC + 3)
    return site.op("Add", site.op("Mul", site.op("Mul", inner, d), d), 1.0)


def _far(site: Site, part: ir.Value) -> ir.Value:
    """Return the cubic kernel at a distance d = 1 + part: ((a d - 5 a) d + 8 a) d - 4 a."""
    d = site.op("Add", part, 1.0)
    inner = site.op("Sub", site.op("Mul", d, _CUBIC), 5 * _CUBIC)
    return site.op("Sub", site.op("Mul", site.op("Add", site.op("Mul", inner, d), 8 * _CUBIC), d), 4 * _CUBIC)


_TAPS = {
    "nearest": _nearest, "linear": _linear, "bilinear": _linear, "cubic": _cubic, "bicubic": _cubic,
}  # fmt: skip


def _sum_of_rows(
    site: Site, images: ir.Value, shape: Sequence[int], taps: list[list[Tap]], samples: list[int]
) -> ir.Value:
    """Return for every sample [n, *samples, channels] the weighted sum of the pixels that it reads of its image."""
    n, channels, *spatial = shape
    pixels = math.prod(spatial)
    table = site.transpose(images, [0, *range(2, len(shape)), 1])
    table = site.reshape(table, [n * pixels, channels])
    starts = np.arange(n, dtype=np.int64).reshape(-1, *[1] * len(samples)) * pixels
    strides = [math.prod(spatial[place + 1 :]) for place in range(len(spatial))]
    total: ir.Value | None = None
    for chosen in itertools.product(*taps):
        rows = site.constant(starts)
        for tap, stride in zip(chosen, strides, strict=True):
            step = site.op("Mul", tap.place, site.constant(np.array(stride, np.int64))) if stride > 1 else tap.place
            rows = site.op("Add", rows, step)
        part = site.op("Gather", table, site.reshape(rows, [n * math.prod(samples)]), axis=0)
        part = site.reshape(part, [n, *samples, channels])
        weights = [tap.weight for tap in chosen if tap.weight is not None]
        if weights:
            weight = weights[0]
            for each in weights[1:]:
                weight = site.op("Mul", weight, each)
            part = site.op("Mul", part, site.reshape(weight, [n, *samples, 1]))
        total = part if total is None else site.op("Add", total, part)
    assert total is not None
    return total


def deform_conv(site: Site) -> bool:
    """Samples at the places of every window and their offsets, times the mask; then a convolution of 1 x 1."""
    if not site.is_float or site.rank != 4:
        return False
    n, channels, *size = site.shape
    filters, depth, *kernel = shape_of(site.given(1))
    out, groups = list(shape_of(site.node.outputs[0])[2:]), site.integer("offset_group", 1)
    count = math.prod(kernel)
    dims = [n * groups, count, *out]
    offsets = site.reshape(site.given(2), [n * groups, count, 2, *out])
    taps = []
    for place in range(2):
        offset = site.reshape(site.slice(offsets, 2, place, place + 1), dims)
        axis = Axis(size[place], 0.0, size[place] - 1.0, "zeros")
        taps.append(
            _linear(site, axis, site.op("Add", offset, site.constant(_window_places(site, place, kernel, out))))
        )
    images = site.reshape(site.x, [n * groups, channels // groups, *size])
    picked = _sum_of_rows(site, images, [n * groups, channels // groups, *size], taps, [count, *out])
    if site.maybe(4) is not None:
        picked = site.op("Mul", picked, site.reshape(site.given(4), [*dims, 1]))
    columns = site.reshape(site.transpose(picked, [0, 4, 1, 2, 3]), [n, channels * count, *out])
    weight = site.reshape(site.given(1), [filters, depth * count, 1, 1])
    operands = [columns, weight] + ([] if site.maybe(3) is None else [site.given(3)])
    return site.done(site.op("Conv", *operands, kernel_shape=[1, 1], group=site.integer("group", 1)))


def _window_places(site: Site, axis: int, kernel: Sequence[int], out: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return where along an axis every position of every window is, float32 [1, positions, *out] (but for 1)."""
    strides, dilations, pads = site.list("strides", [1, 1]), site.list("dilations", [1, 1]), site.list("pads", [0] * 4)
    steps = np.indices(kernel)[axis].reshape(1, -1, 1, 1) * dilations[axis]
    starts = np.arange(out[axis]) * strides[axis] - pads[axis]
    shape = [1, 1, -1, 1] if axis == 0 else [1, 1, 1, -1]
    return np.asarray(steps + starts.reshape(shape), np.float32)


def affine_grid(site: Site) -> bool:
    """Every coordinate a sum of constant grids times the numbers of theta."""
    size = site.numbers(1)
    if size is None or not site.is_float:
        return False
    n, _, *spatial = (int(each) for each in size)
    align, rank = bool(site.integer("align_corners", 0)), len(spatial)
    grids = []
    for place, length in enumerate(spatial):
        steps = np.arange(length, dtype=np.float64)
        ends = np.linspace(-1, 1, length) if align else (2 * steps + 1) / length - 1
        column = [-1 if each == place else 1 for each in range(rank)]
        grids.append(site.constant(ends.astype(np.float32).reshape(column)))
    columns = []
    for row in range(rank):
        numbers = site.slice(site.x, 1, row, row + 1)
        parts = [site.reshape(site.slice(numbers, 2, each, each + 1), [n, *[1] * rank]) for each in range(rank + 1)]
        total = parts[rank]
        for part, grid in zip(parts, grids[::-1], strict=False):
            total = site.op("Add", total, site.op("Mul", part, grid))
        whole = site.op("Expand", total, site.ints([n, *spatial]))
        columns.append(site.reshape(whole, [n, *spatial, 1]))
    return site.done(site.op("Concat", *columns, axis=rank + 1))


RULES: dict[str, SiteRule] = {"GridSample": grid_sample, "DeformConv": deform_conv, "AffineGrid": affine_grid}

"""Resize by picking and weighting: every axis by itself, each output place a sum of a few input places.

Coordinates, interpolation and anti-aliasing follow the ONNX reference for Resize.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One axis that is resized: from ``size`` to ``out`` places, with the region of interest where one is used."""

    axis: int
    size: int
    out: int
    scale: float
    start: float
    end: float


@dataclass(frozen=True)
class Taps:
    """For every output place (rows) the input places that it takes (columns) and their weights."""

    places: npt.NDArray[np.int64]
    weights: Floats
    outside: npt.NDArray[np.bool_] | None = None


def resize(site: Site) -> bool:
    """Axis by axis: whole factors by repeating, else rows picked, weighted and added."""
    axes = _axes(site)
    mode = site.text("mode", "nearest")
    if axes is None or site.rank == 0 or (mode != "nearest" and not site.is_float):
        return False
    value, shape = site.x, list(site.shape)
    for each in axes:
        value = _one_axis(site, value, shape, each, mode)
        shape[each.axis] = each.out
    return site.done(site.op("Identity", value) if value is site.x else value)


def _axes(site: Site) -> list[Axis] | None:
    """Return the axes that change, or None where the sizes are not constant."""
    roi, scales, sizes = (site.numbers(place) for place in (1, 2, 3))
    if scales is None and sizes is None:
        return None
    if site.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize" and roi is None:
        return None
    out = shape_of(site.node.outputs[0])
    places = [axis % site.rank for axis in site.list("axes", range(site.rank))]
    given = _scales(site, places, scales, sizes)
    count = len(places)
    region = np.array([0.0] * count + [1.0] * count) if roi is None or roi.size != 2 * count else roi.astype(np.float64)
    found = [
        Axis(axis, site.shape[axis], out[axis], scale, float(region[place]), float(region[count + place]))
        for place, (axis, scale) in enumerate(zip(places, given, strict=True))
    ]
    cropped = site.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return [each for each in found if each.scale != 1 or each.size != each.out or (cropped and _region(each))]


def _region(axis: Axis) -> bool:
    return (axis.start, axis.end) != (0.0, 1.0)


def _scales(site: Site, places: list[int], scales: np.ndarray | None, sizes: np.ndarray | None) -> list[float]:
    if scales is not None and scales.size:
        return [float(each) for each in scales]
    assert sizes is not None
    ratios = [float(size) / site.shape[axis] for size, axis in zip(sizes, places, strict=True)]
    policy = site.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return ratios
    chosen = min(ratios) if policy == "not_larger" else max(ratios)
    return [chosen] * len(ratios)


def _one_axis(site: Site, value: ir.Value, shape: list[int], axis: Axis, mode: str) -> ir.Value:
    taps = _taps(site, axis, mode)
    if taps.weights.shape[1] == 1:
        picked = _pick(site, value, shape, axis.axis, taps.places[:, 0])
    else:
        picked = _weighted(site, value, shape, axis, taps)
    if taps.outside is None or not taps.outside.any():
        return picked
    beyond = site.constant(taps.outside.reshape(_along(len(shape), axis.axis)))
    return site.op("Where", beyond, site.real("extrapolation_value", 0.0), picked)


def _along(rank: int, axis: int) -> list[int]:
    return [-1 if each == axis else 1 for each in range(rank)]


def _weighted(site: Site, value: ir.Value, shape: list[int], axis: Axis, taps: Taps) -> ir.Value:
    total: ir.Value | None = None
    for places, weights in zip(taps.places.T, taps.weights.T, strict=True):
        if not weights.any():
            continue
        column = site.constant(weights.astype(np.float32).reshape(_along(len(shape), axis.axis)))
        part = site.op("Mul", _pick(site, value, shape, axis.axis, places), column)
        total = part if total is None else site.op("Add", total, part)
    assert total is not None
    return total


def _pick(site: Site, value: ir.Value, shape: list[int], axis: int, places: npt.NDArray[np.int64]) -> ir.Value:
    """Return the places of an axis: each repeated as often where that is a view, else a Gather."""
    factor = len(places) // shape[axis]
    if factor > 1 and len(places) == factor * shape[axis] and (places == np.arange(len(places)) // factor).all():
        before, after = shape[: axis + 1], shape[axis + 1 :]
        wide = site.op("Expand", site.reshape(value, [*before, 1, *after]), site.ints([*before, factor, *after]))
        return site.reshape(wide, [*shape[:axis], len(places), *after])
    return site.op("Gather", value, site.constant(places), axis=axis)


def _taps(site: Site, axis: Axis, mode: str) -> Taps:
    """Return the taps of every output place."""
    transform = site.text("coordinate_transformation_mode", "half_pixel")
    x = _COORDINATES[transform](np.arange(axis.out, dtype=np.float64), axis)
    outside = (x < 0) | (x > axis.size - 1) if transform == "tf_crop_and_resize" else None
    if mode == "nearest":
        whole = _NEAREST[site.text("nearest_mode", "round_prefer_floor")](x)
        places = np.clip(whole, 0, axis.size - 1).astype(np.int64)
        return Taps(places[:, None], np.ones((axis.out, 1)), outside)
    stretch = min(1.0, axis.scale) if site.integer("antialias", 0) else 1.0
    half = (1 if mode == "linear" else 2) / stretch
    kernel = _linear if mode == "linear" else _cubic(site.real("cubic_coeff_a", -0.75))
    first = np.floor(x).astype(np.int64) - math.ceil(half) + 1
    places = first[:, None] + np.arange(2 * math.ceil(half))
    weights = kernel(np.abs(x[:, None] - places) * stretch)
    if site.integer("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < axis.size), weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(places, 0, axis.size - 1), weights / np.where(total == 0, 1.0, total), outside)


def _linear(distance: Floats) -> Floats:
    return np.maximum(0.0, 1.0 - distance)


def _cubic(a: float) -> Callable[[Floats], Floats]:
    """Return Keys' cubic convolution kernel (IEEE TASSP 29, 1981) with coefficient ``a``."""

    def kernel(d: Floats) -> Floats:
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return kernel


def _half_pixel(x: Floats, axis: Axis) -> Floats:
    return (x + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(x: Floats, axis: Axis) -> Floats:
    adjustment = axis.out / (axis.scale * axis.size)
    center = axis.size / 2
    return center * (1 - adjustment) + (x + 0.5) / axis.scale - 0.5


def _pytorch_half_pixel(x: Floats, axis: Axis) -> Floats:
    return (x + 0.5) / axis.scale - 0.5 if axis.out > 1 else np.full_like(x, -0.5)


def _align_corners(x: Floats, axis: Axis) -> Floats:
    length = axis.scale * axis.size - 1
    return np.zeros_like(x) if length == 0 else x * (axis.size - 1) / length


def _asymmetric(x: Floats, axis: Axis) -> Floats:
    return x / axis.scale


def _crop(x: Floats, axis: Axis) -> Floats:
    last = axis.size - 1
    if axis.out > 1:
        return axis.start * last + x * (axis.end - axis.start) * last / (axis.out - 1)
    return np.full_like(x, 0.5 * (axis.start + axis.end) * last)


_COORDINATES: dict[str, Callable[[Floats, Axis], Floats]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_crop_and_resize": _crop,
}
_NEAREST: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}

RULES: dict[str, SiteRule] = {"Resize": resize}

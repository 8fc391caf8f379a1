"""Where the greatest of every window is, and values put back there."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import onnx_ir as ir

from ...isa.errors import FlexcError
from .pooling import MOST_PLACES, Windows
from .site import Site, SiteRule


def max_pool_places(site: Site) -> bool:
    """With the places: the greater of the value so far and the next position of the window, and where that is."""
    if site.only_first() or not site.is_float:
        return False
    windows = Windows.of(site)
    if math.prod(windows.kernel) > MOST_PLACES:
        return False
    pads = [0, 0, *windows.before, 0, 0, *windows.after]
    least = site.number(-math.inf)
    padded = site.op("Pad", site.x, site.ints(pads), least, mode="constant") if any(pads) else site.x
    numbers = np.pad(_numbers(site, windows), list(zip(windows.before, windows.after, strict=True)))
    best, place = _position(site, windows, padded, numbers, (0,) * numbers.ndim)
    for offset in list(np.ndindex(*windows.kernel))[1:]:
        value, here = _position(site, windows, padded, numbers, offset)
        greater = site.op("Greater", value, best)
        best, place = site.op("Where", greater, value, best), site.op("Where", greater, here, place)
    n, channels = site.shape[:2]
    planes = np.arange(n * channels, dtype=np.int64).reshape(n, channels, *[1] * numbers.ndim)
    return site.done(best, site.op("Add", place, site.constant(planes * math.prod(windows.size))))


def _numbers(site: Site, windows: Windows) -> np.ndarray:
    """Return the number of every element of one channel's image."""
    order: Literal["F", "C"] = "F" if site.integer("storage_order", 0) else "C"
    flat = np.arange(math.prod(windows.size), dtype=np.int64)
    return np.reshape(flat, windows.size, order=order)


def _position(
    site: Site, windows: Windows, padded: ir.Value, numbers: np.ndarray, offset: tuple[int, ...]
) -> tuple[ir.Value, ir.Value]:
    """Return what every window has at one of its positions, and the numbers of these elements."""
    value = padded
    for axis, (at, dilation, stride, out) in enumerate(
        zip(offset, windows.dilations, windows.strides, windows.out, strict=True)
    ):
        cut = slice(at * dilation, at * dilation + (out - 1) * stride + 1, stride)
        value = site.slice(value, axis + 2, cut.start, cut.stop, cut.step)
        numbers = numbers[(slice(None),) * axis + (cut,)]
    return value, site.constant(np.ascontiguousarray(numbers))


def max_unpool(site: Site) -> bool:
    """Values put into zeros, one by one, at their places in the flat result."""
    given = site.numbers(2)
    if site.maybe(2) is not None and given is None:
        return False
    kernel = site.list("kernel_shape", [])
    rank = len(kernel)
    strides, pads = site.list("strides", [1] * rank), site.list("pads", [0] * 2 * rank)
    size = [
        (length - 1) * stride + width - before - after
        for length, stride, width, before, after in zip(
            site.shape[2:], strides, kernel, pads[:rank], pads[rank:], strict=True
        )
    ]
    shape = [*site.shape[:2], *size]
    if given is not None and given.tolist() != shape:
        raise FlexcError(
            f"output_shape {given.tolist()} is not the {shape} that windows of {kernel} make",
            where=f"node '{site.node.name}' (MaxUnpool)",
            remedy="ONNX and onnxruntime put the values in different places there: leave output_shape out",
        )
    count = math.prod(site.shape)
    dtype = site.x.dtype or ir.DataType.FLOAT
    zeros = site.constant(np.zeros((math.prod(shape), 1), dtype.numpy()), dtype)
    places, values = (site.reshape(value, [count, 1]) for value in (site.given(1), site.x))
    return site.done(site.reshape(site.op("ScatterND", zeros, places, values), shape))


RULES: dict[str, SiteRule] = {"MaxPool": max_pool_places}
EARLY: dict[str, SiteRule] = {"MaxUnpool": max_unpool}

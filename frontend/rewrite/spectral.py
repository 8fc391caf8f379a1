"""Discrete Fourier transforms as sums of products with cosines and sines: short ones, in float32 on the vector unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule

#: Length from which on the quadratic number of products is left to the host.
LONGEST = 1024

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Complex:
    """The two parts of a complex value; ``imaginary`` is None where the value is real."""

    real: ir.Value
    imaginary: ir.Value | None


def dft(site: Site) -> bool:
    """The transform along one axis of [..., 1 or 2]: forwards or back, of all bins or of those of a real signal."""
    axis, length = _axis(site), site.numbers(1)
    if axis is None or not site.is_float or (site.maybe(1) is not None and length is None):
        return False
    inverse, onesided = bool(site.integer("inverse", 0)), bool(site.integer("onesided", 0))
    bins = site.shape[axis]
    size = int(length.reshape(-1)[0]) if length is not None else 2 * (bins - 1) if inverse and onesided else bins
    if size > LONGEST:
        return False
    moved = [each for each in range(site.rank - 1) if each != axis]
    parts = [site.slice(site.x, site.rank - 1, place, place + 1) for place in range(site.shape[-1])]
    lines = [
        site.reshape(site.transpose(part, [*moved, axis, site.rank - 1]), _lines(site, moved, bins)) for part in parts
    ]
    whole = size // 2 + 1 if inverse and onesided else size
    lines = [_fitted(site, line, bins, whole) for line in lines]
    value = Complex(lines[0], lines[1] if len(lines) > 1 else None)
    if inverse and onesided:
        return site.done(_put_back(site, [_real_signal(site, value, size)], moved, axis))
    angle = _angles(size // 2 + 1 if onesided else size, size)
    factor = 1 / size if inverse else 1.0
    result = _transformed(site, value, np.cos(angle) * factor, np.sin(angle) * (factor if inverse else -1))
    return site.done(_put_back(site, [result.real, result.imaginary], moved, axis))


def _axis(site: Site) -> int | None:
    """Return the axis: an attribute up to operator set 19, an input afterwards."""
    given = site.numbers(2)
    if site.maybe(2) is not None and given is None:
        return None
    default = site.integer("axis", 1) if site.opset < 20 else -2
    return (int(given.reshape(-1)[0]) if given is not None else default) % site.rank


def _lines(site: Site, moved: list[int], bins: int) -> list[int]:
    return [*(site.shape[each] for each in moved), bins]


def _fitted(site: Site, line: ir.Value, have: int, want: int) -> ir.Value:
    """Return lines cut, or with zeros behind, to another length."""
    last = site.rank - 2
    if want <= have:
        return line if want == have else site.slice(line, last, 0, want)
    pads = [0] * (2 * last + 1) + [want - have]
    return site.op("Pad", line, site.ints(pads), mode="constant")


def _angles(rows: int, size: int) -> Floats:
    """Return 2 pi k n / size for every bin k and place n."""
    turns = np.outer(np.arange(rows), np.arange(size)) % size
    return np.asarray(turns * (2 * math.pi / size), np.float64)


def _products(site: Site, line: ir.Value, matrix: Floats) -> ir.Value:
    """Return the sums over the last axis of a line [..., n] times each row of a matrix [k, n]."""
    rank = site.rank - 1
    rows = site.op("Mul", site.op("Unsqueeze", line, site.ints([rank - 1])), site.constant(matrix.astype(np.float32)))
    return site.reduce("ReduceSum", rows, [rank], keepdims=False)


def _transformed(site: Site, value: Complex, cosines: Floats, sines: Floats) -> Complex:
    real, imaginary = _products(site, value.real, cosines), _products(site, value.real, sines)
    if value.imaginary is not None:
        real = site.op("Sub", real, _products(site, value.imaginary, sines))
        imaginary = site.op("Add", imaginary, _products(site, value.imaginary, cosines))
    return Complex(real, imaginary)


def _real_signal(site: Site, value: Complex, size: int) -> ir.Value:
    """Return the signal of which only half the bins are given: the others are their conjugates."""
    bins = size // 2 + 1
    weight = np.where((np.arange(bins) == 0) | (2 * np.arange(bins) == size), 1.0, 2.0) / size
    angle = _angles(size, size)[:, :bins]
    real = _products(site, value.real, np.cos(angle) * weight)
    if value.imaginary is None:
        return real
    return site.op("Sub", real, _products(site, value.imaginary, np.sin(angle) * weight))


def _put_back(site: Site, parts: list[ir.Value | None], moved: list[int], axis: int) -> ir.Value:
    """Return the parts side by side along a last axis, the transformed axis in its place."""
    last = site.rank - 1
    columns = [site.op("Unsqueeze", part, site.ints([last])) for part in parts if part is not None]
    joined = columns[0] if len(columns) == 1 else site.op("Concat", *columns, axis=last)
    order = [*moved, axis]
    return site.transpose(joined, [*(order.index(each) for each in range(last)), last])


def stft(site: Site) -> bool:
    """Frames of a real signal [batch, length, 1], each times the window, then their transforms."""
    step, length, window = site.numbers(1), site.numbers(3), site.maybe(2)
    if step is None or not site.is_float or site.rank != 3 or site.shape[-1] != 1:
        return False
    if length is None and window is None:
        return False
    size = int(length.reshape(-1)[0]) if length is not None else shape_of(site.given(2))[0]
    if size > LONGEST or (window is not None and shape_of(window)[0] != size):
        return False
    distance = int(step.reshape(-1)[0])
    frames = (site.shape[1] - size) // distance + 1
    places = np.arange(frames)[:, None] * distance + np.arange(size)
    signal = site.reshape(site.x, site.shape[:2])
    lines = site.op("Gather", signal, site.constant(places.astype(np.int64)), axis=1)
    lines = lines if window is None else site.op("Mul", lines, window)
    angle = _angles(size // 2 + 1 if site.integer("onesided", 1) else size, size)
    return site.done(_spectra(site, lines, angle))


def _spectra(site: Site, lines: ir.Value, angle: Floats) -> ir.Value:
    """Return the transforms [batch, frames, bins, 2] of frames [batch, frames, n]."""
    wide = site.op("Unsqueeze", lines, site.ints([2]))
    parts = []
    for matrix in (np.cos(angle), -np.sin(angle)):
        product = site.op("Mul", wide, site.constant(matrix.astype(np.float32)))
        parts.append(site.op("Unsqueeze", site.reduce("ReduceSum", product, [3], keepdims=False), site.ints([3])))
    return site.op("Concat", *parts, axis=3)


RULES: dict[str, SiteRule] = {"DFT": dft, "STFT": stft}

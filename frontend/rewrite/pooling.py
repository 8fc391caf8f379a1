"""Pooling with explicit padding, whole windows and plain sums; three dimensions as two and then one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .site import Attribute, Site, SiteRule

Attributes: TypeAlias = dict[str, Attribute]

#: The operator set from which on AveragePool has dilations.
AVERAGE_DILATES = 19
#: Places of a window that are joined one after the other; a larger one is pooled row by row first.
MOST_PLACES = 36


@dataclass(frozen=True)
class Windows:
    """How the windows of a pooling lie along every spatial axis.

    ``after`` is the padding that the last window reaches, ``given`` the padding that the node asks for there.
    """

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    given: tuple[int, ...]

    @classmethod
    def of(cls, site: Site) -> Windows:
        """Read a pooling node (ONNX, MaxPool: auto_pad, ceil_mode)."""
        kernel = site.list("kernel_shape", [])
        size, out = site.shape[2:], shape_of(site.node.outputs[0])[2:]
        rank = len(kernel)
        strides, dilations = site.list("strides", [1] * rank), site.list("dilations", [1] * rank)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        auto = site.text("auto_pad", "NOTSET")
        pads = site.list("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        before, given = pads[:rank], pads[rank:]
        if auto.startswith("SAME"):
            total = [max(0, (o - 1) * s + r - n) for o, s, r, n in zip(out, strides, reach, size, strict=True)]
            small, large = [each // 2 for each in total], [each - each // 2 for each in total]
            before, given = (small, large) if auto == "SAME_UPPER" else (large, small)
        after = [
            max(0, (o - 1) * s + r - n - p)
            for o, s, r, n, p in zip(out, strides, reach, size, before, strict=True)
        ]  # fmt: skip
        rows = (size, out, kernel, strides, dilations, before, after, given)
        return cls(*(tuple(each) for each in rows))

    def attributes(self) -> Attributes:
        """Return the attributes of the node in its plain form."""
        plain: Attributes = {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": [*self.before, *self.after],
        }
        return plain | ({} if set(self.dilations) == {1} else {"dilations": list(self.dilations)})

    def counts(self, *, padding: bool) -> np.ndarray:
        """Return how many elements each window [*out] holds, those of the padding asked for included or not."""
        total = np.ones((), np.int64)
        rows = zip(self.size, self.out, self.kernel, self.strides, self.dilations, self.before, self.given, strict=True)
        for size, out, kernel, stride, dilation, before, given in rows:
            places = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - before
            low, high = (-before, size + given) if padding else (0, size)
            total = total[..., None] * ((places >= low) & (places < high)).sum(axis=1)
        return total


def _plain(site: Site) -> bool:
    explicit = site.text("auto_pad", "NOTSET") == "NOTSET" and not site.integer("ceil_mode", 0)
    return explicit and site.rank <= 4


def _small(site: Site) -> bool:
    kernel = site.list("kernel_shape", [])
    return math.prod(kernel) <= MOST_PLACES or min(kernel) == 1


def max_pool(site: Site) -> bool:
    """The plain form; three dimensions are pooled plane by plane, then along the first."""
    if (_plain(site) and _small(site)) or not site.is_float or not site.only_first() or site.rank > 5:
        return False
    windows = Windows.of(site)
    return site.done(_pooled(site, site.x, windows, "MaxPool", {}))


def average_pool(site: Site) -> bool:
    """The plain form counts padding as zeros; elsewhere the result is corrected by a constant for each window."""
    if (_plain(site) and _small(site) and _uniform(site)) or not site.is_float or site.rank > 5:
        return False
    windows = Windows.of(site)
    average = _pooled(site, site.x, windows, "AveragePool", {"count_include_pad": 1})
    counts = windows.counts(padding=bool(site.integer("count_include_pad", 0)))
    if (counts == math.prod(windows.kernel)).all():
        return site.done(average)
    factor = math.prod(windows.kernel) / np.maximum(counts, 1)
    return site.done(site.op("Mul", average, site.constant(factor.astype(np.float32))))


def _uniform(site: Site) -> bool:
    return bool(site.integer("count_include_pad", 0)) or not any(site.list("pads", [0]))


def lp_pool(site: Site) -> bool:
    """The root of the sum of powers: an average of plain form times the window's size."""
    p = site.integer("p", 2)
    if not site.is_float or site.rank > 5:
        return False
    windows = Windows.of(site)
    if set(windows.dilations) != {1} and site.opset < AVERAGE_DILATES:
        return False
    power = site.op("Mul", site.x, site.x) if p == 2 else site.op("Abs", site.x)
    power = site.op("Pow", power, float(p)) if p > 2 else power
    average = _pooled(site, power, windows, "AveragePool", {"count_include_pad": 1})
    total = site.op("Mul", average, float(math.prod(windows.kernel)))
    root = site.op("Sqrt", total) if p == 2 else total
    return site.done(site.op("Pow", root, 1 / p) if p > 2 else root)


def _pooled(site: Site, x: ir.Value, windows: Windows, op_type: str, extra: Attributes) -> ir.Value:
    """Return a pooling in plain form: of planes and then along depth where there are three dimensions."""
    places = math.prod(windows.kernel)
    if len(windows.size) == 2 and places > MOST_PLACES and min(windows.kernel) > 1:
        rows = site.op(op_type, x, **_part(windows, slice(0, 1), after=(1, 0)), **extra)
        return site.op(op_type, rows, **_part(windows, slice(1, 2), before=(1, 0)), **extra)
    if len(windows.size) < 3:
        return site.op(op_type, x, **windows.attributes(), **extra)
    n, channels = site.shape[:2]
    depth, *plane = windows.size
    out_depth, *out_plane = windows.out
    flat = site.reshape(x, [n, channels * depth, *plane])
    flat = site.op(op_type, flat, **_part(windows, slice(1, 3)), **extra)
    columns = math.prod(out_plane)
    flat = site.reshape(flat, [n, channels, depth, columns])
    flat = site.op(op_type, flat, **_part(windows, slice(0, 1), after=(1, 0)), **extra)
    return site.reshape(flat, [n, channels, out_depth, *out_plane])


def _part(windows: Windows, axes: slice, *, before: Sequence[int] = (), after: Sequence[int] = ()) -> Attributes:
    """Return the attributes for some of the axes; ``before`` and ``after`` them (1, 0) stands for one not pooled."""
    (one, none), (more, nothing) = (list(before[:1]), list(before[1:])), (list(after[:1]), list(after[1:]))
    plain: Attributes = {
        "kernel_shape": [*one, *windows.kernel[axes], *more],
        "strides": [*one, *windows.strides[axes], *more],
        "pads": [*none, *windows.before[axes], *nothing, *none, *windows.after[axes], *nothing],
    }
    dilations = windows.dilations[axes]
    return plain | ({} if set(dilations) == {1} else {"dilations": [*one, *dilations, *more]})


RULES: dict[str, SiteRule] = {"MaxPool": max_pool, "AveragePool": average_pool, "LpPool": lp_pool}

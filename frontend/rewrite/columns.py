"""Convolutions with weights made at run time: windows as columns of a matrix, and columns put together to an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..edit import is_constant, shape_of
from .convolution import cut_in_front
from .site import Site, SiteRule

#: Positions of a window from which on this is left to the host: each is an image of its own.
MOST_POSITIONS = 256


@dataclass(frozen=True)
class Steps:
    """How windows lie in an image along every axis: their size, and the steps between and within them."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @classmethod
    def of(cls, site: Site, kernel: Sequence[int]) -> Steps:
        """Read the attributes of a node."""
        ones = [1] * len(kernel)
        return cls(tuple(kernel), tuple(site.list("strides", ones)), tuple(site.list("dilations", ones)))

    @property
    def fits(self) -> bool:
        """Whether there are few enough positions."""
        return math.prod(self.kernel) <= MOST_POSITIONS

    def positions(self) -> list[tuple[int, ...]]:
        """Return where in the image every position of the first window is."""
        return [
            tuple(at * dilation for at, dilation in zip(place, self.dilations, strict=True))
            for place in np.ndindex(*self.kernel)
        ]

    def reach(self, counts: Sequence[int]) -> list[int]:
        """Return from the first to behind the last of so many windows, one element of each."""
        return [(count - 1) * stride + 1 for count, stride in zip(counts, self.strides, strict=True)]

    def extent(self, counts: Sequence[int]) -> list[int]:
        """Return how far so many windows reach in all."""
        rows = zip(self.reach(counts), self.kernel, self.dilations, strict=True)
        return [reach + (k - 1) * dilation for reach, k, dilation in rows]


def _image(site: Site, columns: ir.Value, shape: list[int], steps: Steps, whole: Sequence[int]) -> ir.Value:
    """Return the image [n, c, *whole] that columns [n, c, positions, *counts] add up to."""
    spread = _spread(site, columns, shape, steps.strides)
    reach = steps.reach(shape[3:])
    total: ir.Value | None = None
    for number, before in enumerate(steps.positions()):
        part = site.reshape(site.slice(spread, 2, number, number + 1), [*shape[:2], *reach])
        after = [length - b - r for length, b, r in zip(whole, before, reach, strict=True)]
        placed = site.op("Pad", part, site.ints([0, 0, *before, 0, 0, *after]), mode="constant")
        total = placed if total is None else site.op("Add", total, placed)
    assert total is not None
    return total


def _spread(site: Site, columns: ir.Value, shape: list[int], strides: Sequence[int]) -> ir.Value:
    """Return columns [n, c, k, *counts] with stride - 1 zeros between any two along every axis."""
    for axis, stride in enumerate(strides, start=3):
        if stride == 1:
            continue
        wide = site.reshape(columns, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
        none = [0] * (len(shape) + 1)
        after = [stride - 1 if each == axis + 1 else 0 for each in range(len(none))]
        wide = site.op("Pad", wide, site.ints([*none, *after]), mode="constant")
        flat = site.reshape(wide, [*shape[:axis], shape[axis] * stride, *shape[axis + 1 :]])
        shape = [*shape[:axis], (shape[axis] - 1) * stride + 1, *shape[axis + 1 :]]
        columns = site.slice(flat, axis, 0, shape[axis])
    return columns


def col2im(site: Site) -> bool:
    """For every position of the block what it gives to the image: columns spread by the strides, padded, added."""
    size, block = site.numbers(1), site.numbers(2)
    if size is None or block is None or not site.is_float:
        return False
    steps, rank = Steps.of(site, [int(each) for each in block]), len(size)
    if not steps.fits:
        return False
    pads = site.list("pads", [0] * 2 * rank)
    whole = [int(length) + pads[axis] + pads[rank + axis] for axis, length in enumerate(size)]
    single = steps.extent([1] * rank)
    counts = [(w - e) // s + 1 for w, e, s in zip(whole, single, steps.strides, strict=True)]
    positions = math.prod(steps.kernel)
    shape = [site.shape[0], site.shape[1] // positions, positions, *counts]
    total = _image(site, site.reshape(site.x, shape), shape, steps, whole)
    for axis, length in enumerate(size):
        total = site.slice(total, axis + 2, pads[axis], pads[axis] + int(length))
    return site.done(total)


def _free(site: Site) -> bool:
    """Return whether a convolution has a weight made at run time."""
    return site.is_float and not is_constant(site.given(1)) and site.given(1).dtype == ir.DataType.FLOAT


def _biased(site: Site, value: ir.Value, channels: int) -> ir.Value:
    bias, rank = site.maybe(2), len(shape_of(site.node.outputs[0]))
    if bias is None:
        return value
    return site.op("Add", value, site.reshape(bias, [1, channels, *[1] * (rank - 2)]))


def free_bias(site: Site) -> bool:
    """With a bias made at run time: that is added afterwards."""
    bias = site.maybe(2)
    if bias is None or is_constant(bias) or not is_constant(site.given(1)) or not site.is_float:
        return False
    node = site.node
    bare = site.editor.insert(node, node.op_type, node.inputs[:2], suffix=".bare", attributes=node.attributes.values())
    return site.done(_biased(site, bare, shape_of(node.outputs[0])[1]))


def conv(site: Site) -> bool:
    """With a weight made at run time: MatMul of the weight and the windows as columns."""
    steps = Steps.of(site, shape_of(site.given(1))[2:]) if _free(site) else None
    if steps is None or not steps.fits:
        return False
    n, channels = site.shape[:2]
    filters, out = shape_of(site.given(1))[0], shape_of(site.node.outputs[0])[2:]
    groups = site.integer("group", 1)
    before = _padding(site, steps, out)
    after = [e - b - s for e, b, s in zip(steps.extent(out), before, site.shape[2:], strict=True)]
    padded = site.op("Pad", site.x, site.ints([0, 0, *before, 0, 0, *after]), mode="constant")
    parts = []
    for start in steps.positions():
        part = padded
        for axis, (low, reach, stride) in enumerate(zip(start, steps.reach(out), steps.strides, strict=True)):
            part = site.slice(part, axis + 2, low, low + reach, stride)
        parts.append(site.reshape(part, [n, channels, 1, math.prod(out)]))
    columns = parts[0] if len(parts) == 1 else site.op("Concat", *parts, axis=2)
    depth = channels // groups * len(parts)
    columns = site.reshape(columns, [n, groups, depth, math.prod(out)])
    weight = site.reshape(site.given(1), [1, groups, filters // groups, depth])
    product = site.reshape(site.op("MatMul", weight, columns), [n, filters, *out])
    return site.done(_biased(site, product, filters))


def _padding(site: Site, steps: Steps, out: Sequence[int]) -> list[int]:
    """Return the padding in front (ONNX, Conv: auto_pad)."""
    auto, rank = site.text("auto_pad", "NOTSET"), len(out)
    if not auto.startswith("SAME"):
        return site.list("pads", [0] * 2 * rank)[:rank] if auto == "NOTSET" else [0] * rank
    total = [max(0, extent - size) for extent, size in zip(steps.extent(out), site.shape[2:], strict=True)]
    return [each // 2 if auto == "SAME_UPPER" else each - each // 2 for each in total]


def conv_transpose(site: Site) -> bool:
    """With a weight made at run time: MatMul of the weight and the pixels, its columns put together to the image."""
    steps = Steps.of(site, shape_of(site.given(1))[2:]) if _free(site) else None
    if steps is None or not steps.fits:
        return False
    n, channels, *counts = site.shape
    each, groups, positions = shape_of(site.given(1))[1], site.integer("group", 1), math.prod(steps.kernel)
    pixels = math.prod(counts)
    weight = site.reshape(site.given(1), [1, groups, channels // groups, each * positions])
    turned = site.transpose(weight, [0, 1, 3, 2])
    product = site.op("MatMul", turned, site.reshape(site.x, [n, groups, channels // groups, pixels]))
    shape = [n, groups * each, positions, *counts]
    out = shape_of(site.node.outputs[0])[2:]
    single = tuple(steps.extent([1] * len(counts)))
    begin = cut_in_front(site, single, list(steps.strides), out)
    whole = [max(e, b + o) for e, b, o in zip(steps.extent(counts), begin, out, strict=True)]
    total = _image(site, site.reshape(product, shape), shape, steps, whole)
    for axis, (start, size) in enumerate(zip(begin, out, strict=True)):
        total = site.slice(total, axis + 2, start, start + size)
    return site.done(_biased(site, total, groups * each))


BIASES: dict[str, SiteRule] = dict.fromkeys(("Conv", "ConvTranspose"), free_bias)
RULES: dict[str, SiteRule] = {"Conv": conv, "ConvTranspose": conv_transpose, "Col2Im": col2im}

"""Images in memory: channels innermost (NHWC), with a border for the windows that look over the edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.streams import DTYPES
from .context import Context
from .moves import Copy
from .views import View


@dataclass(frozen=True)
class Border:
    """Rows above and below, pixels left and right of an image."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @classmethod
    def around(cls, borders: Iterable[Border]) -> Border:
        """Return the smallest border that holds all of these."""
        every = [(each.top, each.left, each.bottom, each.right) for each in borders]
        return cls(*(max(sides) for sides in zip(*every, strict=True))) if every else cls()

    @property
    def empty(self) -> bool:
        """Whether there is none."""
        return not (self.top or self.left or self.bottom or self.right)


@dataclass(frozen=True)
class Sliding:
    """How a window slides over an image, as the attributes of a Conv or a pooling say; a signal has height 1."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    border: Border
    out: tuple[int, int]

    @classmethod
    def of(cls, node: ir.Node, kernel: Sequence[int]) -> Sliding:
        """Read the attributes of a node whose window has that size."""
        rank = len(kernel)
        size, out = shape_of(_input(node))[2:], shape_of(node.outputs[0])[2:]
        strides = _ints(node, "strides", [1] * rank)
        dilations = _ints(node, "dilations", [1] * rank)
        pads = _pads(node, kernel, size, out, strides, dilations)
        two = [_two(each, 1) for each in (kernel, strides, dilations, out)]
        (top, left), (bottom, right) = _two(pads[:rank], 0), _two(pads[rank:], 0)
        return cls(two[0], two[1], two[2], Border(top, left, bottom, right), two[3])


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes.get_ints(name, default))


def _two(values: Sequence[int], missing: int) -> tuple[int, int]:
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def _pads(
    node: ir.Node,
    kernel: Sequence[int],
    size: Sequence[int],
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Return the pads, all before and then all after, worked out where ``auto_pad`` asks for it (ONNX, Conv)."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return _ints(node, "pads", [0] * 2 * len(kernel))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    total = [max(0, (o - 1) * s + r - n) for o, s, r, n in zip(out, strides, reach, size, strict=True)]
    small, large = [each // 2 for each in total], [each - each // 2 for each in total]
    return small + large if auto == "SAME_UPPER" else large + small


def as_images(view: View) -> View:
    """Return a view [N, C, ...] as [N, H, W, C]; a signal has height 1, a row [N, L] one channel besides."""
    if len(view.shape) == 2:
        (rows, length), (by_row, by_element) = view.shape, view.strides
        view = View(view.storage, view.dtype, (rows, 1, length), (by_row, 0, by_element), view.offset)
    if len(view.shape) == 3:
        shape, strides = (*view.shape[:2], 1, view.shape[2]), (*view.strides[:2], 0, view.strides[2])
        view = View(view.storage, view.dtype, shape, strides, view.offset)
    return view.transpose((0, 2, 3, 1))


def bordered(context: Context, name: str, images: Sequence[int], dtype: str, border: Border) -> tuple[View, View]:
    """Return (all, inside): new storage for images [N, H, W, C] with a border each, channels innermost."""
    count, height, width, channels = images
    full = (count, border.top + height + border.bottom, border.left + width + border.right, channels)
    whole = View.dense(context.scratch(name, DTYPES[dtype] * math.prod(full)), dtype, full)
    return whole, whole.slice(1, border.top, height).slice(2, border.left, width)


def border_copies(context: Context, name: str, whole: View, border: Border, value: float) -> list[Copy]:
    """Return the copies that fill the borders of images [N, H, W, C] with a value."""
    if border.empty:
        return []
    dtype = {"i8": np.int8, "f32": np.float32}[whole.dtype]
    fill = context.constant(f"{name}/border", np.full((1, 1, 1, whole.shape[3]), value, dtype))
    _, height, width, _ = whole.shape
    middle = whole.slice(1, border.top, height - border.top - border.bottom)
    parts = [
        whole.slice(1, 0, border.top),
        whole.slice(1, height - border.bottom, border.bottom),
        middle.slice(2, 0, border.left),
        middle.slice(2, width - border.right, border.right),
    ]
    return [(fill.broadcast(part.shape), part) for part in parts if part.size]


def as_value(images: View, shape: tuple[int, ...]) -> View:
    """Return a view [N, H, W, C] under the shape [N, C, H, W], [N, C, L] or [N, L] of the graph."""
    by_image, by_row, by_pixel, by_channel = images.strides
    strides = {
        2: (by_image, by_pixel),
        3: (by_image, by_channel, by_pixel),
        4: (by_image, by_channel, by_row, by_pixel),
    }[len(shape)]
    return View(images.storage, images.dtype, shape, strides, images.offset)

"""The geometry of a Conv node with every default and automatic padding worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..frontend.edit import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ConvShape:
    """One Conv, 1-D to 3-D, each field with a number an axis; `pads` as ONNX orders them, all begins before all ends.

    `channels` and `sizes` are the input's, `kernel` the weight's, `output` the result's without its channels.
    """

    channels: int
    groups: int
    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


def conv_shape(node: ir.Node) -> ConvShape:
    """Read the geometry of a Conv whose input, weight and output shapes are static."""
    source, weight = node.inputs[:2]
    assert source is not None, "a Conv has an input"
    assert weight is not None, "a Conv has a weight"
    channels, *sizes = shape_of(source)[1:]
    kernel = shape_of(weight)[2:]
    output = shape_of(node.outputs[0])[2:]
    ones = [1] * len(kernel)
    strides = tuple(node.attributes.get_ints("strides", ones) or ones)
    dilations = tuple(node.attributes.get_ints("dilations", ones) or ones)
    pads = tuple(node.attributes.get_ints("pads") or [0] * (2 * len(kernel)))
    mode = node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
    if mode.startswith("SAME"):
        pads = _same_pads(mode, sizes, kernel, output, strides, dilations)
    groups = node.attributes.get_int("group", 1) or 1
    return ConvShape(channels, groups, tuple(sizes), kernel, output, strides, dilations, pads)


def _same_pads(
    mode: str,
    sizes: Sequence[int],
    kernel: tuple[int, ...],
    output: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...]:
    """Padding of auto_pad SAME_*: what the output size needs, the odd element at the end for SAME_UPPER."""
    begins, ends = [], []
    for axis, size in enumerate(sizes):
        total = max(0, (output[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return (*begins, *ends)

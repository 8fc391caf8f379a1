"""Gram matrices of what linears read: sums of x x^T over windows and positions, in the lowered order of K."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...frontend.linears import Linear
from ..convolution import ConvShape, conv_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Grams = NDArray[np.float32]


def input_rows(linear: Linear, source: Array) -> NDArray[np.float32]:
    """Return what a linear multiplies, as rows: float32 [groups, positions, k], k in lowered order.

    Args:
        linear: a MatMul, or a Conv whose K is kernel positions with the group's channels innermost.
        source: its input in one window.
    """
    floats = np.asarray(source, np.float32)
    if linear.node.op_type != "Conv":
        return floats.reshape(1, -1, linear.k)
    return _patches(floats, conv_shape(linear.node))


def _patches(source: NDArray[np.float32], conv: ConvShape) -> NDArray[np.float32]:
    """Gather what each output position of a Conv meets: [groups, positions, kernel * channels of a group]."""
    axes = len(conv.sizes)
    pads = [(conv.pads[axis], conv.pads[axis + axes]) for axis in range(axes)]
    padded = np.pad(source, [(0, 0), (0, 0), *pads])
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(conv.kernel, conv.dilations, strict=True)]
    spatial = tuple(range(2, 2 + axes))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=spatial)
    outs = tuple(slice(None, stride * size, stride) for stride, size in zip(conv.strides, conv.output, strict=True))
    taps = tuple(slice(None, None, dilation) for dilation in conv.dilations)
    windows = windows[(slice(None), slice(None), *outs, *taps)]
    batch, channels = windows.shape[:2]
    grouped = windows.reshape(batch, conv.groups, channels // conv.groups, *windows.shape[2:])
    order = (1, 0, *range(3, 3 + 2 * axes), 2)  # groups, batch, positions, kernel, channels of the group
    rows = grouped.transpose(order)
    return np.ascontiguousarray(rows).reshape(conv.groups, -1, int(np.prod(conv.kernel)) * channels // conv.groups)


def gram(left: NDArray[np.float32], right: NDArray[np.float32]) -> Grams:
    """Return the sum over positions of left right^T: [groups, k, k] of rows [groups, positions, k]."""
    product: Grams = np.matmul(left.transpose(0, 2, 1), right)
    return product

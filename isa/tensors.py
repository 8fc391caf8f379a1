"""Where a tensor lies in its memory."""

from __future__ import annotations

from .program import Tensor
from .streams import DTYPES


def extent(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of a tensor and the one after its last; equal where it has no elements."""
    if not all(tensor.shape):
        return tensor.address, tensor.address
    reach = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=False)]
    low = tensor.address + sum(min(0, each) for each in reach)
    return low, tensor.address + sum(max(0, each) for each in reach) + DTYPES.get(tensor.dtype, 1)

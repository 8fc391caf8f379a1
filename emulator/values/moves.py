"""Moving data: copy, gather, and the queue marker."""

from __future__ import annotations

import numpy as np

from ..memory import Array
from .registry import Call, handler


@handler("sync")
def sync(call: Call) -> None:
    """Only orders engines; values know nothing of time."""


@handler("copy")
def copy(call: Call, dst: Array, src: Array) -> None:
    """dst[i, j] = src[i, j], bit for bit; one row or one column is repeated, operands may overlap."""
    np.copyto(dst, src if src.dtype == dst.dtype else src.view(dst.dtype))


@handler("gather")
def gather(call: Call, dst: Array, table: Array, index: Array) -> None:
    """dst[i, :] = table[index[i], :]; a negative index counts from the end, then it is clamped to the table."""
    rows = table.shape[1]
    picked = index.reshape(index.shape[0], -1).astype(np.int64)
    picked = np.clip(np.where(picked < 0, picked + rows, picked), 0, rows - 1)
    if table.shape[0] == 1:
        np.copyto(dst, np.take(table[0], picked, axis=0))
        return
    for window in range(table.shape[0]):
        np.copyto(dst[window], np.take(table[window], picked[window % picked.shape[0]], axis=0))

"""Moving data: copy, gather, scatter, and the queue marker."""

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
    picked = _places(index, table.shape[1])
    if table.shape[0] == 1:
        np.copyto(dst, np.take(table[0], picked, axis=0))
        return
    for window in range(table.shape[0]):
        np.copyto(dst[window], np.take(table[window], picked[window % picked.shape[0]], axis=0))


@handler("scatter")
def scatter(call: Call, dst: Array, src: Array, index: Array) -> None:
    """dst[index[i], :] = src[i, :] in the order of i; an index is treated as a gather treats it."""
    places = _places(index, dst.shape[1])
    for window in range(dst.shape[0]):
        rows = src[window % src.shape[0]]
        for row, place in enumerate(places[window % places.shape[0]]):  # in order: of two to one place the last stays
            dst[window, place] = rows[row]


def _places(index: Array, rows: int) -> Array:
    """Return the rows that indices mean, [windows, indices]: from the end where negative, then clamped."""
    given = index.reshape(index.shape[0], -1).astype(np.int64)
    return np.clip(np.where(given < 0, given + rows, given), 0, rows - 1)

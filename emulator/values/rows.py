"""Vector operations along a row: ranking, picking and placing by index, running sums."""

from __future__ import annotations

import numpy as np

from ..memory import Array
from .registry import Call, handler


@handler("vrank")
def vrank(call: Call, dst: Array, a: Array) -> None:
    """dst[i, j] = column of the j-th greatest (or least) of row i; of equal ones the first, NaN is greatest."""
    last = a.shape[2] - 1
    if call.leaf.instr.integer("least"):
        order = np.argsort(a, axis=2, kind="stable")
    else:  # backwards through the row in reverse: equal ones stay in their order
        order = last - np.argsort(a[:, :, ::-1], axis=2, kind="stable")[:, :, ::-1]
    np.copyto(dst, order[:, :, : dst.shape[2]])


@handler("vpick")
def vpick(call: Call, dst: Array, a: Array, index: Array) -> None:
    """dst[i, j] = a[i, index[i, j]]."""
    windows = max(len(a), len(index), len(dst))
    rows, cols = dst.shape[1:]
    places = np.broadcast_to(_columns(index, a.shape[2]), (windows, rows, cols))
    np.copyto(dst, np.take_along_axis(np.broadcast_to(a, (windows, rows, a.shape[2])), places, axis=2))


@handler("vput")
def vput(call: Call, dst: Array, a: Array, index: Array) -> None:
    """dst[i, index[i, j]] = a[i, j], one column after the other."""
    places = np.broadcast_to(_columns(index, dst.shape[2]), (len(dst), *index.shape[1:]))
    values = np.broadcast_to(a, (len(dst), *a.shape[1:]))
    for column in range(a.shape[2]):
        np.put_along_axis(dst, places[:, :, column : column + 1], values[:, :, column : column + 1], axis=2)


@handler("vscan")
def vscan(call: Call, dst: Array, a: Array) -> None:
    """dst[i, j] = sum of a[i, 0] to a[i, j]."""
    np.copyto(dst, np.cumsum(a, axis=2, dtype=a.dtype))


def _columns(index: Array, size: int) -> Array:
    """Return column numbers: counted from the end below 0, then clamped."""
    whole = index.astype(np.int64)
    return np.clip(np.where(whole < 0, whole + size, whole), 0, size - 1)

"""N:M masks: which N of every M weights along the input dimension to keep, by any score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..isa.errors import FlexcError
from .network import nth_largest_network
from .pattern import NM

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLICE = 1 << 14
"""Blocks handled in one go: M slices of this many 4-byte keys stay in a core's cache."""


def top_mask(scores: NDArray[np.float32], nm: NM) -> NDArray[np.bool_]:
    """Keep the `nm.n` largest scores of each aligned block of `nm.m` along the last axis of `scores` [n, k].

    Exact and deterministic: of equal scores the lower index is kept. The last block of a row may be shorter; of its t
    positions min(N, t) are kept.

    Returns:
        Boolean mask [n, k], true where the weight is kept.

    Raises:
        FlexcError: a score is NaN or negative.
    """
    n, k = scores.shape
    mask = np.ones((n, k), np.bool_)
    if nm.is_dense:
        return mask
    blocks = -(-k // nm.m)
    for rows in _row_chunks(n, blocks):
        keys = _block_keys(scores[rows], blocks, nm.m)
        kept = _keep_largest(keys, nm)
        mask[rows] = kept.transpose(1, 2, 0).reshape(-1, blocks * nm.m)[:, :k]
    return mask


def _row_chunks(n: int, blocks: int) -> Iterator[slice]:
    """Cut `n` rows of `blocks` blocks each into slices of about `_SLICE` blocks."""
    rows = max(1, _SLICE // max(1, blocks))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _block_keys(scores: NDArray[np.float32], blocks: int, m: int) -> NDArray[np.int32]:
    """Lay scores [rows, k] out as integer keys [m, rows, blocks], positions of a block first.

    The bits of a nonnegative float32 order like the float, and integers compare faster. Padding is -1: below all.
    """
    rows, k = scores.shape
    _check_scores(scores)
    bits = np.abs(scores).view(np.int32)  # abs: a -0.0 would sort below everything
    if k != blocks * m:
        padded = np.full((rows, blocks * m), -1, np.int32)
        padded[:, :k] = bits
        bits = padded
    return np.ascontiguousarray(bits.reshape(rows, blocks, m).transpose(2, 0, 1))


def _check_scores(scores: NDArray[np.float32]) -> None:
    """Refuse NaN (which has no order) and negative scores."""
    if scores.size and not scores.min() >= 0:
        raise FlexcError("cannot rank weights: a score is NaN or negative", remedy="check the weights for NaN")


def _keep_largest(keys: NDArray[np.int32], nm: NM) -> NDArray[np.bool_]:
    """Mark the N largest of keys [m, ...] along the first axis, lower index first among equals."""
    threshold = _nth_largest(keys, nm)
    kept = keys > threshold
    room = np.uint8(nm.n) - kept.sum(axis=0, dtype=np.uint8)  # how many keys equal to the threshold still fit
    for position in range(nm.m):
        take = (keys[position] == threshold) & (room > 0)
        kept[position] |= take
        room -= take.view(np.uint8)
    return kept


def _nth_largest(keys: NDArray[np.int32], nm: NM) -> NDArray[np.int32]:
    """Return the N-th largest of keys [m, ...] along the first axis."""
    comparators, target = nth_largest_network(nm.n, nm.m)
    wires: list[NDArray[np.int32]] = list(keys)
    for step in comparators:
        low, high = wires[step.low], wires[step.high]
        if step.min_needed:
            wires[step.low] = np.minimum(low, high)
        if step.max_needed:
            wires[step.high] = np.maximum(low, high)
    return wires[target]

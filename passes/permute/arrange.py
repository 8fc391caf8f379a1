"""In which order channels lose least: the ones that matter are dealt out over blocks, then exchanged between them.

Pool and Yu ("Channel Permutations for N:M Sparsity", NeurIPS 2021) search by swaps; here, as in RIA (Zhang et al.,
"Plug-and-Play", ICLR 2024), sorted channels are dealt out and improved by linear sum assignments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..pattern import NM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]
    Order = NDArray[np.intp]

_SWEEPS = 2
"""Times that every place of the blocks is assigned anew."""

_WORK = 1 << 28
"""Comparisons that one assignment may take; of more rows some are looked at, evenly spread."""


def arrange(scores: Scores, nm: NM) -> Order:
    """Return an order of channels that keeps more of `scores` in blocks of a pattern, or the order they have.

    Args:
        scores: [rows, channels], nonnegative; channels a multiple of `nm.m`.
        nm: the pattern, not dense.

    Returns:
        order: new place -> channel.
    """
    blocks = scores.shape[1] // nm.m
    rows = max(1, min(len(scores), _WORK // max(1, blocks * blocks)))
    scores = scores[np.arange(rows) * len(scores) // rows]
    present = np.arange(scores.shape[1])
    if blocks < 2:
        return present
    order = np.argsort(-scores.sum(axis=0, dtype=np.float64), kind="stable").reshape(nm.m, blocks).T.copy()
    for _ in range(_SWEEPS):
        for place in range(nm.m):
            order[:, place] = order[_assigned(scores, order, place, nm), place]
    found: Order = order.reshape(-1)
    return found if kept(scores, found, nm) > kept(scores, present, nm) else present


def _assigned(scores: Scores, order: Order, place: int, nm: NM) -> Order:
    """Return for every block which block's channel should take `place`, the others staying."""
    from scipy.optimize import linear_sum_assignment

    others = scores[:, np.delete(order, place, axis=1)]  # [rows, blocks, M - 1]
    least = np.ascontiguousarray(np.partition(others, nm.m - 1 - nm.n, axis=2)[:, :, nm.m - 1 - nm.n])
    moving = np.ascontiguousarray(scores[:, order[:, place]])
    gain = [
        np.maximum(moving - least[:, block, np.newaxis], 0).sum(axis=0, dtype=np.float64) for block in range(len(order))
    ]
    chosen: Order = linear_sum_assignment(np.array(gain), maximize=True)[1]
    return chosen


def kept(scores: Scores, order: Order, nm: NM) -> float:
    """Return the sum of the scores that a pattern keeps of channels in an order."""
    blocks = scores[:, order].reshape(len(scores), -1, nm.m)
    return float(np.partition(blocks, nm.m - nm.n, axis=2)[:, :, nm.m - nm.n :].sum(dtype=np.float64))

"""Packing weights as the cells store them: kept weights of every block, then their positions in few bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..isa.errors import FlexcError
from ..passes.pattern import NM

Codes = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]


@lru_cache(maxsize=5)
def _positions(m: int) -> Bytes:
    """Return for every bit mask of a block [2^m] the positions of its ones, then of its zeros, [2^m, m]."""
    masks = np.arange(1 << m, dtype=np.uint32)[:, None]
    zeros = (masks >> np.arange(m, dtype=np.uint32)) & 1 == 0
    return np.argsort(zeros, axis=1, kind="stable").astype(np.uint8)


def _masks(nonzero: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Return the last axis (at most 16 truth values) as the bits of one number."""
    packed = np.packbits(nonzero, axis=-1, bitorder="little")
    if packed.shape[-1] == 1:
        return packed[..., 0].astype(np.uint16)
    both: npt.NDArray[np.uint16] = np.ascontiguousarray(packed).view(np.dtype("<u2"))[..., 0]
    return both


def pack_tiles(codes: Codes, pattern: NM, blocks: int) -> Bytes:
    """Return the tiles of weights int8 [tiles, columns, depth]: one row of bytes a tile, as ``ldw`` reads them.

    A tile's weights come first, ``slots`` bytes a column, then its indices, a column padded to whole bytes.

    Raises:
        FlexcError: a block holds more than N weights.
    """
    tiles, columns, _ = codes.shape
    if pattern.is_dense:
        return codes.reshape(tiles, -1).view(np.uint8)
    n, m = pattern.n, pattern.m
    cut = codes.reshape(tiles, columns, blocks, m)
    nonzero = cut != 0
    if int(np.count_nonzero(nonzero, axis=-1).max(initial=0)) > n:
        raise FlexcError(f"a block of {m} holds more than {n} weights")
    index = _positions(m)[_masks(nonzero)][..., :n]
    kept = np.take_along_axis(cut, index, axis=-1)
    bits = m.bit_length() - 1
    spread = (index.reshape(tiles, columns, blocks * n, 1) >> np.arange(bits, dtype=np.uint8)) & 1
    packed = np.packbits(spread.reshape(tiles, columns, -1), axis=-1, bitorder="little")
    return np.concatenate([kept.reshape(tiles, -1).view(np.uint8), packed.reshape(tiles, -1)], axis=1)

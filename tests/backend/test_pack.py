"""Tiles as the cells store them, against a decoder that reads them bit by bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from flexc.backend.pack import pack_tiles
from flexc.isa.errors import FlexcError
from flexc.isa.machine import load_machine
from flexc.passes.pattern import NM

PATTERNS = [NM(n, m) for m in (2, 4, 8, 16) for n in range(1, m + 1)]


def decoded(tile: bytes, pattern: NM, blocks: int, columns: int) -> npt.NDArray[np.int8]:
    """Return the dense weights [columns, blocks * M] of one tile, one cell at a time."""
    slots, bits = blocks * pattern.n, pattern.m.bit_length() - 1
    a_column = -(-slots * bits // 8)
    dense = np.zeros((columns, blocks * pattern.m), np.int8)
    for column in range(columns):
        start = columns * slots + column * a_column
        stored = int.from_bytes(tile[start : start + a_column], "little")
        for slot in range(slots):
            weight = np.frombuffer(tile, np.int8)[column * slots + slot]
            position = stored >> (slot * bits) & ((1 << bits) - 1)
            dense[column, slot // pattern.n * pattern.m + position] += weight
    return dense


def random_codes(pattern: NM, tiles: int, blocks: int, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Return weights [tiles, 32, depth] with at most N of every M, sometimes fewer."""
    rank = rng.random((tiles, 32, blocks, pattern.m)).argsort(axis=-1)
    kept = rank < rng.integers(0, pattern.n + 1, (tiles, 32, blocks, 1))
    codes = rng.integers(-127, 128, kept.shape) * kept
    return codes.astype(np.int8).reshape(tiles, 32, -1)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_tile_holds_its_weights(pattern: NM) -> None:
    rng = np.random.default_rng(pattern.n * 100 + pattern.m)
    machine = load_machine("edge")
    for blocks in {1, 3, machine.blocks_per_tile(pattern.n, pattern.m)}:
        codes = random_codes(pattern, 2, blocks, rng)
        packed = pack_tiles(codes, pattern, blocks)
        if not pattern.is_dense:
            assert packed.shape == (2, machine.tile_bytes(pattern.n, pattern.m, blocks))
        for tile, wanted in zip(packed, codes, strict=True):
            if pattern.is_dense:
                np.testing.assert_array_equal(tile.view(np.int8).reshape(32, -1), wanted)
            else:
                np.testing.assert_array_equal(decoded(tile.tobytes(), pattern, blocks, 32), wanted)


def test_a_block_with_too_many_weights_is_refused() -> None:
    codes = np.ones((1, 32, 8), np.int8)
    with pytest.raises(FlexcError, match="a block of 4 holds more than 2 weights"):
        pack_tiles(codes, NM(2, 4), 2)

"""Weights in the cells: unpacking tile bytes to matrices, and keeping the matrices for the next windows."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from ..isa.budget import MOST_DECODED
from ..isa.errors import FlexcError
from ..isa.instruction import Groups
from .memory import Array

#: Where a load happens: its pc, and the iteration of every loop level.
Site = tuple[int, tuple[int, ...]]


class Loaded:
    """What one ``ldw`` wrote: the tile bytes, [windows or 1, macros, bytes], and how they are to be read."""

    def __init__(self, site: Site, raw: npt.NDArray[np.uint8], groups: Groups) -> None:
        self.site = site
        self.raw = raw
        self.groups = groups
        self.macros: int = raw.shape[1]


class WeightCache:
    """Matrices of the latest loads, up to ``limit`` bytes in all; each is made from its tile bytes when needed.

    A load at the same site finds its matrix again if the bytes are the same; they are always compared.
    """

    def __init__(self, columns: int, limit: int = MOST_DECODED) -> None:
        self.columns = columns
        self._limit = limit
        self._held = 0
        self._entries: OrderedDict[Site, tuple[Loaded, npt.NDArray[np.float32]]] = OrderedDict()

    def load(self, site: Site, src: Array, groups: Groups) -> Loaded:
        """Return what a load of these tiles leaves in the cells.

        Raises:
            FlexcError: a row has not as many bytes as a tile.
        """
        if src.shape[2] != groups.tile_bytes(self.columns):
            wanted = groups.tile_bytes(self.columns)
            raise FlexcError(
                f"a tile of {groups.n}:{groups.m} x {groups.blocks} has {wanted} bytes, not {src.shape[2]}"
            )
        entry = self._entries.get(site)
        known = entry is not None and entry[0].groups == groups and entry[0].raw.shape[0] in (1, src.shape[0])
        if entry is not None and known and _same(src, entry[0].raw):
            self._entries.move_to_end(site)
            return entry[0]
        shared = _same(src[1:], src[:1])
        return Loaded(site, (src[:1] if shared else src).astype(np.uint8, order="C"), groups)

    def matrix(self, loaded: Loaded) -> npt.NDArray[np.float32]:
        """Return the weights of a load, [windows or 1, macros * columns, depth]."""
        entry = self._entries.get(loaded.site)
        if entry is not None and entry[0] is loaded:
            return entry[1]
        matrix = decode(loaded.raw, loaded.groups, self.columns)
        if entry is not None:
            self._forget(loaded.site)
        self._entries[loaded.site] = loaded, matrix
        self._held += _cost(loaded, matrix)
        while self._held > self._limit and len(self._entries) > 1:
            self._forget(next(iter(self._entries)))
        return matrix

    def _forget(self, site: Site) -> None:
        self._held -= _cost(*self._entries.pop(site))


def decode(raw: npt.NDArray[np.uint8], groups: Groups, columns: int) -> npt.NDArray[np.float32]:
    """Return the weights that tile bytes [windows, macros, bytes] hold, as [windows, macros * columns, depth].

    Slot s of a column is of block s // n and stands for activation block * m + index; slots with the same add up.
    """
    windows, macros, _ = raw.shape
    split = columns * groups.slots
    weights = raw[:, :, :split].view(np.int8).reshape(-1, groups.n)
    shape = (windows, macros * columns, groups.depth)
    if groups.m == 1:
        return weights.astype(np.float32).reshape(shape)
    index = unpack_indices(raw[:, :, split:].reshape(windows * macros * columns, -1), groups).reshape(-1, groups.n)
    flat = np.zeros(weights.shape[0] * groups.m, np.float32)
    blocks = np.arange(0, flat.size, groups.m)
    for slot in range(groups.n):  # within one slot of all blocks no position comes twice
        flat[blocks + index[:, slot]] += weights[:, slot]
    return flat.reshape(shape)


def unpack_indices(packed: npt.NDArray[np.uint8], groups: Groups) -> npt.NDArray[np.uint8]:
    """Return the index of every slot, [lines, slots], from lines of whole bytes; bit 0 of slot 0 is bit 0 of byte 0."""
    width = groups.index_bits
    if 8 % width == 0:
        return _BYTES[width][packed].reshape(packed.shape[0], -1)[:, : groups.slots]
    bits = np.unpackbits(packed, axis=1, count=groups.slots * width, bitorder="little")
    each = bits.reshape(packed.shape[0], groups.slots, width)
    index: npt.NDArray[np.uint8] = each[:, :, 0].copy()
    for place in range(1, width):
        index |= each[:, :, place] << place
    return index


#: The indices in every byte, for widths that divide it.
_BYTES = {
    width: (np.arange(256)[:, None] >> np.arange(0, 8, width) & ((1 << width) - 1)).astype(np.uint8)
    for width in (1, 2, 4)
}


def _same(a: Array, b: Array) -> bool:
    """Whether two arrays that broadcast hold the same bytes."""
    return bool((a.view(np.uint8) == b.view(np.uint8)).all())


def _cost(loaded: Loaded, matrix: npt.NDArray[np.float32]) -> int:
    return loaded.raw.nbytes + matrix.nbytes

"""The macro array's values, the fast way: one exact float32 matrix product for all macros and windows of a ``mac``.

Another level of detail can stand in for :class:`FastArray`; :class:`ArrayModel` is what the emulator asks of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..isa.errors import FlexcError
from ..isa.instruction import Groups
from .cells import Loaded, Site, WeightCache
from .memory import Array
from .parallel import in_halves, part

Matrix = npt.NDArray[np.float32]
_PRODUCTS_AN_ELEMENT = 16  # that take as long as one element of an elementwise operation


class ArrayModel(Protocol):
    """What carries out the array's four instructions; operands are [windows, rows, columns]."""

    def load_weights(self, cells: range, src: Array, groups: Groups, site: Site) -> None:
        """Write one tile a macro; ``site`` is the pc and the iterations, where tiles seen before can be found again."""

    def load_activations(self, act: Array) -> None:
        """Latch the vectors of the next products: the memory itself, not a copy."""

    def multiply(self, acc: Array, cells: range, groups: Groups, slices: int, add: bool, pc: int) -> None:
        """Overwrite the sums with the products of the latched vectors, or add to them."""

    def accumulate(self, dst: Array, src: Array) -> None:
        """Add sums to sums."""


class FastArray:
    """Decoded weights and float32 products.

    Exact in any order of summation: a column has at most 128 cells, so the products of two signed bytes sum to at most
    128 * 2^14 = 2^21 in magnitude, below the 2^24 up to which float32 holds every whole number.
    """

    def __init__(self, cache: WeightCache) -> None:
        self._cache = cache
        self._units: dict[int, tuple[Loaded, int]] = {}
        self._act: Array | None = None
        self._scratch: dict[str, Array] = {}

    def load_weights(self, cells: range, src: Array, groups: Groups, site: Site) -> None:
        loaded = self._cache.load(site, src, groups)
        for place, unit in enumerate(cells):
            self._units[unit] = (loaded, place)

    def load_activations(self, act: Array) -> None:
        self._act = act

    def multiply(self, acc: Array, cells: range, groups: Groups, slices: int, add: bool, pc: int) -> None:
        if self._act is None:
            raise FlexcError(f"pc {pc}: mac without activations; an `lda` must come before")
        weights, act = self._matrix(cells, groups), self._act
        windows, vectors = acc.shape[:2]
        vector = self._buffer("act", (windows, vectors, slices * groups.depth), np.float32)
        sums = self._buffer("sums", (windows, vectors, weights.shape[1]), np.float32)
        whole = self._buffer("whole", sums.shape if add else (windows, 0, 0), np.int32)

        def some(part_of: slice) -> None:
            np.copyto(vector[part_of], part(act, part_of)[:, :, : vector.shape[2]])
            _products(vector[part_of], part(weights, part_of), sums[part_of], slices)
            if not add:
                np.copyto(acc[part_of], sums[part_of], casting="unsafe")
                return
            np.copyto(whole[part_of], sums[part_of], casting="unsafe")
            np.add(acc[part_of], whole[part_of], out=acc[part_of])

        in_halves(some, windows, sums.size * groups.depth // _PRODUCTS_AN_ELEMENT)

    def accumulate(self, dst: Array, src: Array) -> None:
        np.add(dst, src, out=dst)

    def _matrix(self, cells: range, groups: Groups) -> Matrix:
        """Return the weights of these units, [windows or 1, columns, depth]."""
        try:
            loaded, first = self._units[cells[0]]
            places = [self._units[unit] for unit in cells]
        except KeyError as error:
            raise FlexcError(f"mac reads cell unit {error}, which no `ldw` has written") from None
        if loaded.groups != groups:
            raise FlexcError(f"mac under {_name(groups)}, but the cells were written under {_name(loaded.groups)}")
        if all(each is loaded and place == first + i for i, (each, place) in enumerate(places)):
            matrix = self._cache.matrix(loaded)
            width = matrix.shape[1] // loaded.macros
            return matrix[:, first * width : (first + len(places)) * width]
        return _joined(self._cache, places)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: type) -> Array:
        """Return memory for intermediate values, the same one again and again: as much as was ever needed."""
        size = math.prod(shape)
        found = self._scratch.get(name)
        if found is None or found.size < size:
            found = self._scratch[name] = np.empty(size, dtype)
        return found[:size].reshape(shape)


class FaultyArray(FastArray):
    """An array with one broken multiplier: the products of a cell in one column of one macro come out one too large.

    It shows that checks notice: ``pc`` is the ``mac`` that it strikes, ``macro`` counts among the macros taking part.
    """

    def __init__(self, cache: WeightCache, pc: int, macro: int, column: int, columns: int) -> None:
        super().__init__(cache)
        self._pc, self._column = pc, macro * columns + column

    def multiply(self, acc: Array, cells: range, groups: Groups, slices: int, add: bool, pc: int) -> None:
        super().multiply(acc, cells, groups, slices, add, pc)
        if pc == self._pc:
            acc[:, :, self._column] += 1


def _products(vector: Matrix, weights: Matrix, sums: Matrix, slices: int) -> None:
    """sums = vector x weights, each slice of the macros with its part of the vectors."""
    columns, depth = weights.shape[1] // slices, vector.shape[2] // slices
    for number in range(slices):
        macros = slice(number * columns, (number + 1) * columns)
        inputs = slice(number * depth, (number + 1) * depth)
        _product(vector[:, :, inputs], weights[:, macros], sums[:, :, macros])


def _product(vector: Matrix, weights: Matrix, sums: Matrix) -> None:
    """sums = vector x weights: one product over all windows where they share the weights."""
    if weights.shape[0] > 1:
        np.matmul(vector, weights.transpose(0, 2, 1), out=sums)
        return
    rows = vector.shape[0] * vector.shape[1]
    flat, result = vector.reshape(rows, -1), sums.reshape(rows, -1)
    np.matmul(flat, weights[0].T, out=result)


def _joined(cache: WeightCache, places: Sequence[tuple[Loaded, int]]) -> Matrix:
    """Return the weights of macros that different loads have written, side by side."""
    parts = []
    windows = 1
    for loaded, place in places:
        matrix = cache.matrix(loaded)
        width = matrix.shape[1] // loaded.macros
        parts.append(matrix[:, place * width : (place + 1) * width])
        windows = max(windows, matrix.shape[0])
    return np.concatenate([np.broadcast_to(part, (windows, *part.shape[1:])) for part in parts], axis=1)


def _name(groups: Groups) -> str:
    return f"{groups.n}:{groups.m} x {groups.blocks}"

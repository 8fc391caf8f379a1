"""What depends on how long a cache is: every shape and constant of a model, seen at three lengths.

A model with a growing cache is compiled for a fixed capacity: tensors are as long as they may become, and the number of
positions that are valid is known at run time only. So what the exporter derived from the length falls into sizes, which
become those of the capacity, and numbers (positions, bounds), which have to be worked out while the program runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .edit import constant_array
from .probe import Facts

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Line:
    """Numbers that follow the length n of the past: ``base + slope * n``, one slope for all or one each."""

    base: Array
    slope: Array


class Lengths:
    """Facts about one model at three lengths of its past; those of the first are the capacity's.

    Args:
        facts: what was found at each length.
        pasts: the lengths.
    """

    def __init__(self, facts: Sequence[Facts], pasts: Sequence[int]) -> None:
        self._facts, self._pasts = facts, pasts

    def known(self, value: ir.Value) -> bool:
        """Return whether a node gets the value from constants and shapes alone."""
        return all(str(value.name) in each.arrays for each in self._facts)

    def arrays(self, value: ir.Value) -> list[Array] | None:
        """Return the numbers of a value at every length, or None where they depend on run-time data."""
        constant = constant_array(value)
        if constant is not None:
            return [constant] * len(self._facts)
        return [each.arrays[str(value.name)] for each in self._facts] if self.known(value) else None

    def array(self, value: ir.Value) -> Array:
        """Return the numbers of a known value at the capacity."""
        return self._facts[0].arrays[str(value.name)]

    def shapes(self, value: ir.Value) -> list[tuple[int, ...]]:
        """Return the shapes of a value at every length; empty where one is not known."""
        shapes = [each.shapes.get(str(value.name)) for each in self._facts]
        known = [shape for shape in shapes if shape is not None]
        return known if len(known) == len(shapes) else []

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return the shape of a value at the capacity; empty where it is not known."""
        return (self.shapes(value) or [()])[0]

    def dtype(self, value: ir.Value) -> np.dtype[Any]:
        """Return the element type of a value."""
        return np.dtype(self._facts[0].types[str(value.name)].numpy())

    def slope(self, numbers: Sequence[int]) -> int | None:
        """Return by how much a number grows for one more position, or None where it does not do so evenly."""
        pairs = [
            (numbers[0] - each, self._pasts[0] - past) for each, past in zip(numbers[1:], self._pasts[1:], strict=True)
        ]
        slopes = {change // apart if change % apart == 0 else None for change, apart in pairs}
        return slopes.pop() if len(slopes) == 1 else None

    def varies(self, value: ir.Value) -> bool:
        """Return whether the numbers or the shape of a known value depend on the length."""
        first, *others = (each.arrays[str(value.name)] for each in self._facts)
        return any(first.shape != other.shape or not np.array_equal(first, other) for other in others)

    def long_axes(self, value: ir.Value) -> dict[int, int]:
        """Return the axes of a value that grow with the length, and how many elements a position adds; 0: unevenly."""
        shapes = self.shapes(value)
        if len({len(shape) for shape in shapes}) != 1:
            return {}
        columns = list(zip(*shapes, strict=True))
        return {axis: self.slope(sizes) or 0 for axis, sizes in enumerate(columns) if len(set(sizes)) > 1}

    def surplus(self, value: ir.Value, axis: int) -> int:
        """Return how many elements a growing axis has beyond the past: those of this step, where it is past + step."""
        return self.shape(value)[axis] - self._pasts[0] * self.long_axes(value)[axis]

    def at_zero(self, number: int) -> int:
        """Return what a number that grows by one a position, and is this at the capacity, is without any past."""
        return number - self._pasts[0]

    def padded(self, value: ir.Value) -> bool:
        """Return whether a known value at the capacity begins, along every axis, as it is at any shorter length."""
        first, *others = (each.arrays[str(value.name)] for each in self._facts)
        return all(np.array_equal(*_common(first, other)) for other in others)

    def line(self, value: ir.Value) -> Line | None:
        """Return how the numbers of a known value follow the length, or None where they do not do so evenly."""
        arrays = [each.arrays[str(value.name)] for each in self._facts]
        if arrays[0].dtype.kind not in "iuf" or any(each.ndim != arrays[0].ndim for each in arrays):
            return None
        pairs = zip(arrays[1:], self._pasts[1:], strict=True)
        slopes = [_slope(arrays[0], other, self._pasts[0] - past) for other, past in pairs]
        even = all(slope is not None and (not slope.size or np.ptp(slope) == 0) for slope in slopes)
        if any(each.shape != arrays[0].shape for each in arrays) and not even:
            return None  # what is beyond the common part could not be told
        known = [slope.reshape(-1)[0] if even else slope for slope in slopes if slope is not None]
        if len(known) < len(slopes) or not all(np.array_equal(known[0], slope) for slope in known):
            return None
        return Line(arrays[0] - known[0] * self._pasts[0], np.asarray(known[0]))


def _common(one: Array, other: Array) -> tuple[Array, Array]:
    """Return what two arrays have in common along every axis, from the beginning."""
    if one.ndim != other.ndim:
        return one, other
    cut = tuple(slice(0, min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    return one[cut], other[cut]


def _slope(one: Array, other: Array, apart: int) -> Array | None:
    """Return the change of every common element for one more position, or None where it is not a whole number."""
    first, second = (each.astype(np.float64 if each.dtype.kind == "f" else np.int64) for each in _common(one, other))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    change = first - second
    if not change.size or (change % apart).any():
        return None
    return np.asarray(change // apart)

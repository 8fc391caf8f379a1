"""Conversion between element types, defined for every value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..memory import Array


def store(dst: Array, result: npt.ArrayLike) -> None:
    """Write a result into an operand, repeated where it has one row or column, converted to its type."""
    np.copyto(dst, converted(np.asarray(result), dst.dtype))


def converted(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return values in another type.

    Towards zero; truth is ``!= 0``; too large or too small a float becomes the greatest or least whole number and NaN
    becomes 0; a whole number keeps its low bits.
    """
    if values.dtype == dtype:
        return values
    if dtype.kind == "b":
        return np.not_equal(values, 0)
    if values.dtype.kind == "f" and dtype.kind in "iu":
        return _saturated(values, dtype)
    return values.astype(dtype)


def _saturated(values: Array, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    wide = np.where(np.isnan(values), 0.0, values.astype(np.float64))
    if dtype.itemsize < 8:
        return np.clip(wide, limits.min, limits.max).astype(dtype)
    top, bottom = wide >= -float(limits.min), wide <= float(limits.min)  # 2^63 itself is no int64
    inside = np.where(top | bottom, 0.0, wide).astype(dtype)
    return np.where(top, limits.max, np.where(bottom, limits.min, inside)).astype(dtype)


def number(value: float, like: Array) -> Any:
    """Return an immediate as a scalar of an array's type."""
    return converted(np.asarray(value, np.float64), like.dtype)[()]

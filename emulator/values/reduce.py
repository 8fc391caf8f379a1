"""Vector operations over rows: reductions and the matrix product."""

from __future__ import annotations

import numpy as np

from ..memory import Array
from .convert import store
from .registry import HANDLERS, Call, Handler, handler


def _reduction(ufunc: np.ufunc) -> Handler:
    """Make a handler of a reduction. Rows without gaps, so that the order (pairwise for sums) never differs."""

    def carry_out(call: Call, dst: Array, a: Array) -> None:
        rows = a if a.strides[2] == a.itemsize else np.ascontiguousarray(a)
        store(dst, ufunc.reduce(rows, axis=2, keepdims=True, dtype=None if a.dtype.kind == "b" else a.dtype))

    return carry_out


HANDLERS.update(
    {
        "vrsum": _reduction(np.add),
        "vrmax": _reduction(np.maximum),
        "vrmin": _reduction(np.minimum),
        "vrprod": _reduction(np.multiply),
    }
)


@handler("vmm")
def vmm(call: Call, dst: Array, a: Array, b: Array) -> None:
    """Dst (+)= a x b in f32, a product a window."""
    result = np.matmul(_for_blas(a), _for_blas(b))
    if call.adds:
        np.add(dst, result, out=dst)
    else:
        np.copyto(dst, result)


def _for_blas(a: Array) -> Array:
    """Return the matrices in a form that BLAS takes: rows or columns without gaps."""
    return a if a.itemsize in a.strides[1:] else np.ascontiguousarray(a)

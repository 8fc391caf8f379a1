"""Between f32 and whole numbers: quant, dequant, store."""

from __future__ import annotations

import numpy as np

from ..memory import Array
from .convert import store as write
from .registry import Call, handler


@handler("quant")
def quant(call: Call, dst: Array, a: Array, scale: Array, zero: Array | None) -> None:
    """Dst = saturate(round half to even(a / scale) + zero); NaN becomes the least (as in onnxruntime)."""
    whole = np.divide(a, scale)
    np.rint(whole, out=whole)
    if zero is not None:
        np.add(whole, zero.astype(np.float32), out=whole)
    limits = np.iinfo(dst.dtype)
    np.clip(whole, limits.min, limits.max, out=whole)
    if np.isnan(whole.min()):
        np.copyto(whole, limits.min, where=np.isnan(whole))
    np.copyto(dst, whole, casting="unsafe")


@handler("dequant")
def dequant(call: Call, dst: Array, acc: Array, sx: Array, sw: Array, bias: Array | None) -> None:
    """Dst = ((f32(acc) * sx) * sw) + bias, each step rounded to f32."""
    real = dst if dst.dtype == np.float32 else np.empty(dst.shape, np.float32)
    np.copyto(real, acc, casting="unsafe")
    np.multiply(real, sx, out=real)
    np.multiply(real, sw, out=real)
    if bias is not None:
        np.add(real, bias, out=real)
    if real is not dst:
        write(dst, real)


@handler("store")
def store(call: Call, dst: Array, acc: Array) -> None:
    """Dst = acc."""
    write(dst, acc)

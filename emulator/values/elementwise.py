"""Vector operations that look at one element of each operand: arithmetic, comparison, functions, selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..memory import Array
from .convert import converted, number, store
from .erf import erf
from .registry import HANDLERS, Call, Handler, handler

Binary: TypeAlias = Callable[[Any, Any], Any]
Unary: TypeAlias = Callable[[Any], Any]


def _binary(compute: Binary) -> Handler:
    """Make a handler of a function of two operands of one type: that of the first."""
    ufunc = compute if isinstance(compute, np.ufunc) else None

    def carry_out(call: Call, dst: Array, a: Array, b: Array | None) -> None:
        second = number(call.immediate, a) if b is None else converted(b, a.dtype)
        left, right = (second, a) if call.leaf.instr.values["swap"] else (a, second)
        if ufunc is not None and _keeps_type(ufunc, a, dst):
            ufunc(left, right, out=dst)
        else:
            store(dst, compute(left, right))

    return carry_out


def _keeps_type(ufunc: np.ufunc, a: Array, dst: Array) -> bool:
    """Whether a function of ``a`` can write into ``dst`` without conversion."""
    if ufunc in _TRUTH:
        return dst.dtype.kind == "b"
    return a.dtype == dst.dtype and a.dtype.kind in "fi"


_TRUTH = (np.equal, np.less, np.less_equal, np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.isnan)


def _unary(compute: Unary) -> Handler:
    ufunc = compute if isinstance(compute, np.ufunc) else None

    def carry_out(call: Call, dst: Array, a: Array) -> None:
        if ufunc is not None and _keeps_type(ufunc, a, dst):
            ufunc(a, out=dst)
        else:
            store(dst, compute(a))

    return carry_out


def _function(ufunc: np.ufunc) -> Handler:
    """Make a handler of a function of real numbers: whole numbers are taken as f32."""

    def compute(a: Array) -> Any:
        return ufunc(_real(a))

    real = _unary(ufunc)
    whole = _unary(compute)
    return lambda call, dst, a: (real if a.dtype == np.float32 else whole)(call, dst, a)


def _real(a: Array) -> Array:
    return a if a.dtype.kind == "f" else a.astype(np.float32)


def divide(a: Any, b: Any) -> Any:
    """a / b; of whole numbers towards zero, by zero 0."""
    if np.result_type(a).kind == "f":
        return np.divide(a, b)
    return np.floor_divide(a - np.fmod(a, b), b)


def power(a: Any, b: Any) -> Any:
    """a to the power b; a square is a product."""
    if np.ndim(b) == 0 and b == 2:
        return np.multiply(a, a)
    if np.result_type(a).kind == "f":
        return np.power(a, b)
    return np.power(np.asarray(a, np.float64), b)


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), by e^-|a| so that nothing overflows."""
    real = _real(a)
    small: Array = np.abs(real)
    np.exp(np.negative(small, out=small), out=small)
    top: Array = np.maximum(small, np.greater_equal(real, 0))  # e^-|a|, or 1 from 0 on
    return np.divide(top, np.add(small, 1, out=small), out=top)


_BINARY: dict[str, Binary] = {
    "vadd": np.add,
    "vsub": np.subtract,
    "vmul": np.multiply,
    "vdiv": divide,
    "vmax": np.maximum,
    "vmin": np.minimum,
    "vpow": power,
    "veq": np.equal,
    "vlt": np.less,
    "vle": np.less_equal,
    "vand": np.logical_and,
    "vor": np.logical_or,
    "vxor": np.logical_xor,
}
_UNARY: dict[str, Unary] = {
    "vabs": np.absolute,
    "vneg": np.negative,
    "vnot": np.logical_not,
    "vrecip": lambda a: np.divide(np.float32(1), _real(a)),
    "verf": lambda a: erf(_real(a)),
    "vsigmoid": sigmoid,
    "vsign": np.sign,
    "visnan": np.isnan,
}
_FUNCTIONS: dict[str, np.ufunc] = {
    "vsqrt": np.sqrt,
    "vexp": np.exp,
    "vlog": np.log,
    "vtanh": np.tanh,
    "vfloor": np.floor,
    "vceil": np.ceil,
    "vround": np.rint,
    "vsin": np.sin,
    "vcos": np.cos,
}
HANDLERS.update({name: _binary(compute) for name, compute in _BINARY.items()})
HANDLERS.update({name: _unary(compute) for name, compute in _UNARY.items()})
HANDLERS.update({name: _function(ufunc) for name, ufunc in _FUNCTIONS.items()})


@handler("vmov")
def vmov(call: Call, dst: Array, a: Array) -> None:
    """dst = a, converted."""
    store(dst, a)


@handler("vsel")
def vsel(call: Call, dst: Array, c: Array, a: Array | None, b: Array | None) -> None:
    """dst = a where c, else b."""
    imm = number(call.immediate, dst)
    yes = imm if a is None else converted(a, dst.dtype)
    no = imm if b is None else converted(b, dst.dtype)
    np.copyto(dst, np.where(converted(c, np.dtype(np.bool_)), yes, no))


@handler("vfill")
def vfill(call: Call, dst: Array) -> None:
    """dst = the immediate."""
    np.copyto(dst, number(call.immediate, dst))

"""Bits of whole numbers in arithmetic: a shift is a product or a quotient, a bit the rest of two quotients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule

_INT32 = ir.DataType.INT32
_SMALL = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}
_LONG = {_INT32, ir.DataType.INT64}
_WHOLE = _SMALL | _LONG


def _width(value: ir.Value) -> int:
    assert value.dtype is not None
    return int(value.dtype.bitwidth)


def _number(site: Site, value: int) -> ir.Value:
    return site.constant(np.array(value, np.int32))


def bit_cast(site: Site) -> bool:
    """Between signed and unsigned numbers: a Cast, which wraps around."""
    to = ir.DataType(site.integer("to", 0))
    return site.x.dtype in {*_SMALL, ir.DataType.BOOL} and to in _SMALL and site.done(site.cast(site.x, to))


def bit_not(site: Site) -> bool:
    """-1 - x, which wraps around where there is no sign."""
    dtype = site.x.dtype
    if dtype is None or dtype not in _WHOLE:
        return False
    if dtype == ir.DataType.INT64:
        return site.done(site.op("Sub", -1, site.x))
    return site.done(site.cast(site.op("Sub", _number(site, -1), site.cast(site.x, _INT32)), dtype))


def bit_shift(site: Site) -> bool:
    """Times a power of two, or over it and rounded down: of 8 or 16 bits, of more by a constant."""
    dtype, steps = site.x.dtype, _constant(site)
    if dtype in _LONG and steps is not None and steps < _width(site.x) - 1:
        power = site.number(1 << steps)
        if site.text("direction", "") == "LEFT":
            return site.done(site.op("Mul", site.x, power))
        return site.done(site.op("Div", site.op("Sub", site.x, _low(site, steps)), power))
    if dtype is None or dtype not in _SMALL:
        return False
    x, by = site.cast(site.x, _INT32), site.cast(site.given(1), _INT32)
    width = _number(site, _width(site.x))
    beyond = site.op("Or", site.op("Less", by, _number(site, 0)), site.op("Less", width, by))
    by = site.op("Where", beyond, width, by)
    base = site.constant(np.array(2, np.float32))  # powers of float32 may be a little off: they are rounded
    power = site.cast(site.op("Round", site.op("Pow", base, site.cast(by, ir.DataType.FLOAT))), _INT32)
    moved = site.op("Mul", x, power) if site.text("direction", "") == "LEFT" else _floor_over(site, x, power)
    return site.done(site.cast(moved, dtype))


def _floor_over(site: Site, x: ir.Value, y: ir.Value) -> ir.Value:
    quotient = site.op("Div", x, y)
    below = site.op("Less", x, site.op("Mul", quotient, y))
    return site.op("Where", below, site.op("Sub", quotient, _number(site, 1)), quotient)


def _constant(site: Site) -> int | None:
    """Return the second operand where it is one constant number, not below 0."""
    numbers = site.numbers(1)
    if numbers is None or not numbers.size or numbers.min() != numbers.max() or numbers.min() < 0:
        return None
    return int(numbers.flat[0]) if site.shape == shape_of(site.node.outputs[0]) else None


def _low(site: Site, bits: int) -> ir.Value:
    """Return the lowest bits of x, as a number that is not below 0."""
    return site.op("Mod", site.x, site.number(1 << bits))


def _masked(site: Site, mask: int) -> ir.Value:
    """Return the bits of x in a mask: for every run of ones, what is below its end less what is below its start."""
    total: ir.Value | None = None
    start = 0
    while mask >> start:
        if not mask >> start & 1:
            start += 1
            continue
        end = start
        while mask >> end & 1:
            end += 1
        run = _low(site, end) if start == 0 else site.op("Sub", _low(site, end), _low(site, start))
        total = run if total is None else site.op("Add", total, run)
        start = end
    return total if total is not None else site.op("Mul", site.x, 0)


def _with_mask(site: Site, mask: int) -> ir.Value:
    both = _masked(site, mask)
    if site.node.op_type == "BitwiseAnd":
        return both
    joined = site.op("Sub", site.op("Add", site.x, mask), both)
    return joined if site.node.op_type == "BitwiseOr" else site.op("Sub", joined, both)


def bitwise(site: Site) -> bool:
    """Of 8 or 16 bits: bit by bit, as products and sums of zeros and ones; of more with a constant: by remainders."""
    dtype, mask = site.x.dtype, _constant(site)
    if dtype in _LONG and mask is not None and mask < 1 << (_width(site.x) - 2):
        return site.done(_with_mask(site, mask))
    if dtype is None or dtype not in _SMALL:
        return False
    width = _width(site.x)
    first, second = (_bits(site, site.given(place), width) for place in (0, 1))
    total: ir.Value | None = None
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        part = site.op("Mul", _COMBINED[site.node.op_type](site, a, b), _number(site, 1 << place))
        total = part if total is None else site.op("Add", total, part)
    assert total is not None
    return site.done(site.cast(total, dtype))


def _bits(site: Site, value: ir.Value, width: int) -> list[ir.Value]:
    """Return the bits of a number as int32 zeros and ones, the lowest first."""
    wide = site.cast(value, _INT32)
    zero = _number(site, 0)
    rest = site.op("Where", site.op("Less", wide, zero), site.op("Add", wide, _number(site, 1 << width)), wide)
    bits = []
    for _ in range(width):
        half = site.op("Div", rest, _number(site, 2))
        bits.append(site.op("Sub", rest, site.op("Add", half, half)))
        rest = half
    return bits


def _both(site: Site, a: ir.Value, b: ir.Value) -> ir.Value:
    return site.op("Mul", a, b)


def _either(site: Site, a: ir.Value, b: ir.Value) -> ir.Value:
    return site.op("Max", a, b)


def _one(site: Site, a: ir.Value, b: ir.Value) -> ir.Value:
    return site.op("Abs", site.op("Sub", a, b))


_COMBINED = {"BitwiseAnd": _both, "BitwiseOr": _either, "BitwiseXor": _one}

RULES: dict[str, SiteRule] = {
    "BitCast": bit_cast,
    "BitShift": bit_shift,
    "BitwiseNot": bit_not,
    **dict.fromkeys(_COMBINED, bitwise),
}

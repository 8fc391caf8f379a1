"""Remainders of float32 numbers, exactly: the product with the quotient is taken with what rounding it leaves.

Splitting and product: T. J. Dekker, A floating-point technique for extending the available precision, Numerische
Mathematik 18 (1971).
"""

from __future__ import annotations

import math

import onnx_ir as ir

from .site import Site

#: Half of the 24 bits of a float32 are left of what is multiplied by this and subtracted again.
_SPLIT = 4097.0
_DIGITS = float(1 << 24)


def modulo(site: Site) -> bool:
    """Mod of float32: exact where the quotient, too, is below 2^24; NaN elsewhere."""
    a, b = site.x, site.given(1)
    ratio = site.op("Div", a, b)
    size, sign = site.op("Abs", ratio), site.op("Sign", ratio)
    rest = _rest(site, a, b, site.op("Mul", sign, site.op("Floor", size)))
    beyond = site.op("And", _apart(site, rest, a), _nonzero(site, rest))  # the quotient was rounded up to a whole one
    rest = site.op("Where", beyond, site.op("Add", rest, site.op("Mul", sign, b)), rest)
    rest = site.op("Where", site.op("Less", site.op("Abs", a), site.op("Abs", b)), a, rest)
    rest = site.op("Where", site.op("Less", size, _DIGITS), rest, math.nan)
    if not site.integer("fmod", 0):
        wrong = site.op("And", _apart(site, rest, b), _nonzero(site, rest))
        rest = site.op("Where", wrong, site.op("Add", rest, b), rest)
    return site.done(rest)


def _apart(site: Site, x: ir.Value, y: ir.Value) -> ir.Value:
    return site.op("Xor", site.op("Less", x, 0.0), site.op("Less", y, 0.0))


def _nonzero(site: Site, x: ir.Value) -> ir.Value:
    return site.op("Not", site.op("Equal", x, 0.0))


def _rest(site: Site, a: ir.Value, b: ir.Value, quotient: ir.Value) -> ir.Value:
    """Return a - b * quotient with one rounding in all."""
    product = site.op("Mul", b, quotient)
    (b_high, b_low), (q_high, q_low) = _halves(site, b), _halves(site, quotient)
    lost = site.op("Sub", site.op("Mul", b_high, q_high), product)
    lost = site.op("Add", lost, site.op("Mul", b_high, q_low))
    lost = site.op("Add", lost, site.op("Mul", b_low, q_high))
    lost = site.op("Add", lost, site.op("Mul", b_low, q_low))
    return site.op("Sub", site.op("Sub", a, product), lost)


def _halves(site: Site, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return two numbers of 12 bits each that add up to x."""
    scaled = site.op("Mul", x, _SPLIT)
    high = site.op("Sub", scaled, site.op("Sub", scaled, x))
    return high, site.op("Sub", x, high)

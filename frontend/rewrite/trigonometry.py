"""Inverse and hyperbolic functions: a polynomial near 0, and what the vector unit has elsewhere.

Ranges and coefficients are those of the Cephes library for single precision (S. Moshier, https://www.netlib.org/cephes,
single.tgz): about 2e-7 of the result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import onnx_ir as ir

from .site import Given, Site, SiteRule

_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
_ASIN = (4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
_SINH = (2.03721912945e-4, 8.33028376239e-3, 1.66667160211e-1)
_ASINH = (2.0122003309e-2, -4.2699340972e-2, 7.4847586088e-2, -1.6666288134e-1)
_ATANH = (1.81740078349e-1, 8.24370301058e-2, 1.46691431730e-1, 1.99782164500e-1, 3.33337300303e-1)
_ACOSH = (1.7596881071e-3, -7.5272886713e-3, 2.6454905019e-2, -1.1784741703e-1, 1.4142135263)
#: From here on x +- 1 under a root is x * x.
_LARGE = 1500.0


def _formula(build: Callable[[Site], ir.Value]) -> SiteRule:
    """Let a function of float32 be a rule."""

    @functools.wraps(build)
    def rule(site: Site) -> bool:
        return site.is_float and site.done(build(site))

    return rule


def _polynomial(site: Site, coefficients: tuple[float, ...], z: ir.Value) -> ir.Value:
    """Return the polynomial in z, the highest power first, by Horner's scheme."""
    total: Given = coefficients[0]
    for each in coefficients[1:]:
        total = site.op("Add", site.op("Mul", total, z), each)
    assert isinstance(total, ir.Value)
    return total


def _odd(site: Site, coefficients: tuple[float, ...], x: ir.Value) -> ir.Value:
    """Return x + x^3 * polynomial(x^2)."""
    square = site.op("Mul", x, x)
    return site.op("Add", site.op("Mul", site.op("Mul", _polynomial(site, coefficients, square), square), x), x)


def _signed(site: Site, magnitude: ir.Value) -> ir.Value:
    """Return a magnitude with the sign of x."""
    return site.op("Where", site.op("Less", site.x, 0.0), site.op("Neg", magnitude), magnitude)


@_formula
def atan(site: Site) -> ir.Value:
    """A polynomial up to tan(pi / 8); beyond, of (|x| - 1) / (|x| + 1) or -1 / |x|, with what is left added."""
    a = site.op("Abs", site.x)
    far, middle = site.op("Greater", a, math.tan(3 * math.pi / 8)), site.op("Greater", a, math.tan(math.pi / 8))
    turned = site.op("Div", site.op("Sub", a, 1.0), site.op("Add", a, 1.0))
    reduced = site.op("Where", far, site.op("Div", -1.0, a), site.op("Where", middle, turned, a))
    offset = site.op("Where", far, math.pi / 2, site.op("Where", middle, math.pi / 4, 0.0))
    return _signed(site, site.op("Add", _odd(site, _ATAN, reduced), offset))


def _asin_parts(site: Site) -> tuple[ir.Value, ir.Value]:
    """Return whether |x| > 1/2, and asin of |x|, or there of sqrt((1 - |x|) / 2): half the angle that is left."""
    a = site.op("Abs", site.x)
    steep = site.op("Greater", a, 0.5)
    root = site.op("Sqrt", site.op("Mul", site.op("Sub", 1.0, a), 0.5))
    return steep, _odd(site, _ASIN, site.op("Where", steep, root, a))


@_formula
def asin(site: Site) -> ir.Value:
    """A polynomial up to 1/2; beyond, pi/2 - 2 asin(sqrt((1 - |x|) / 2))."""
    steep, part = _asin_parts(site)
    return _signed(site, site.op("Where", steep, site.op("Sub", math.pi / 2, site.op("Add", part, part)), part))


@_formula
def acos(site: Site) -> ir.Value:
    """Pi/2 - asin(x) up to 1/2; beyond, 2 asin(sqrt((1 - |x|) / 2)), from pi below 0."""
    steep, part = _asin_parts(site)
    double, negative = site.op("Add", part, part), site.op("Less", site.x, 0.0)
    end = site.op("Where", negative, site.op("Sub", math.pi, double), double)
    return site.op("Where", steep, end, site.op("Sub", math.pi / 2, _signed(site, part)))


def _half_power(site: Site) -> ir.Value:
    """Return e^|x| / 2, which is finite where sinh and cosh are."""
    root = site.op("Exp", site.op("Mul", site.op("Abs", site.x), 0.5))
    return site.op("Mul", site.op("Mul", root, 0.5), root)


@_formula
def sinh(site: Site) -> ir.Value:
    """A polynomial up to 1; beyond, (e^|x| - e^-|x|) / 2."""
    half = _half_power(site)
    far = _signed(site, site.op("Sub", half, site.op("Div", 0.25, half)))
    return site.op("Where", site.op("Greater", site.op("Abs", site.x), 1.0), far, _odd(site, _SINH, site.x))


@_formula
def cosh(site: Site) -> ir.Value:
    """(e^|x| + e^-|x|) / 2."""
    half = _half_power(site)
    return site.op("Add", half, site.op("Div", 0.25, half))


@_formula
def asinh(site: Site) -> ir.Value:
    """A polynomial up to 1/2; beyond, log(|x| + sqrt(x^2 + 1))."""
    a = site.op("Abs", site.x)
    root = site.op("Sqrt", site.op("Add", site.op("Mul", a, a), 1.0))
    far = _signed(site, _log_of_sum(site, a, root))
    return site.op("Where", site.op("Less", a, 0.5), _odd(site, _ASINH, site.x), far)


def _log_of_sum(site: Site, a: ir.Value, root: ir.Value) -> ir.Value:
    """Return log(a + root), where a is large log(2 a)."""
    large = site.op("Greater", a, _LARGE)
    inner = site.op("Where", large, a, site.op("Add", a, root))
    return site.op("Add", site.op("Log", inner), site.op("Where", large, math.log(2), 0.0))


@_formula
def acosh(site: Site) -> ir.Value:
    """sqrt(x - 1) times a polynomial up to 3/2; beyond, log(x + sqrt((x - 1) (x + 1)))."""
    over = site.op("Sub", site.x, 1.0)
    near = site.op("Mul", _polynomial(site, _ACOSH, over), site.op("Sqrt", over))
    root = site.op("Sqrt", site.op("Mul", over, site.op("Add", site.x, 1.0)))
    return site.op("Where", site.op("Less", over, 0.5), near, _log_of_sum(site, site.x, root))


@_formula
def atanh(site: Site) -> ir.Value:
    """A polynomial up to 1/2; beyond, log((1 + x) / (1 - x)) / 2."""
    ratio = site.op("Div", site.op("Add", 1.0, site.x), site.op("Sub", 1.0, site.x))
    far = site.op("Mul", site.op("Log", ratio), 0.5)
    return site.op("Where", site.op("Less", site.op("Abs", site.x), 0.5), _odd(site, _ATANH, site.x), far)


RULES: dict[str, SiteRule] = {
    "Acos": acos,
    "Acosh": acosh,
    "Asin": asin,
    "Asinh": asinh,
    "Atan": atan,
    "Atanh": atanh,
    "Cosh": cosh,
    "Sinh": sinh,
}

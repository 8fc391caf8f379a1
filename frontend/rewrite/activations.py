"""Activations and small arithmetic, by the formulas of the ONNX operator reference."""

from __future__ import annotations

import functools
import math

import numpy as np
import onnx_ir as ir

from .site import Site, SiteRule

_WHOLE = (ir.DataType.INT32, ir.DataType.INT64)


def _formula(build: SiteRule) -> SiteRule:
    """Let a rule apply to float32 only."""

    @functools.wraps(build)
    def rule(site: Site) -> bool:
        return site.is_float and build(site)

    return rule


def _elu_of(site: Site, alpha: float, scale: float = 1.0) -> ir.Value:
    """Return scale * (x where x >= 0, else alpha * (e^x - 1))."""
    low = site.op("Mul", site.op("Sub", site.op("Exp", site.x), 1.0), alpha)
    both = site.op("Where", site.op("Less", site.x, 0.0), low, site.x)
    return both if scale == 1.0 else site.op("Mul", both, scale)


@_formula
def elu(site: Site) -> bool:
    """X, or alpha * (e^x - 1) below 0."""
    return site.done(_elu_of(site, site.real("alpha", 1.0)))


@_formula
def selu(site: Site) -> bool:
    """Gamma * Elu(x)."""
    alpha, gamma = site.real("alpha", 1.67326319217681884765625), site.real("gamma", 1.05070102214813232421875)
    return site.done(_elu_of(site, alpha, gamma))


@_formula
def celu(site: Site) -> bool:
    """max(0, x) + min(0, alpha * (e^(x / alpha) - 1))."""
    alpha = site.real("alpha", 1.0)
    low = site.op("Mul", site.op("Sub", site.op("Exp", site.op("Div", site.x, alpha)), 1.0), alpha)
    return site.done(site.op("Add", site.op("Max", site.x, 0.0), site.op("Min", low, 0.0)))


@_formula
def prelu(site: Site) -> bool:
    """X, or slope * x below 0."""
    scaled = site.op("Mul", site.x, site.given(1))
    return site.done(site.op("Where", site.op("Less", site.x, 0.0), scaled, site.x))


@_formula
def mish(site: Site) -> bool:
    """X * tanh(softplus(x))."""
    return site.done(site.op("Mul", site.x, site.op("Tanh", site.op("Softplus", site.x))))


@_formula
def swish(site: Site) -> bool:
    """X * sigmoid(alpha * x)."""
    alpha = site.real("alpha", 1.0)
    inner = site.x if alpha == 1.0 else site.op("Mul", site.x, alpha)
    return site.done(site.op("Mul", site.x, site.op("Sigmoid", inner)))


@_formula
def thresholded_relu(site: Site) -> bool:
    """X where it is above alpha, else 0."""
    above = site.op("Greater", site.x, site.real("alpha", 1.0))
    return site.done(site.op("Where", above, site.x, 0.0))


@_formula
def softsign(site: Site) -> bool:
    """X / (1 + |x|)."""
    return site.done(site.op("Div", site.x, site.op("Add", site.op("Abs", site.x), 1.0)))


@_formula
def shrink(site: Site) -> bool:
    """X + bias below -lambd, x - bias above lambd, else 0."""
    lambd, bias = site.real("lambd", 0.5), site.real("bias", 0.0)
    low, high = site.op("Add", site.x, bias), site.op("Sub", site.x, bias)
    above = site.op("Where", site.op("Greater", site.x, lambd), high, 0.0)
    return site.done(site.op("Where", site.op("Less", site.x, -lambd), low, above))


@_formula
def tan(site: Site) -> bool:
    """Sin(x) / cos(x)."""
    return site.done(site.op("Div", site.op("Sin", site.x), site.op("Cos", site.x)))


@_formula
def is_inf(site: Site) -> bool:
    """Whether x is infinite, of the signs asked for."""
    negative, positive = site.integer("detect_negative", 1), site.integer("detect_positive", 1)
    if negative and positive:
        return site.done(site.op("Equal", site.op("Abs", site.x), math.inf))
    if not negative and not positive:
        return False
    return site.done(site.op("Equal", site.x, math.inf if positive else -math.inf))


def total(site: Site) -> bool:
    """Sum of any number of operands: additions, one after the other."""
    result = _added(site)
    return result is not None and site.done(result)


def _added(site: Site) -> ir.Value | None:
    if len(site.node.inputs) < 2 or not site.is_float:
        return None
    result = site.x
    for place in range(1, len(site.node.inputs)):
        result = site.op("Add", result, site.given(place))
    return result


def mean(site: Site) -> bool:
    """Their sum over their number."""
    result = _added(site)
    return result is not None and site.done(site.op("Div", result, float(len(site.node.inputs))))


def modulo(site: Site) -> bool:
    """Whole numbers: a - b * (a / b towards zero), and b more where that has the other sign; fmod keeps a's sign."""
    if site.x.dtype not in _WHOLE:
        return False
    divisor = site.given(1)
    rest = site.op("Sub", site.x, site.op("Mul", site.op("Div", site.x, divisor), divisor))
    if site.integer("fmod", 0):
        return site.done(rest)
    apart = site.op("Xor", site.op("Less", rest, 0), site.op("Less", divisor, 0))
    wrong = site.op("And", apart, site.op("Not", site.op("Equal", rest, 0)))
    return site.done(site.op("Where", wrong, site.op("Add", rest, divisor), rest))


def power(site: Site) -> bool:
    """A float32 base with whole exponents: those as float32."""
    exponent = site.given(1)
    if not site.is_float or exponent.dtype not in _WHOLE:
        return False
    return site.done(site.op("Pow", site.x, site.cast(exponent, ir.DataType.FLOAT)))


def cast_like(site: Site) -> bool:
    """A Cast to the other operand's type."""
    dtype = site.given(1).dtype
    return dtype is not None and site.done(site.cast(site.x, dtype))


def dropout(site: Site) -> bool:
    """At inference the input itself, and a mask of ones."""
    training = site.maybe(2)
    flag = site.numbers(2)
    if training is not None and (flag is None or bool(flag.any())):
        return False
    if len(site.node.outputs) < 2:
        return site.done(site.op("Identity", site.x))
    mask = site.constant(np.ones(site.shape, np.bool_))
    return site.done(site.op("Identity", site.x), site.op("Identity", mask))


RULES: dict[str, SiteRule] = {
    "Elu": elu,
    "Selu": selu,
    "Celu": celu,
    "PRelu": prelu,
    "Mish": mish,
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
    "Softsign": softsign,
    "Shrink": shrink,
    "Tan": tan,
    "IsInf": is_inf,
    "Sum": total,
    "Mean": mean,
    "Mod": modulo,
    "Pow": power,
    "CastLike": cast_like,
    "Dropout": dropout,
}

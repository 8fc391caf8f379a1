"""Arithmetic on integers of 8 and 16 bits, in int32: the cast back wraps around as theirs does."""

from __future__ import annotations

import onnx_ir as ir

from .site import Site, SiteRule

_SMALL = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}
_WIDE = ir.DataType.INT32
#: Operators that the machine runs on int32; they read numbers of one type, and constants that steer them.
_ARITHMETIC = (
    "Abs", "Add", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod",
    "Mul", "Neg", "ReduceProd", "ReduceSum", "Sign", "Sub", "Where",
)  # fmt: skip
_RANKS = ("ArgMax", "ArgMin")
_EXTREMES = ("ReduceMax", "ReduceMin")


def in_int32(site: Site) -> bool:
    """Of 8 and 16 bits: in int32, and cast back."""
    return _through(site, _WIDE, _SMALL)


def extreme(site: Site) -> bool:
    """Of 8 and 16 bits, and of truth values: in int32, and cast back."""
    return _through(site, _WIDE, {*_SMALL, ir.DataType.BOOL})


def in_float(site: Site) -> bool:
    """Of 8 and 16 bits: in float32, which holds them exactly."""
    return _through(site, ir.DataType.FLOAT, _SMALL)


def _through(site: Site, wide: ir.DataType, narrow: set[ir.DataType]) -> bool:
    """Let the operator work in another type; a result in one of its operands' types is cast back."""
    node, dtype = site.node, site.node.outputs[0].dtype
    if not any(value is not None and value.dtype in narrow for value in node.inputs):
        return False
    inputs = [value if value is None or value.dtype not in narrow else site.cast(value, wide) for value in node.inputs]
    made = site.editor.insert(node, node.op_type, inputs, suffix=".wide", attributes=node.attributes.values())
    return site.done(site.cast(made, dtype) if dtype is not None and dtype in narrow else made)


RULES: dict[str, SiteRule] = {
    **dict.fromkeys(_ARITHMETIC, in_int32),
    **dict.fromkeys(_EXTREMES, extreme),
    **dict.fromkeys(_RANKS, in_float),
}

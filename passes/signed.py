"""Unsigned bytes as signed ones: x - 128, quantised so in the first place where that can be."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..frontend.edit import constant_array, shape_of
from .emit import Emitter

MIDDLE = 128
"""What an unsigned byte loses on its way to a signed one."""

_INT8, _INT32 = ir.DataType.INT8, ir.DataType.INT32


@dataclass(frozen=True)
class Signed:
    """INT8 codes and their zero point: a number, or an int32 scalar made at run time."""

    codes: ir.Value
    zero: int | ir.Value


@dataclass
class Shared:
    """What has been made already, by what it was made of."""

    codes: dict[ir.Value, ir.Value] = field(default_factory=dict)
    zeros: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)
    row_sums: dict[ir.Value, ir.Value] = field(default_factory=dict)


def optional_input(node: ir.Node, place: int) -> ir.Value | None:
    """Return an input of a node, None where it is left out."""
    return node.inputs[place] if len(node.inputs) > place else None


def signed(x: ir.Value, zero: ir.Value | None, emitter: Emitter, shared: Shared) -> Signed:
    """Return bytes and their zero point as signed ones."""
    shift = MIDDLE if x.dtype == ir.DataType.UINT8 else 0
    return Signed(_signed_codes(x, emitter, shared) if shift else x, _signed_zero(zero, shift, emitter, shared))


def _signed_zero(zero: ir.Value | None, shift: int, emitter: Emitter, shared: Shared) -> int | ir.Value:
    array = constant_array(zero)
    if zero is None or array is not None:
        return (0 if array is None else int(array.reshape(()))) - shift
    key = (zero, shift)
    if key not in shared.zeros:
        wide = emitter.cast("zero_point", "quantise", zero, _INT32)
        less = emitter.constant("middle", np.array(-shift, np.int32))
        shape = shape_of(zero)
        moved = (
            emitter.node("Add", "signed_zero_point", "quantise", [wide, less], shape, dtype=_INT32) if shift else wide
        )
        shared.zeros[key] = moved
    return shared.zeros[key]


def _signed_codes(x: ir.Value, emitter: Emitter, shared: Shared) -> ir.Value:
    """Return unsigned bytes less 128: quantised so in the first place, or moved."""
    if x not in shared.codes:
        maker = x.producer()
        known = maker is not None and maker.op_type == "QuantizeLinear" and maker.domain == ""
        shared.codes[x] = _requantised(maker, emitter, shared) if maker and known else _moved(x, emitter)
    return shared.codes[x]


def _requantised(maker: ir.Node, emitter: Emitter, shared: Shared) -> ir.Value:
    """Emit the QuantizeLinear with signed results."""
    zero = optional_input(maker, 2)
    array = constant_array(zero)
    if zero is None or array is not None:
        moved = np.array(-MIDDLE) if array is None else array.astype(np.int32) - MIDDLE
        less = emitter.constant("zero_point", moved.astype(np.int8))
    else:
        wide = _signed_zero(zero, MIDDLE, emitter, shared)
        assert isinstance(wide, ir.Value), "a zero point made at run time"
        less = emitter.cast("signed_zero", "quantise", wide, _INT8)
    attributes = {name: each for name, each in maker.attributes.items() if name in ("axis", "saturate")}
    inputs = [each for each in maker.inputs[:2] if each is not None]
    shape = shape_of(maker.outputs[0])
    return emitter.node(
        "QuantizeLinear", "quantise", "quantise", [*inputs, less], shape, dtype=_INT8, attributes=attributes
    )


def _moved(x: ir.Value, emitter: Emitter) -> ir.Value:
    wide = emitter.cast("widen", "quantise", x, _INT32)
    less = emitter.constant("middle", np.array(-MIDDLE, np.int32))
    moved = emitter.node("Add", "less_middle", "quantise", [wide, less], shape_of(x), dtype=_INT32)
    return emitter.cast("signed", "quantise", moved, _INT8)

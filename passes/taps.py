"""Extra outputs of a graph that sum the squares of what its linears read, one number an input position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.linears import INTEGER_PRODUCTS, Linear
from .convolution import ConvShape, conv_shape
from .emit import Emitter

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tap:
    """Where the sums of one linear come out, and how they are laid out there (`conv` is None for a MatMul)."""

    linear: str
    output: str
    conv: ConvShape | None

    def lower(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring the graph's sums into [groups, k], k in the order kh, kw, C_in."""
        if self.conv is None:
            return sums.reshape(1, -1)
        kernel = self.conv.kernel
        cropped = sums[(slice(None), *(slice(size) for size in kernel))]
        grouped = cropped.reshape(self.conv.groups, -1, *kernel)
        return np.moveaxis(grouped, 1, -1).reshape(self.conv.groups, -1)


def tap_linears(model: ir.Model, linears: Sequence[Linear]) -> list[Tap]:
    """Give `model` the sums as its only outputs, and drop what they do not need. The model is changed in place."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    emitter = Emitter(model.graph, model.opset_imports.get("", 1), Emitter.names_of(model.graph), "tap")
    made: dict[tuple[str, ConvShape | None], str] = {}
    taps: list[Tap] = []
    model.graph.outputs.clear()
    for linear in linears:
        source = linear.node.inputs[0]
        assert source is not None, "find_linears gives only nodes with an input"
        conv = conv_shape(linear.node) if linear.is_conv else None
        key = (str(source.name), conv)
        if key not in made:
            source = _real(linear, source, emitter)
            model.graph.outputs.append(_conv_sums(source, conv, emitter) if conv else _row_sums(source, emitter))
            made[key] = str(model.graph.outputs[-1].name)
        taps.append(Tap(linear.name, made[key], conv))
    model.graph.extend(emitter.nodes)
    RemoveUnusedNodesPass()(model)
    return taps


def _real(linear: Linear, source: ir.Value, emitter: Emitter) -> ir.Value:
    """Return what a linear reads as float32: of integers what they are above their zero point, but for the scale."""
    real = emitter.cast("float", None, source, ir.DataType.FLOAT)
    place = 2 if linear.node.op_type in INTEGER_PRODUCTS else len(linear.node.inputs)
    zero = linear.node.inputs[place] if len(linear.node.inputs) > place else None
    if zero is None:
        return real
    zero = emitter.cast("zero", None, zero, ir.DataType.FLOAT)
    return emitter.node("Sub", "above_zero", None, [real, zero], shape_of(source))


def _row_sums(source: ir.Value, emitter: Emitter) -> ir.Value:
    """Sum the squares of `source` [..., K] over all axes but the last."""
    shape = shape_of(source)
    if len(shape) == 1:
        return emitter.node("Mul", "square", None, [source, source], shape)
    return emitter.reduce("ReduceSumSquare", "sum", None, source, range(len(shape) - 1))


def _conv_sums(source: ir.Value, conv: ConvShape, emitter: Emitter) -> ir.Value:
    """Sum the squares that each kernel position meets over all output positions, padding counted as zero.

    That sum is itself a depthwise convolution of the squared input, with a kernel of ones in the shape of the output
    and strides and dilations exchanged: out[c, kh] = sum over oh of x[c, oh * stride + kh * dilation - pad] ** 2.
    Its result may have further positions beyond the kernel, which the reader crops.
    """
    square = emitter.node("Mul", "square", None, [source, source], shape_of(source))
    ones = emitter.constant("ones", np.ones((conv.channels, 1, *conv.output), np.float32))
    attributes = {
        "group": conv.channels,
        "kernel_shape": conv.output,
        "pads": conv.pads,
        "strides": conv.dilations,
        "dilations": conv.strides,
    }
    shape = [shape_of(source)[0], conv.channels, *(_positions(conv, axis) for axis in range(len(conv.sizes)))]
    gathered = emitter.node("Conv", "gather", None, [square, ones], shape, attributes=attributes)
    return emitter.reduce("ReduceSum", "sum", None, gathered, [0])


def _positions(conv: ConvShape, axis: int) -> int:
    """Positions that come out of the exchanged convolution along an axis: the kernel's, and possibly some more."""
    padded = conv.sizes[axis] + conv.pads[axis] + conv.pads[axis + len(conv.sizes)]
    return (padded - conv.strides[axis] * (conv.output[axis] - 1) - 1) // conv.dilations[axis] + 1

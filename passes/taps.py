"""Extra outputs of a graph that sum the squares of what its linears read, one number an input position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..frontend.linears import Linear
from .convolution import ConvShape, conv_shape
from .shapes import static_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AXES_INPUT_OPSET = {"ReduceSumSquare": 18, "ReduceSum": 13}
"""The opset from which a reduction takes its axes as an input; as an attribute before."""


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

    opset = model.opset_imports.get("", 1)
    made: dict[tuple[str, ConvShape | None], ir.Value] = {}
    taps: list[Tap] = []
    for linear in linears:
        source = linear.node.inputs[0]
        assert source is not None, "find_linears gives only nodes with an input"
        conv = conv_shape(linear.node) if linear.node.op_type == "Conv" else None
        key = (str(source.name), conv)
        if key not in made:
            nodes = _conv_sums(source, conv, len(made), opset) if conv else _row_sums(source, len(made), opset)
            made[key] = nodes[-1].outputs[0]
            model.graph.extend(nodes)
        taps.append(Tap(linear.name, str(made[key].name), conv))
    model.graph.outputs.clear()
    model.graph.outputs.extend(made.values())
    RemoveUnusedNodesPass()(model)
    return taps


def _row_sums(source: ir.Value, index: int, opset: int) -> list[ir.Node]:
    """Sum the squares of `source` [..., K] over all axes but the last."""
    *leading, k = static_shape(source)
    if leading:
        return _reduce("ReduceSumSquare", source, list(range(len(leading))), [k], index, opset)
    return [_named(ir.node("Mul", [source, source], name=f"flexc/tap{index}/sum"), [k])]


def _conv_sums(source: ir.Value, conv: ConvShape, index: int, opset: int) -> list[ir.Node]:
    """Sum the squares that each kernel position meets over all output positions, padding counted as zero.

    That sum is itself a depthwise convolution of the squared input, with a kernel of ones in the shape of the output
    and strides and dilations exchanged: out[c, kh] = sum over oh of x[c, oh * stride + kh * dilation - pad] ** 2.
    Its result may have further positions beyond the kernel, which the reader crops.
    """
    square = ir.node("Mul", [source, source], name=f"flexc/tap{index}/square")
    ones = np.ones((conv.channels, 1, *conv.output), np.float32)
    attributes: dict[str, int | list[int]] = {
        "group": conv.channels,
        "kernel_shape": list(conv.output),
        "pads": list(conv.pads),
        "strides": list(conv.dilations),
        "dilations": list(conv.strides),
    }
    weights = ir.node("Constant", [], {"value": ir.tensor(ones)}, name=f"flexc/tap{index}/ones")
    inputs = [square.outputs[0], weights.outputs[0]]
    gather = ir.node("Conv", inputs, attributes, name=f"flexc/tap{index}/gather")
    shape = [conv.channels, *(None for _ in conv.kernel)]
    return [square, weights, gather, *_reduce("ReduceSum", gather.outputs[0], [0], shape, index, opset)]


def _reduce(
    op: str, source: ir.Value, axes: list[int], shape: Sequence[int | None], index: int, opset: int
) -> list[ir.Node]:
    """Reduce `source` over `axes` to a named float32 output of `shape`."""
    name = f"flexc/tap{index}/sum"
    if opset >= _AXES_INPUT_OPSET[op]:
        constant = ir.node("Constant", [], {"value": ir.tensor(np.array(axes, np.int64))}, name=f"{name}/axes")
        nodes = [constant, ir.node(op, [source, constant.outputs[0]], {"keepdims": 0}, name=name)]
    else:
        nodes = [ir.node(op, [source], {"axes": axes, "keepdims": 0}, name=name)]
    _named(nodes[-1], shape)
    return nodes


def _named(node: ir.Node, shape: Sequence[int | None]) -> ir.Node:
    """Name the output of a node after the node, and say that it is float32 of `shape`."""
    result = node.outputs[0]
    result.name, result.dtype, result.shape = node.name, ir.DataType.FLOAT, ir.Shape(list(shape))
    return node

"""Recipes: the vector instructions that carry out one node on a few rows in the buffer.

A recipe gets the stream to write and, for each input of the node, a stream or a number (a constant scalar). It returns
the place of the instruction that writes the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.streams import Stream

Operand = Stream | float | None


class Emission(Protocol):
    """What a recipe may use."""

    def op(self, mnemonic: str, dst: Stream, *operands: Operand, swap: int = 0, least: int = 0) -> int:
        """Emit a vector instruction; a number becomes its immediate."""
        ...

    def temp(self, cols: int, dtype: str = "f32") -> Stream:
        """Return room for one value a row and column that lives until the node is done."""
        ...


Recipe = Callable[[Emission, ir.Node, Stream, Sequence[Operand]], int]
RECIPES: dict[str, Recipe] = {}


def recipe(*op_types: str) -> Callable[[Recipe], Recipe]:
    """Register the recipe of these operators."""

    def register(function: Recipe) -> Recipe:
        RECIPES.update(dict.fromkeys(op_types, function))
        return function

    return register


def _one(mnemonic: str) -> Recipe:
    def run(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
        return e.op(mnemonic, dst, ins[0])

    return run


def _two(mnemonic: str) -> Recipe:
    def run(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
        return e.op(mnemonic, dst, ins[0], ins[1])

    return run


def _turned(mnemonic: str) -> Recipe:
    def run(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
        return e.op(mnemonic, dst, ins[0], ins[1], swap=1)

    return run


for _op, _mnemonic in {
    "Abs": "vabs",
    "Neg": "vneg",
    "Sqrt": "vsqrt",
    "Reciprocal": "vrecip",
    "Exp": "vexp",
    "Log": "vlog",
    "Tanh": "vtanh",
    "Erf": "verf",
    "Sigmoid": "vsigmoid",
    "Floor": "vfloor",
    "Ceil": "vceil",
    "Round": "vround",
    "Sin": "vsin",
    "Cos": "vcos",
    "Sign": "vsign",
    "IsNaN": "visnan",
    "Not": "vnot",
    "ReduceMax": "vrmax",
    "ReduceMin": "vrmin",
    "ReduceSum": "vrsum",
    "ReduceProd": "vrprod",
    "CumSum": "vscan",
}.items():
    RECIPES[_op] = _one(_mnemonic)
for _op, _mnemonic in {
    "Add": "vadd",
    "Sub": "vsub",
    "Mul": "vmul",
    "Div": "vdiv",
    "Pow": "vpow",
    "Equal": "veq",
    "Less": "vlt",
    "LessOrEqual": "vle",
    "And": "vand",
    "Or": "vor",
    "Xor": "vxor",
    "GatherElements": "vpick",
}.items():
    RECIPES[_op] = _two(_mnemonic)
RECIPES["Greater"] = _turned("vlt")
RECIPES["GreaterOrEqual"] = _turned("vle")


@recipe("Cast", "Identity")
def cast(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """A move that converts."""
    return e.op("vmov", dst, ins[0])


@recipe("Max", "Min")
def extreme(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """Any number of operands, one after the other."""
    mnemonic = "vmax" if node.op_type == "Max" else "vmin"
    if len(ins) == 1:
        return e.op("vmov", dst, ins[0])
    pc = e.op(mnemonic, dst, ins[0], ins[1])
    for other in ins[2:]:
        pc = e.op(mnemonic, dst, dst, other)
    return pc


@recipe("Where")
def where(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """One select."""
    return e.op("vsel", dst, *ins)


@recipe("Relu")
def relu(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """max(x, 0)."""
    return e.op("vmax", dst, ins[0], 0.0)


@recipe("LeakyRelu")
def leaky_relu(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """x where x >= 0, else alpha * x."""
    scaled, negative = e.temp(dst.cols), e.temp(dst.cols, "b8")
    e.op("vmul", scaled, ins[0], node.attributes.get_float("alpha", 0.01))
    e.op("vlt", negative, ins[0], 0.0)
    return e.op("vsel", dst, negative, scaled, ins[0])


@recipe("Clip")
def clip(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """Lower bound, then upper bound; a missing one does nothing."""
    low = ins[1] if len(ins) > 1 and ins[1] is not None else _attribute(node, "min", -math.inf)
    high = ins[2] if len(ins) > 2 and ins[2] is not None else _attribute(node, "max", math.inf)
    e.op("vmax", dst, ins[0], low)
    return e.op("vmin", dst, dst, high)


def _attribute(node: ir.Node, name: str, default: float) -> float:
    return node.attributes.get_float(name, default)


@recipe("HardSigmoid")
def hard_sigmoid(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """max(0, min(1, alpha * x + beta))."""
    return _hard_sigmoid(e, dst, ins[0], _attribute(node, "alpha", 0.2), _attribute(node, "beta", 0.5))


def _hard_sigmoid(e: Emission, dst: Stream, x: Operand, alpha: float, beta: float) -> int:
    e.op("vmul", dst, x, alpha)
    e.op("vadd", dst, dst, beta)
    e.op("vmax", dst, dst, 0.0)
    return e.op("vmin", dst, dst, 1.0)


@recipe("HardSwish")
def hard_swish(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """x * hard sigmoid with alpha 1/6."""
    gate = e.temp(dst.cols)
    _hard_sigmoid(e, gate, ins[0], 1 / 6, 0.5)
    return e.op("vmul", dst, ins[0], gate)


@recipe("Softplus")
def softplus(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """max(x, 0) + log(1 + e^-|x|), which does not overflow."""
    room = e.temp(dst.cols)
    e.op("vabs", room, ins[0])
    e.op("vneg", room, room)
    e.op("vexp", room, room)
    e.op("vadd", room, room, 1.0)
    e.op("vlog", room, room)
    e.op("vmax", dst, ins[0], 0.0)
    return e.op("vadd", dst, dst, room)


@recipe("Gelu")
def gelu(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """x/2 * (1 + erf(x / sqrt 2)), or with tanh as the attribute says."""
    inner = e.temp(dst.cols)
    if node.attributes.get_string("approximate", "none") == "tanh":
        e.op("vmul", inner, ins[0], ins[0])
        e.op("vmul", inner, inner, ins[0])
        e.op("vmul", inner, inner, 0.044715)
        e.op("vadd", inner, inner, ins[0])
        e.op("vmul", inner, inner, math.sqrt(2 / math.pi))
        e.op("vtanh", inner, inner)
    else:
        e.op("vmul", inner, ins[0], math.sqrt(0.5))
        e.op("verf", inner, inner)
    e.op("vadd", inner, inner, 1.0)
    e.op("vmul", inner, inner, ins[0])
    return e.op("vmul", dst, inner, 0.5)


@recipe("ReduceMean", "GlobalAveragePool")
def reduce_mean(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """The sum over the number of elements."""
    source = ins[0]
    assert isinstance(source, Stream)
    e.op("vrsum", dst, source)
    return e.op("vdiv", dst, dst, float(source.cols))


@recipe("MatMul")
def row_product(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """Each row times a vector: the sum of the products."""
    left = node.inputs[0]
    assert left is not None
    room = e.temp(shape_of(left)[-1])
    e.op("vmul", room, ins[0], ins[1])
    return e.op("vrsum", dst, room)


@recipe("ArgMax", "ArgMin", "TopK")
def rank(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """Places in order, as many as the result has columns."""
    least = node.op_type == "ArgMin" or not node.attributes.get_int("largest", 1)
    return e.op("vrank", dst, ins[0], least=int(least))


@recipe("ScatterElements")
def scatter(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """A copy, then the updates in their places."""
    e.op("vmov", dst, ins[0])
    return e.op("vput", dst, ins[2], ins[1])


@recipe("Softmax")
def softmax(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """e^(x - max) over its sum."""
    one = e.temp(1)
    e.op("vrmax", one, ins[0])
    e.op("vsub", dst, ins[0], one)
    e.op("vexp", dst, dst)
    e.op("vrsum", one, dst)
    return e.op("vdiv", dst, dst, one)


@recipe("LayerNormalization")
def layer_norm(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias."""
    one, square = e.temp(1), e.temp(dst.cols)
    e.op("vrsum", one, ins[0])
    e.op("vdiv", one, one, float(dst.cols))
    e.op("vsub", dst, ins[0], one)
    e.op("vmul", square, dst, dst)
    pc = _scaled_by_root_mean(e, node, dst, square, ins[1])
    return e.op("vadd", dst, dst, ins[2]) if len(ins) > 2 and ins[2] is not None else pc


@recipe("RMSNormalization")
def rms_norm(e: Emission, node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """x / sqrt(mean of squares + epsilon) * scale."""
    square = e.temp(dst.cols)
    e.op("vmul", square, ins[0], ins[0])
    e.op("vmov", dst, ins[0])
    return _scaled_by_root_mean(e, node, dst, square, ins[1])


def _scaled_by_root_mean(e: Emission, node: ir.Node, dst: Stream, square: Stream, scale: Operand) -> int:
    one = e.temp(1)
    e.op("vrsum", one, square)
    e.op("vdiv", one, one, float(dst.cols))
    e.op("vadd", one, one, node.attributes.get_float("epsilon", 1e-5))
    e.op("vsqrt", one, one)
    e.op("vdiv", dst, dst, one)
    return e.op("vmul", dst, dst, scale)


@recipe("QuantizeLinear")
def quantize(e: Emission, _node: ir.Node, dst: Stream, ins: Sequence[Operand]) -> int:
    """One instruction; the zero point is a number."""
    zero = ins[2] if len(ins) > 2 else None
    if isinstance(zero, float) and zero:
        room = e.temp(1, dst.dtype)
        e.op("vfill", room, zero)
        zero = room
    return e.op("quant", dst, ins[0], ins[1], zero if isinstance(zero, Stream) else None)

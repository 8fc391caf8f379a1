"""Comparing what the emulator made with what onnxruntime makes of the same inputs, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flexc.check_model import summed
from flexc.check_plan import Question
from flexc.frontend.edit import shape_of
from flexc.frontend.operators import OPERATORS, Tolerance
from flexc.passes.rows import reduced_axes

Array: TypeAlias = npt.NDArray[Any]

UNIT = 2.0**-23
"""Distance of float32 numbers just above 1: tolerances count it, times their scale."""

_WIDTH = {"element": 0, "row": 1, "sum": 2, "unit": 3}
_SMALLEST = np.float32(2.0**-126)
"""Below the normal numbers, float32 is spaced as just above them."""

_MOVES = ("view", "concat", "gather", "scatter", "pad")


@dataclass(frozen=True)
class Difference:
    """One element that differs by more than it may: both values, and the bound on their difference."""

    index: tuple[int, ...]
    emulated: float
    expected: float
    bound: float


@dataclass(frozen=True)
class Comparison:
    """How one value compares in one window; ``error`` is the greatest difference in units of 2^-23 times the scale."""

    wrong: int
    error: float
    first: Difference | None


def kind_of(question: Question) -> str:
    """Return what a question is about: ``array``, ``vector``, ``move`` (data only) or ``host``."""
    if question.engine == "host":
        return "host"
    kinds = {OPERATORS[node.op_type].kind for node in question.nodes if node.op_type in OPERATORS}
    if kinds & {"linear", "conv"}:
        return "array"
    return "move" if kinds <= set(_MOVES) else "vector"


def operator_of(question: Question) -> str:
    """Return the operators that a question is about, those that only move data left out where others are there."""
    every = [node.op_type for node in question.nodes]
    working = [op for op in every if op not in OPERATORS or OPERATORS[op].kind not in _MOVES] or every
    return "+".join(dict.fromkeys(working))


def tolerance_of(question: Question) -> Tolerance:
    """Return how closely a question's values must agree: the sum of its nodes' c, the widest of their scales.

    What the host computed is computed by onnxruntime both times, and must be the same.
    """
    if question.engine == "host":
        return Tolerance(0, "element")
    each = [OPERATORS[node.op_type].tolerance for node in question.nodes if node.op_type in OPERATORS]
    inexact = [tolerance for tolerance in each if tolerance.c]
    if not inexact:
        return Tolerance(0, "element")
    return Tolerance(sum(each.c for each in inexact), max((each.scale for each in inexact), key=_WIDTH.__getitem__))


def compare(emulated: Array, expected: Array, tolerance: Tolerance, scale: Array | float) -> Comparison:
    """Compare a value with what it should be; NaN equals NaN, infinities must be the same.

    Args:
        emulated: what the emulator made.
        expected: what onnxruntime made, of the same shape.
        tolerance: how far they may be apart.
        scale: what the tolerance is relative to, see :func:`scale_of`.
    """
    same = emulated == expected
    if expected.dtype.kind == "f":
        same |= np.isnan(emulated) & np.isnan(expected)
    if same.all():
        return Comparison(0, 0.0, None)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = np.abs(emulated.astype(np.float64) - expected.astype(np.float64))
        bound = np.broadcast_to(tolerance.c * UNIT * np.asarray(scale, np.float64), expected.shape)
        good = same | (apart <= bound)
        units = np.where(same, 0.0, apart / (UNIT * np.asarray(scale, np.float64)))
    error = float(np.max(units, initial=0.0))
    if good.all():
        return Comparison(0, error, None)
    place = np.unravel_index(int(np.argmin(good)), good.shape)
    index = tuple(int(each) for each in place)
    first = Difference(index, float(emulated[place]), float(expected[place]), float(bound[place]))
    return Comparison(int(good.size - np.count_nonzero(good)), error, first)


def scale_of(question: Question, tolerance: Tolerance, expected: Array, values: Mapping[str, Array]) -> Array | float:
    """Return what a tolerance is relative to, for each element of `expected`.

    `values` holds what the question's summing node reads.
    """
    if expected.dtype.kind != "f":
        return 1.0
    magnitude: Array = np.abs(expected)
    if tolerance.scale == "unit":
        return np.maximum(magnitude, 1)
    if tolerance.scale == "row" and expected.ndim:
        return np.asarray(magnitude.max(axis=-1, keepdims=True, initial=0.0))
    node = summed(question) if tolerance.scale == "sum" else None
    if node is not None:
        magnitude = np.maximum(magnitude, _magnitudes(node, values).reshape(expected.shape))
    return np.maximum(magnitude, _SMALLEST)


def _magnitudes(node: ir.Node, values: Mapping[str, Array]) -> Array:
    """Return the sum of the magnitudes that a node adds up for each of its results."""
    if node.op_type == "LayerNormalization":
        return _centred(node, values)
    first = np.abs(_operand(node, 0, values))
    if node.op_type == "CumSum":
        return np.asarray(np.cumsum(first, axis=-1, dtype=np.float64))
    if node.op_type == "AveragePool":  # no window adds up more than so many times the greatest
        return np.full(shape_of(node.outputs[0]), first.max(initial=0.0))
    if node.op_type == "MatMul":
        return np.asarray(np.matmul(first, np.abs(_operand(node, 1, values))))
    axes = reduced_axes(node)
    mean = node.op_type in ("ReduceMean", "GlobalAveragePool")
    return np.asarray(first.mean(axis=axes, dtype=np.float64) if mean else first.sum(axis=axes, dtype=np.float64))


def _centred(node: ir.Node, values: Mapping[str, Array]) -> Array:
    """Return max |x| / deviation * |scale| + |bias| of a layer normalisation: its mean is as exact as its largest x."""
    x = _operand(node, 0, values).astype(np.float64)
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + node.attributes.get_float("epsilon", 1e-5))
    result = np.abs(x).max(axis=-1, keepdims=True, initial=0.0) / deviation * np.abs(_operand(node, 1, values))
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    return np.asarray(result + np.abs(_operand(node, 2, values)) if has_bias else result)


def _operand(node: ir.Node, place: int, values: Mapping[str, Array]) -> Array:
    value = node.inputs[place]
    assert value is not None
    return value.const_value.numpy() if value.const_value is not None else values[str(value.name)]

"""Makers of random graphs: arithmetic, functions, reductions. Each adds an operator, or a few that belong together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tests.backend.graphs import BOUND, MOST_ELEMENTS, ONNX_TYPES, Draft, Maker, Shape, Value

COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")


def partner(draft: Draft, value: Value) -> tuple[str, Shape, float, bool]:
    """Return a second operand of a value: (name, shape of the result, bound, exact)."""
    others = [each for each in draft.values if each.dtype == value.dtype and _fits(each.shape, value.shape)]
    if others and draft.chance(0.5):
        other = others[draft.below(len(others))]
        return other.name, np.broadcast_shapes(other.shape, value.shape), other.bound, other.exact
    shape = tuple(1 if draft.chance(0.3) else size for size in value.shape)
    shape = shape[draft.below(len(shape) + 1) :]
    if draft.chance(0.25):
        shape = (1,) * draft.below(2)
    if draft.chance(0.3) and len(draft.inputs) < 5:
        name = draft.input(value.dtype, shape).name
    else:
        name = draft.constant(draft.array(value.dtype, shape))
    return name, np.broadcast_shapes(shape, value.shape), 4.0, True


def _fits(a: Shape, b: Shape) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= MOST_ELEMENTS
    except ValueError:
        return False


def arithmetic(draft: Draft) -> Value:
    """Two numbers added, subtracted, multiplied, or the greater or smaller of them."""
    a = draft.pick("f f f i8 i4")
    op = draft.one_of(["Add", "Sub", "Mul", "Max", "Min"] if a.dtype == "f" else ["Add", "Sub", "Mul"])
    name, shape, other, exact = partner(draft, a)
    bound = a.bound * other if op == "Mul" else a.bound + other
    if bound > BOUND:
        return draft.tamed(a, bound)
    names = [a.name, name] if draft.chance(0.5) else [name, a.name]
    return draft.node(op, names, Value("", a.dtype, shape, bound, a.exact and exact))


def division(draft: Draft) -> Value:
    """A float over a constant, or a constant over |x| + 1."""
    a = draft.pick()
    if draft.chance(0.5):
        return draft.node(
            "Div", [a.name, draft.constant(np.float32(draft.one_of([0.3, 3, -7])))], replace(a, bound=a.bound * 4)
        )
    size = draft.node("Abs", [a.name], a)
    one = draft.node("Add", [size.name, draft.constant(np.float32(1))], replace(a, bound=a.bound + 1))
    top = draft.constant(draft.array("f", a.shape[-1:]))
    return draft.node("Div", [top, one.name], replace(a, bound=4.0))


def comparison(draft: Draft) -> Value:
    """A truth value of two exact numbers."""
    a = draft.pick("f f i8 i4", exact=True)
    name, shape, _, exact = partner(draft, a)
    if not exact:
        name, shape = draft.constant(draft.array(a.dtype, ())), a.shape
    names = [a.name, name] if draft.chance(0.5) else [name, a.name]
    return draft.node(draft.one_of(COMPARISONS), names, Value("", "b", shape, 1.0))


def logic(draft: Draft) -> Value:
    """Truth values joined or turned round."""
    a = draft.pick("b")
    if draft.chance(0.3):
        return draft.node("Not", [a.name], a)
    name, shape, _, _ = partner(draft, a)
    return draft.node(draft.one_of(["And", "Or", "Xor"]), [a.name, name], Value("", "b", shape, 1.0))


def where(draft: Draft) -> Value:
    """One of two by a truth value."""
    a = draft.pick("f f i8 i4")
    condition, shape, _, _ = partner(draft, replace(a, dtype="b"))
    other = Value("", a.dtype, shape, a.bound, a.exact)
    name, shape, bound, exact = partner(draft, other)
    names = [a.name, name] if draft.chance(0.5) else [name, a.name]
    if draft.chance(0.15):
        names, shape, bound, exact = [a.name, a.name], np.broadcast_shapes(a.shape, other.shape), a.bound, True
    return draft.node("Where", [condition, *names], Value("", a.dtype, shape, max(a.bound, bound), a.exact and exact))


def exact_function(draft: Draft) -> Value:
    """A function of one number whose result has one right bit pattern."""
    op = draft.one_of(["Neg", "Abs", "Relu", "LeakyRelu", "Sign", "Floor", "Ceil", "Round", "Clip"])
    a = draft.pick("f f f i8 i4" if op == "Neg" else "f", exact=op in ("Sign", "Floor", "Ceil", "Round"))
    if op == "Clip":
        low, high = (draft.constant(np.float32(each)) if draft.chance(0.7) else "" for each in (-1.5, 2.0))
        return draft.node(op, [a.name, low, high], a)
    return draft.node(op, [a.name], replace(a, bound=a.bound + 1))


def cast(draft: Draft) -> Value:
    """A conversion between element types."""
    a, to = draft.pick("f i8 i4 b", exact=True), draft.one_of(["f", "i8", "i4", "b"])
    return draft.node("Cast", [a.name], Value("", to, a.shape, a.bound), to=ONNX_TYPES[to])


def smooth_function(draft: Draft) -> Value:
    """A function whose result is only close; its operand is within 4."""
    a = draft.pick()
    a = draft.tamed(a, a.bound * BOUND / 5)
    op = draft.one_of(
        ["Exp", "Tanh", "Sigmoid", "Erf", "Gelu", "Softplus", "Sin", "Cos", "HardSwish", "HardSigmoid", "Sqrt", "Log"]
    )
    if op in ("Sqrt", "Log"):
        a = draft.node("Abs", [a.name], a)
        a = draft.node("Add", [draft.constant(np.float32(1)), a.name], a)
    return draft.node(op, [a.name], replace(a, bound=60.0, exact=False))


def reduction(draft: Draft) -> Value:
    """A reduction over the last axes, sometimes over others."""
    a = draft.pick(least_rank=1)
    op = draft.one_of(["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"])
    rank = len(a.shape)
    first = draft.below(rank)
    axes = list(range(first, rank)) if draft.chance(0.9) else [first]
    keep = draft.below(2)
    shape = tuple(1 if i in axes else size for i, size in enumerate(a.shape) if keep or i not in axes)
    factor = math.prod(a.shape) if op == "ReduceSum" else 1
    if a.bound * factor > BOUND:
        return draft.tamed(a, BOUND * 2)
    exact = a.exact and op in ("ReduceMax", "ReduceMin")
    given = [axis - rank if draft.chance(0.5) else axis for axis in axes]
    if op == "ReduceSum" or draft.chance(0.7):
        return draft.node(
            op, [a.name, draft.ints(*given)], Value("", "f", shape, a.bound * factor, exact), keepdims=keep
        )
    shape = tuple(1 for _ in a.shape) if keep else ()
    return draft.node(op, [a.name], Value("", "f", shape, a.bound, exact), keepdims=keep)


def normalisation(draft: Draft) -> Value:
    """Softmax or a layer normalisation over the last axis."""
    a = draft.pick(least_rank=1)
    a = draft.tamed(a, a.bound * BOUND / 10)
    if draft.chance(0.5) or a.shape[-1] < 4:
        return draft.node("Softmax", [a.name], replace(a, bound=1.0, exact=False), axis=-1)
    scale, bias = (draft.constant(draft.array("f", a.shape[-1:])) for _ in range(2))
    names = [a.name, scale, bias] if draft.chance(0.5) else [a.name, scale]
    return draft.node("LayerNormalization", names, replace(a, bound=40.0, exact=False), axis=-1, epsilon=0.1)


def quantisation(draft: Draft) -> Value:
    """Exact numbers as int8 or uint8 codes, by a constant scale or one made at run time, and back to whole numbers."""
    a = draft.pick(exact=True)
    dtype, zero = (np.int8, -3) if draft.chance(0.5) else (np.uint8, 7)
    scale = draft.constant(np.float32(0.37))
    if draft.chance(0.5):
        given = draft.input("f", ())
        size = draft.node("Abs", [given.name], given)
        scale = draft.node("Add", [size.name, scale], size).name
    inputs = [a.name, scale, draft.constant(np.asarray(draft.one_of([0, zero]), dtype))]
    codes = draft.node("QuantizeLinear", inputs, replace(a, dtype="code"))
    return draft.node("Cast", [codes.name], replace(a, dtype="i4", bound=255.0), to=ONNX_TYPES["i4"])


ROWS: tuple[Maker, ...] = (
    arithmetic,
    arithmetic,
    arithmetic,
    division,
    comparison,
    logic,
    where,
    exact_function,
    cast,
    smooth_function,
    reduction,
    reduction,
    normalisation,
    quantisation,
)

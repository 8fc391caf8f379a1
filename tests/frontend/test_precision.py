"""Half and double precision: the graph becomes float32, its inputs and outputs stay what they were where they can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import flexc
from flexc.frontend.load import load
from flexc.frontend.precision import NARROWED, NARROWED_KEY
from flexc.passes.session import Session

Build = Callable[..., onnx.ModelProto]
LAYERS = """g (T[2,6] x) => (T[2,5] y) {
  h = MatMul(x, w)  b = Add(h, c)  s = Cast<to = 1>(b)  r = Sigmoid(s)  l = CastLike(r, w)  m = Mul(l, two)
  n = ReduceMean<keepdims = 1>(m, axes)  y = Sub(m, n)
}"""
TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64}


def model(build: Build, name: str) -> onnx.ModelProto:
    kind: Any = TYPES[name]
    rng = np.random.default_rng(0)
    text = LAYERS.replace("T[", f"{name}[")
    given = {"w": rng.standard_normal((6, 5)), "c": rng.standard_normal(5), "two": np.array(2.0)}
    return build(text, axes=np.array([1]), **{each: array.astype(kind) for each, array in given.items()})


def values(graph: ir.Model) -> list[ir.Value]:
    made = [value for node in graph.graph for value in node.outputs]
    return [*graph.graph.inputs, *graph.graph.initializers.values(), *made]


@pytest.mark.parametrize("name", TYPES)
def test_what_is_computed_is_float32(build: Build, name: str) -> None:
    loaded = load(model(build, name))
    (source,), (result,) = loaded.graph.inputs, loaded.graph.outputs
    interface = {source, result} if name == "float16" else set()
    assert {value for value in values(loaded) if value.dtype in NARROWED} == interface
    assert source.dtype == result.dtype == (ir.DataType.FLOAT16 if name == "float16" else ir.DataType.FLOAT)
    assert loaded.metadata_props[NARROWED_KEY] == name
    assert (source.name, result.name) == ("x", "y")


def test_numbers_are_those_of_onnxruntime_but_for_rounding(build: Build) -> None:
    import onnxruntime

    file = model(build, "float16")
    x = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float16)
    (result,) = Session(load(file)).run({"x": x}).values()
    expected = onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"x": x})[0]
    assert result.dtype == expected.dtype == np.float16
    np.testing.assert_allclose(result, expected, atol=4e-3)


@pytest.mark.parametrize("name", TYPES)
def test_compiled_and_checked(build: Build, name: str) -> None:
    program = flexc.compile(model(build, name))
    assert {op.engine for op in program.image.debug.ops} <= {"array", "vector", "dma"}
    kind = np.float16 if name == "float16" else np.float32
    x = np.random.default_rng(1).standard_normal((2, 6)).astype(kind)
    verdict = program.check({"x": x})
    assert verdict.passed, verdict.line()
    assert program.run({"x": x}).outputs["y"].dtype == kind


def test_constants_are_computed_in_their_own_precision(build: Build) -> None:
    """A third in double, times three, is one; of float32 it would be 1.0000000298."""
    third = np.array(1 / 3)
    text = "g (double[1] x) => (double[1] y) { a = Mul(t, k)  b = Sub(a, o)  c = Mul(b, huge)  y = Add(x, c) }"
    given = {"t": third, "k": np.array(3.0), "o": np.array(1.0), "huge": np.array(1e12)}
    loaded = load(build(text, **given))
    (result,) = Session(loaded).run({"x": np.zeros(1, np.float32)}).values()
    assert result == [0]


def test_inside_branches(build: Build) -> None:
    text = """g (float16[3] x, bool c) => (float16[3] y) {
      y = If(c)<then_branch = t () => (float16[3] a) { a = Mul(x, k) },
                else_branch = e () => (float16[3] b) { d = Cast<to = 10>(x)  b = Add(d, k) }>
    }"""
    loaded = load(build(text, k=np.array(2, np.float16)))
    x = np.array([1, 2, 3], np.float16)
    for flag, expected in ((True, x * 2), (False, x + 2)):
        (result,) = Session(loaded).run({"x": x, "c": np.array(flag)}).values()
        np.testing.assert_array_equal(result, expected)

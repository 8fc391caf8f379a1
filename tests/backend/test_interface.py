"""What goes in and comes out of a program: views, several outputs, values used twice, numbers without dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backend.models import check, engines

GRAPHS = {
    "an input is an output": "(float[2,3] x) => (float[] y) { y = Identity(x) }",
    "an output is a view of an input": "(float[2,3] x) => (float[] y) { y = Transpose(x) }",
    "outputs are views of one value": "(float[2,3] x) => (float[] y, float[] z) { y = Neg(x)  z = Transpose(y) }",
    "an output is used inside": "(float[2,3] x) => (float[] y, float[] z) { y = Neg(x)  z = Exp(y) }",
    "an output is used inside by a view": "(float[2,3] x) => (float[] y, float[] z) "
    "{ y = Neg(x)  t = Transpose(y)  z = Abs(t) }",
    "inputs that nothing reads": "(float[2,3] x, float[4] u) => (float[] y) { y = Neg(x) }",
    "the same operand twice": "(float[2,3] x) => (float[] y) { y = Mul(x, x) }",
    "the same operand twice, turned": "(float[3,3] x) => (float[] y) { t = Transpose(x)  y = Add(x, t) }",
    "the same operand in three places": "(float[2,3] x, bool[2,3] c) => (float[] y) "
    "{ z = Where(c, x, x)  y = Max(z, x, z) }",
    "a number": "(float x) => (float y) { z = Neg(x)  y = Mul(z, z) }",
    "a number and a tensor": "(float x, float[2,3] u) => (float[] y, float[] z) { y = Sub(u, x)  z = Sub(x, u) }",
    "dimensions of 1": "(float[1,1,3,1] x, float[1] u) => (float[] y) { y = Add(x, u) }",
    "dimensions of 1 on both sides": "(float[4,1] x, float[1,5] u) => (float[] y) { y = Add(x, u) }",
    "a number through the host": "(float[3] x) => (float[] y) <int64[1] a = {0}, float e = {2}>"
    "{ m = ReduceMax<keepdims = 0>(x, a)  z = Mod<fmod = 1>(m, e)  y = Add(z, x) }",
}


@pytest.mark.parametrize("form", GRAPHS)
@pytest.mark.parametrize("machine", ["edge", "server"])
def test_graphs(form: str, machine: str) -> None:
    check(GRAPHS[form], machine, exact="Exp" not in GRAPHS[form])


def test_views_of_a_constant() -> None:
    check(
        "(float[3,2] x) => (float[] y) { t = Transpose(c)  y = Add(x, t) }",
        c=np.arange(6, dtype=np.float32).reshape(2, 3),
    )


def test_constants_of_every_size() -> None:
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (1, 1), (4,), (3, 1), (3, 4), (2, 1, 1), (2, 3, 4)):
        check("(float[2,3,4] x) => (float[] y) { y = Add(c, x) }", c=rng.integers(-9, 9, shape).astype(np.float32))


def test_a_constant_output_comes_out() -> None:
    check("(float[2] x) => (float[] y, float[] z) { y = Neg(c)  z = Neg(x) }", c=np.ones(2, np.float32))


WHOLE = {
    "sum": "Add(x, u)",
    "difference": "Sub(u, x)",
    "product": "Mul(x, u)",
    "negated": "Neg(x)",
    "compared": "LessOrEqual(x, u)",
    "with a number": "Add(x, three)",
    "with a number from the left": "Sub(three, x)",
    "with a number too large for an immediate": "Add(x, large)",
    "compared with a number too large for an immediate": "Equal(x, large)",
    "as floats": "Cast<to = 1>(x)",
    "as truth values": "Cast<to = 9>(x)",
    "as bytes": "Cast<to = 3>(x)",
    "to another width": "Cast<to = 6>(x)",
    "picked": "Where(c, x, u)",
    "picked or a number": "Where(c, three, u)",
    "picked between numbers": "Where(c, three, large)",
}
RESULTS = {"compared": "bool", "compared with": "bool", "as floats": "float", "as truth": "bool", "as bytes": "int8"}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("form", WHOLE)
def test_whole_numbers(form: str, dtype: str) -> None:
    kind = np.dtype(dtype)
    result = next((to for start, to in RESULTS.items() if form.startswith(start)), dtype)
    result = "int32" if "Cast<to = 6>" in WHOLE[form] else result
    program = check(
        f"({dtype}[3,4] x, {dtype}[4] u, bool[3,1] c) => ({result}[] y) {{ y = {WHOLE[form]} }}",
        three=np.array(3, kind),
        large=np.array((1 << 24) + 1, kind),
    )
    assert "host" not in engines(program)


@pytest.mark.parametrize("op", ["And(x, u)", "Or(x, u)", "Xor(x, yes)", "Not(x)", "Cast<to = 9>(x)"])
def test_truth_values(op: str) -> None:
    check(f"(bool[3,4] x, bool[4] u) => (bool[] y) {{ y = {op} }}", yes=np.array(True))


def test_missing_optional_operands() -> None:
    low = np.array(-1, np.float32)
    check("(float[3,4] x) => (float[] y) { y = Clip(x, low) }", low=low)
    check("(float[3,4] x) => (float[] y) { z = Clip(x, , low)  y = Neg(z) }", low=low)
    check("(float[3,4] x) => (float[] y) { z = Clip(x)  y = Neg(z) }")

"""Row kernels: broadcasts, reductions, operands in any layout, rows of any length."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backend.compare import small_machine
from tests.backend.models import check, engines, reasons

EXACT = {
    "rows by one number each": "(float[6,5] x, float[6,1] u) => (float[] y) { y = Mul(x, u) }",
    "rows by one row": "(float[6,5] x, float[5] u) => (float[] y) { y = Mul(x, u) }",
    "both ways": "(float[2,3,4,5] x, float[3,1,5] u) => (float[] y) { y = Mul(x, u) }",
    "outer product": "(float[7,1] x, float[1,9] u) => (float[] y) { y = Mul(x, u) }",
    "turned operands": "(float[4,6] x, float[6,4] u) => (float[] y) { t = Transpose(x)  y = Add(t, u) }",
    "all turned alike": "(float[2,6,4] x) => (float[] y) "
    "{ t = Transpose<perm = [2, 0, 1]>(x)  r = Relu(t)  y = Add(r, t) }",
    "one turned, one repeated": "(float[6,5] x, float[6] u) => (float[] y) { t = Transpose(x)  y = Add(t, u) }",
    "backwards": "(float[4,6] x) => (float[] y) <int64[1] b = {-1}, int64[1] e = {-9}, int64[1] a = {1}>"
    "{ r = Slice(x, b, e, a, b)  y = Add(x, r) }",
    "both dimensions backwards": "(float[4,6] x) => (float[] y)"
    "<int64[2] b = {-1,-1}, int64[2] e = {-9,-9}, int64[2] a = {0,1}>"
    "{ r = Slice(x, b, e, a, b)  y = Relu(r) }",
    "repeated, nothing else": "(float[1,6] x) => (float[] y) <int64[2] s = {5,6}> { e = Expand(x, s)  y = Neg(e) }",
    "every other column": "(float[4,6] x) => (float[] y)"
    "<int64[1] b = {0}, int64[1] e = {9}, int64[1] a = {1}, int64[1] s = {2}>"
    "{ h = Slice(x, b, e, a, s)  y = Neg(h) }",
    "greatest of a row, kept": "(float[4,6] x) => (float[] y) <int64[1] a = {1}> "
    "{ m = ReduceMax(x, a)  y = Sub(x, m) }",
    "greatest of a row, dropped": "(float[4,6] x) => (float[] y) <int64[1] a = {-1}> "
    "{ y = ReduceMax<keepdims = 0>(x, a) }",
    "greatest of a row, worked on": "(float[4,6] x) => (float[] y) <int64[1] a = {-1}>"
    "{ m = ReduceMax<keepdims = 0>(x, a)  r = Relu(m)  y = Neg(r) }",
    "greatest of all": "(float[4,6] x) => (float[] y) { y = ReduceMax<keepdims = 0>(x) }",
    "greatest of two dimensions": "(float[3,4,6] x) => (float[] y) <int64[2] a = {1,2}> "
    "{ y = ReduceMin<keepdims = 0>(x, a) }",
    "greatest of what is repeated": "(float[4,1] x) => (float[] y) <int64[2] s = {4,6}, int64[1] a = {1}>"
    "{ e = Expand(x, s)  y = ReduceMax(e, a) }",
    "greatest of scattered dimensions": "(float[4,3,6] x) => (float[] y) <int64[2] a = {1,2}>"
    "{ t = Transpose<perm = [1, 0, 2]>(x)  y = ReduceMax(t, a) }",
    "two numbers a row from one another": "(float[4,6] x) => (float[] y) <int64[1] a = {1}, int64[1] u = {1}>"
    "{ m = ReduceMax<keepdims = 0>(x, a)  n = ReduceMin<keepdims = 0>(x, a)  d = Sub(m, n)"
    "  c = Unsqueeze(d, u)  y = Mul(x, c) }",
}


@pytest.mark.parametrize("form", EXACT)
@pytest.mark.parametrize("size", [(256, 4, 1), (8, 1, 1)], ids=str)
def test_exact(form: str, size: tuple[int, int, int]) -> None:
    program = check(EXACT[form], small_machine(*size))
    assert not reasons(program)


CLOSE = {
    "softmax": "(float[4,6] x) => (float[] y) { y = Softmax(x) }",
    "softmax of repeated rows": "(float[1,6] x) => (float[] y) <int64[2] s = {5,6}> "
    "{ e = Expand(x, s)  y = Softmax(e) }",
    "softmax of repeated columns": "(float[5,1] x) => (float[] y) <int64[2] s = {5,6}> "
    "{ e = Expand(x, s)  y = Softmax(e) }",
    "softmax of one number a row": "(float[4,6] x) => (float[] y) <int64[1] a = {1}>"
    "{ m = ReduceMax<keepdims = 0>(x, a)  y = Softmax(m) }",
    "softmax of a turned value": "(float[6,4] x) => (float[] y) { t = Transpose(x)  y = Softmax(t) }",
    "normalised": "(float[4,6] x, float[6] g, float[6] b) => (float[] y) { y = LayerNormalization(x, g, b) }",
    "normalised twice": "(float[4,6] x, float[6] g) => (float[] y)"
    "{ a = LayerNormalization(x, g)  b = Add(a, x)  y = LayerNormalization(b, g) }",
    "mean of two dimensions": "(float[3,4,6] x) => (float[] y) <int64[2] a = {1,2}> { y = ReduceMean(x, a) }",
    "product": "(float[2,4,6] x, float[2,6,3] u) => (float[] y) { y = MatMul(x, u) }",
    "product, batch repeated": "(float[2,1,4,6] x, float[3,6,5] u) => (float[] y) { y = MatMul(x, u) }",
    "product with itself turned": "(float[2,4,6] x) => (float[] y) "
    "{ t = Transpose<perm = [0, 2, 1]>(x)  y = MatMul(x, t) }",
    "heads": "(float[4,12] x) => (float[] y) <int64[3] s = {4,3,4}>"
    "{ r = Reshape(x, s)  q = Transpose<perm = [1,0,2]>(r)  k = Transpose<perm = [1,2,0]>(r)  p = MatMul(q, k)"
    "  a = Softmax(p)  o = MatMul(a, q)  y = Transpose<perm = [1,0,2]>(o) }",
}


@pytest.mark.parametrize("form", CLOSE)
@pytest.mark.parametrize("size", [(256, 4, 1), (8, 1, 1)], ids=str)
def test_close(form: str, size: tuple[int, int, int]) -> None:
    program = check(CLOSE[form], small_machine(*size), exact=False)
    assert not reasons(program)


@pytest.mark.parametrize("shape", ["5", "4,5", "2,3,5"])
@pytest.mark.parametrize("scale", ["", "[1]", "[4]"])
def test_quantised_by_a_scale_made_at_run_time(scale: str, shape: str) -> None:
    """One scale for all, or one for each of the four rows."""
    shape = "4,5" if scale == "[4]" else shape
    check(
        f"(float[{shape}] x, float{scale} g) => (uint8[] y)"
        "{ a = Abs(g)  s = Add(a, small)  y = QuantizeLinear<axis = 0>(x, s, z) }",
        small=np.array(0.37, np.float32),
        z=np.array({"": 7, "[1]": [7], "[4]": [7, 0, 200, 9]}[scale], np.uint8),
    )


def test_quantised_by_a_constant_scale() -> None:
    check(
        "(float[2,3,5] x) => (int8[] y) { y = QuantizeLinear(x, s, z) }",
        s=np.array(0.37, np.float32),
        z=np.array(-3, np.int8),
    )


@pytest.mark.parametrize("number", [0, -7])
def test_a_zero_point_of_one_number_for_all_rows_is_not_brought_from_memory(number: int) -> None:
    program = check(
        "(float[6,8] x, float[6] g) => (int8[] y) "
        "{ a = Abs(g)  s = Add(a, small)  y = QuantizeLinear<axis = 0>(x, s, z) }",
        small=np.array(0.5, np.float32),
        z=np.full(6, number, np.int8),
    )
    read = [each for each in program.code if each.values.get("space") == "const"]
    assert [each.word("dtype") for each in read if each.word("dtype") == "i8"] == []


def test_long_elementwise_rows_are_cut() -> None:
    program = check("(float[1,70000] x, float[70000] u) => (float[] y) { a = Add(x, u)  y = Relu(a) }", "edge")
    assert engines(program) == ["vector"]


def test_rows_too_long_for_the_buffer_go_to_the_host_with_a_reason() -> None:
    program = check("(float[2,50000] x) => (float[] y) { a = Relu(x)  y = Softmax(a) }", "edge", exact=False)
    assert engines(program) == ["vector", "host"]
    assert reasons(program) == "Softmax: a row of 50000 columns does not fit into the on-chip buffer"


def test_a_reduction_over_too_much_goes_in_steps() -> None:
    program = check("(float[2,300,300] x) => (float[] y) <int64[2] a = {1,2}> { y = ReduceMax(x, a) }", "edge")
    assert set(engines(program)) == {"vector"}


@pytest.mark.parametrize("columns", [4096, 8192])
@pytest.mark.parametrize("body", ["LayerNormalization(x, s, s)", "Softmax(x)"])
def test_rows_as_long_as_large_models_have_run_on_the_machine(columns: int, body: str) -> None:
    scale = np.linspace(0.5, 2, columns, dtype=np.float32)
    program = check(f"(float[3,{columns}] x) => (float[] y) {{ y = {body} }}", "edge", exact=False, s=scale)
    assert set(engines(program)) == {"vector"}


def test_a_row_that_is_too_long_goes_to_the_host_with_a_reason() -> None:
    program = check("(float[2,90000] x) => (float[] y) { y = Softmax(x) }", "edge", exact=False)
    assert reasons(program) == "Softmax: a row of 90000 columns does not fit into the on-chip buffer"


def test_long_chains_are_cut_into_kernels_that_have_the_streams_they_need() -> None:
    inputs = [f"float[3,{40}] x{i}" for i in range(40)]
    sums = " ".join(f"s{i + 1} = Add(s{i}, x{i + 1})" for i in range(39))
    program = check(f"({', '.join(inputs)}) => (float[] y) {{ s0 = Neg(x0) {sums} y = Neg(s39) }}")
    assert set(engines(program)) == {"vector"}
    assert len(program.debug.ops) > 1


def test_columns_of_an_operand_are_not_brought_again() -> None:
    text = """(float[1,5,8] x, float[1,5,8] c) => (float[] y) {
        a = Mul(x, c) l = Slice(x, zero, four, last) h = Slice(x, four, eight, last) n = Neg(h)
        t = Concat <axis = -1> (n, l) s = Mul(t, c) y = Add(a, s)
    }"""
    program = check(
        text, arrays={name: np.array([at]) for name, at in {"zero": 0, "four": 4, "eight": 8, "last": 2}.items()}
    )
    copies = [each for each in program.code if each.mnemonic == "copy"]
    assert len(copies) == 3  # x and c come, y goes

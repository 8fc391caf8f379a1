"""Data movement is exact in every form, and costs nothing where a view will do."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backend.models import check, engines

VIEWS = {
    "transpose": "y = Transpose<perm = [2, 0, 1]>(x)",
    "transpose, no order given": "y = Transpose(x)",
    "reshape": "y = Reshape(x, c1)",
    "slice": "y = Slice(x, c1, c2, c1)",
    "slice backwards": "y = Slice(x, last, first, c2, back)",
    "slice from the end": "y = Slice(x, back, last, c2)",
    "slice without axes": "y = Slice(x, ones, fours)",
    "slice with a step": "y = Slice(x, zero, last, c2, c2)",
    "unsqueeze": "y = Unsqueeze(x, ends)",
    "flatten": "y = Flatten<axis = 2>(x)",
    "pick from axis 1": "y = Gather<axis = 1>(x, scalar)",
    "pick the last of axis 2": "y = Gather<axis = 2>(x, minus)",
    "repeat": "y = Expand(x, five)",
    "two views in a row": "t = Transpose<perm = [0, 2, 1]>(x) y = Slice(t, c1, c2, c1)",
}
NUMBERS = {
    "c1": [1],
    "c2": [2],
    "zero": [0],
    "ones": [1, 1],
    "fours": [4, 4],
    "last": [9],
    "first": [-9],
    "back": [-2],
    "ends": [0, 4],
    "five": [5, 3, 4, 6],
    "scalar": 2,
    "minus": -1,
}


def constants(text: str) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return those of ``NUMBERS`` that a graph names; the target of a reshape is worked out by ONNX."""
    return {
        name: np.array(numbers, np.int64)
        for name, numbers in NUMBERS.items()
        if f" {name}" in text or f"({name}" in text
    }


@pytest.mark.parametrize("dtype", ["float", "int64", "bool"])
@pytest.mark.parametrize("form", VIEWS)
def test_views(form: str, dtype: str) -> None:
    text = VIEWS[form].replace("Reshape(x, c1)", "Reshape(x, flat)")
    arrays = constants(text) | ({"flat": np.array([6, -1, 2], np.int64)} if "flat" in text else {})
    program = check(f"({dtype}[3,4,6] x) => ({dtype}[] y) {{ {text} }}", arrays=arrays)
    assert not engines(program)


def test_a_reshape_across_a_turned_value_is_a_copy() -> None:
    program = check("(float[3,4] x) => (float[] y) <int64[1] s = {-1}> { t = Transpose(x)  y = Reshape(t, s) }")
    assert engines(program) == ["dma"]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_of_a_value_twice_and_a_constant(axis: int) -> None:
    check(
        f"(float[4,4] x) => (float[] y) {{ y = Concat<axis = {axis}>(x, c, x) }}",
        c=np.full((4, 4), 0.1, np.float32),
    )


def test_concat_within_rows_of_what_is_repeated_and_of_a_number() -> None:
    """Operands with one column in memory and several, or one, in the graph."""
    check(
        "(float[3,1] x) => (float[] y) <int64[2] wide = {3, 4}>"
        "{ r = Relu(x)  e = Expand(x, wide)  z = Concat<axis = 1>(r, e, n)  y = Neg(z) }",
        n=np.full((3, 1), 0.25, np.float32),
    )
    check(
        "(float[1,5] x) => (float[] y) { r = Relu(x)  y = Concat<axis = 1>(r, n, r) }",
        n=np.full((1, 1), 0.25, np.float32),
    )


def test_split_into_unequal_parts() -> None:
    check(
        "(float[3,7] x) => (float[] a, float[] b, float[] c) <int64[3] parts = {1, 4, 2}>"
        "{ a, b, c = Split<axis = 1>(x, parts) }"
    )


TABLES = {
    "as it is": ("float[6,5] x", "x"),
    "turned": ("float[5,6] x", "t"),
    "backwards": ("float[6,5] x", "b"),
    "scattered": ("float[6,2,5] x", "s"),
}


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("index", [[3], [[0, -1], [5, -6]]])
def test_gather_from_tables_in_any_layout(form: str, index: list[int]) -> None:
    given, table = TABLES[form]
    make = {
        "x": "",
        "t": "t = Transpose(x)",
        "b": "b = Slice(x, back, first, zero, back)",
        "s": "s = Transpose<perm = [0, 2, 1]>(x)",
    }[table]
    numbers = {"back": [-1], "first": [-9], "zero": [0]} if table == "b" else {}
    check(
        f"({given}) => (float[] y) {{ {make} g = Gather({table}, i)  y = Neg(g) }}",
        i=np.array([*index, *index], np.int64),
        arrays={name: np.array(each, np.int64) for name, each in numbers.items()},
    )


def test_gather_by_scattered_indices() -> None:
    check(
        "(int64[3,4] x) => (float[] y) { small = Mod(x, five)  i = Transpose(small)  y = Gather(table, i) }",
        five=np.array(5, np.int64),
        table=np.arange(15, dtype=np.float32).reshape(5, 3),
    )

"""Rows that a mask chooses: computed for all, added up for the chosen; anything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from flexc.frontend.load import load
from flexc.isa.errors import FlexcError
from flexc.passes.session import Session

Array = npt.NDArray[Any]
Build = Callable[..., onnx.ModelProto]
Run = Callable[..., list[Any]]

#: One expert of a mixture as exporters unroll it; BODY works on the rows h [chosen, 6].
EXPERT = """g (float[5,6] x, int64[MASK] c, float[5,6] y0) => (float[] y)
  <int64 one = {1}, int64[1] ax = {1}, int64[1] last = {-1}, int64[2] cut = {1, 1}, float[6,6] w = {WEIGHTS}> {
  m = Equal(c, one)  z = NonZero(m)  p = Transpose<perm = [1, 0]>(z)
  PICK
  BODY
  PUT
}"""
PICK_ONE = "t = Identity(p)  h = GatherND(x, t)"
PICK_TWO = "t, j = Split<axis = 1>(p, cut)  s = Squeeze(t, ax)  h = Gather(x, s)"
ADD = 'y = ScatterND<reduction = "add">(y0, t, u)'
BODIES = {
    "elementwise": "a = Sigmoid(h)  u = Mul(a, h)",
    "linear": "a = MatMul(h, w)  b = Softmax(a)  u = Sub(b, h)",
    "a number a row": "a = ReduceMax(h, ax)  u = Div(h, a)",
    "joined and cut": "a = Concat<axis = 1>(h, h)  u, v = Split<axis = 1, num_outputs = 2>(a)",
}
MASKS = {"one choice": ("5", PICK_ONE), "two choices": ("5,2", PICK_TWO), "experts first": ("2,5", PICK_TWO)}


def expert(build: Build, body: str, mask: str = "5", pick: str = PICK_ONE, put: str = ADD) -> onnx.ModelProto:
    numbers = ", ".join(str(each) for each in np.random.default_rng(0).integers(-9, 9, 36) / 4)
    text = EXPERT
    for key, value in {"MASK": mask, "PICK": pick, "BODY": body, "PUT": put, "WEIGHTS": numbers}.items():
        text = text.replace(key, value)
    return build(text)


def compare(model: onnx.ModelProto, run: Run, choices: Array) -> None:
    rng = np.random.default_rng(1)
    feeds: dict[str, Array] = {name: rng.standard_normal((5, 6)).astype(np.float32) for name in ("x", "y0")}
    feeds["c"] = choices
    (result,) = Session(load(model)).run(feeds).values()
    np.testing.assert_allclose(result, run(model, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("mask", MASKS)
def test_chosen_rows(mask: str, body: str, build: Build, run: Run) -> None:
    """As few as none and as many as all; with two choices a row may even be chosen twice."""
    shape, pick = MASKS[mask]
    if mask == "experts first":
        pick = pick.replace("t, j =", "j, t =")
    model = expert(build, BODIES[body], shape, pick)
    dims = [int(size) for size in shape.split(",")]
    for choices in (np.zeros(dims, np.int64), np.ones(dims, np.int64), np.random.default_rng(2).integers(0, 2, dims)):
        compare(model, run, choices)


def test_rows_put_in_place(build: Build, run: Run) -> None:
    """ScatterElements without ``add``, as older exporters write index_add."""
    put = "q = Shape(h)  e = Expand(t, q)  y = ScatterElements<axis = 0>(y0, e, u)"
    model = expert(build, BODIES["linear"], "5,2", PICK_TWO, put)
    for row in range(1, 5):
        choices = np.zeros((5, 2), np.int64)
        choices[row, row % 2] = 1
        choices[0, 1] = 1
        compare(model, run, choices)


def test_sums_are_written_as_the_operator_set_has_them(build: Build, run: Run) -> None:
    """Until 17 the axes of ReduceMax are an attribute, those of ReduceSum are not."""
    model = expert(build, BODIES["elementwise"], put="y = ScatterND(y0, t, u)")
    model.opset_import[0].version = 17
    compare(model, run, np.array([1, 0, 1, 1, 0]))


@pytest.mark.parametrize(
    "body",
    [
        "a = ReduceMean<keepdims = 1>(h, zero)  u = Sub(h, a)",
        "a = Softmax<axis = 0>(h)  u = Mul(a, h)",
        "a = Transpose(h)  b = MatMul(h, a)  u = MatMul(b, h)",
        "a = CumSum(h, zero_)  u = Mul(a, h)",
        "a = Shape<start = 0, end = 1>(h)  b = Cast<to = 1>(a)  u = Div(h, b)",
    ],
)
def test_rows_that_know_of_each_other_are_refused(body: str, build: Build) -> None:
    text = body.replace("(h, zero)", "(h, ax0)").replace("zero_", "none")
    model = expert(build, f"ax0 = Constant<value_ints = [0]>()  none = Constant<value_int = 0>()  {text}")
    with pytest.raises(FlexcError, match="depends on run-time data"):
        load(model)


def test_the_places_themselves_are_refused_as_output(build: Build) -> None:
    for text in ("y = NonZero(x)", "z = NonZero(x)  y = Transpose(z)"):
        with pytest.raises(FlexcError, match="depends on run-time data"):
            load(build(f"g (float[4] x) => (int64[a,b] y) {{ {text} }}"))


def test_rows_taken_apart_by_a_number_known_beforehand_are_refused(build: Build) -> None:
    """Exporters that trace write down how many rows the example chose."""
    text = "g (float[4] x) => (int64[1,1] y) <int64[2] n = {1, 1}> { z = NonZero(x)  y, u = Split<axis = 1>(z, n) }"
    with pytest.raises(FlexcError, match=r"NonZero.*depends on run-time data, and 'Split'") as caught:
        load(build(text))
    assert "batched_mm" in str(caught.value)

"""Sinking: what is only read slice by slice is computed slice by slice, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.load import load
from flexc.passes.session import Session
from flexc.passes.sink import sink
from tests.backend.models import parsed, random_feeds
from tests.backend.turn_makers import Array, indices, stacked, unrolled

TURNS = 6
SCAN = (
    "x{t} = Gather<axis = 1>(d, i{t})  k{t} = Gather<axis = 1>(b, i{t})  m{t} = Mul(x{t}, {h})  h{t} = Add(m{t}, k{t})"
)
HEAD = f"(float[2,{TURNS},4,1] v, float[2,4,3] z, float[{TURNS},1,3] w) => (float[] y)"
MADE = "r = Mul(v, a)  d = Exp(r)  b = Sub(v, w)"


def sunk(made: str, axes: str = "", scan: str = SCAN) -> tuple[ir.Model, int]:
    """Return the graph of a scan over what ``made`` makes once it has been sunk, compared with onnxruntime before."""
    text = f"{HEAD} {{ {made} {unrolled(TURNS, scan, {'h': 'z'})} {axes} y = {stacked(TURNS, 'h', 1)} }}"
    constants: dict[str, Array] = {**indices(TURNS), "a": np.array([[[[1, 2, 3]]]], np.float32) / 8}
    proto = parsed(text, **constants)
    feeds = {name: array[0] for name, array in random_feeds(proto).items()}
    model = load(proto)
    expected = Session(model).run(feeds)
    number = sink(model)
    for name, value in Session(model).run(feeds).items():
        np.testing.assert_array_equal(value, expected[name])
    return model, number


def made_by(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_what_grows_is_computed_in_the_turns() -> None:
    model, number = sunk(MADE)
    assert number == 3
    assert made_by(model).count("Exp") == TURNS
    assert all(len(value.shape or ()) == 3 for node in model.graph if node.op_type == "Exp" for value in node.outputs)


@pytest.mark.parametrize(
    ("made", "number"),
    [
        ("r = Mul(v, a)  d = Exp(r)  b = Identity(d)", 0),  # one tensor read twice: every slice would be made twice
        ("r = Concat<axis = 3>(v, v, v)  d = Exp(r)  b = Sub(v, w)", 1),  # no larger than what it reads
    ],
)
def test_what_is_left(made: str, number: int) -> None:
    assert sunk(made)[1] == number


def test_a_slice_that_is_missing_keeps_all() -> None:
    assert sunk(MADE, scan=SCAN.replace("Gather<axis = 1>(d, i{t})", "Gather<axis = 1>(d, i0)"))[1] == 1

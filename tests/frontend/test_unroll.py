"""Scan and Loop become their turns: the same values, no subgraphs; what cannot is left alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from flexc.frontend.load import load
from flexc.isa.machine import load_machine
from flexc.passes.session import Session
from tests.backend.compare import assert_same
from tests.frontend.loop_models import Array, one_node, random, scan


def unrolled(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> ir.Model:
    """Load a model, compare its values with onnxruntime's for the file as it is, and return it."""
    loaded = load(model)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, dict(feeds))
    found = Session(loaded).run(dict(feeds))
    for output, value in zip(model.graph.output, expected, strict=True):
        np.testing.assert_allclose(found[output.name], value, rtol=1e-5, atol=1e-5, err_msg=output.name)
    return loaded


def ops(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


SUM = "(float[4] s, float[4] x) => (float[4] t, float[4] y) { t = Add(s, x)  y = Mul(t, x) }"
TWO = (
    "(float[2,3] s, float[1] n, float[2,3] x, float[3] u) => (float[2,3] t, float[1] m, float[2,3] y, float[1] z)"
    "{ a = Add(s, x)  t = Mul(a, u)  m = ReduceMax(t)  y = Sub(t, s)  z = Add(n, m) }"
)
SCANS = {
    "one state": ({"s": random(4), "x": random(6, 4, seed=1)}, SUM, 1, ["last", "all"], {}),
    "no state": (
        {"x": random(6, 4)}, "(float[4] x) => (float[4] y) { y = Abs(x) }", 1, ["all"], {},
    ),
    "backwards": (
        {"s": random(4), "x": random(6, 4, seed=1)}, SUM, 1, ["last", "all"],
        {"scan_input_directions": [1], "scan_output_directions": [1]},
    ),
    "only the input backwards": (
        {"s": random(4), "x": random(6, 4, seed=1)}, SUM, 1, ["last", "all"], {"scan_input_directions": [1]},
    ),
    "other axes": (
        {"s": random(4), "x": random(4, 6, seed=1)}, SUM, 1, ["last", "all"],
        {"scan_input_axes": [1], "scan_output_axes": [-1]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCANS)
def test_scan(name: str) -> None:
    inputs, body, scanned, outputs, attributes = SCANS[name]
    loaded = unrolled(scan(inputs, body, scanned, outputs, **attributes), inputs)
    assert "Scan" not in ops(loaded)


def test_scan_of_several_states_and_inputs() -> None:
    body = TWO.replace("ReduceMax(t)", "ReduceMax<keepdims = 0>(t)").replace("float[1]", "float")
    inputs = {
        "s": random(2, 3),
        "n": np.array(0.5, np.float32),
        "x": random(2, 5, 3, seed=1),
        "u": random(5, 3, seed=2),
    }
    model = scan(inputs, body, 2, ["t", "m", "y", "z"], scan_input_axes=[1, 0], scan_output_axes=[1, 0])
    assert "Scan" not in ops(unrolled(model, inputs))


def test_a_scan_runs_as_one_hardware_loop() -> None:
    inputs = {"s": random(4), "x": random(9, 4, seed=1)}
    model = scan(inputs, SUM, 1, ["last", "all"])
    feeds = {name: array[np.newaxis] for name, array in inputs.items()}
    program = assert_same(model, load_machine("edge"), feeds, {"last": True, "all": True})
    assert [op.reason for op in program.debug.ops if op.engine == "vector"] == ["a loop of 9 turns"]


def loop(
    body: str, states: dict[str, Array], outputs: list[str], trips: int | None, condition: bool | None = True
) -> onnx.ModelProto:
    """Return the model of one Loop; what is None is not given, or, for ``trips``, an input."""
    constants = {} if condition is None else {"go": np.array(condition)}
    if trips is not None:
        constants["trips"] = np.array(trips)
    inputs = ["trips" if trips is not None else "", "" if condition is None else "go", *states]
    node = helper.make_node("Loop", inputs, outputs, body=parser.parse_graph(f"body {body}"))
    return one_node(node, states, constants)


COUNT = (
    "(int64 i, bool go, float[3] s) => (bool on, float[3] t, float[3] y)"
    "{ on = Identity(go)  f = Cast<to = 1>(i)  t = Add(s, f)  y = Mul(t, s) }"
)


@pytest.mark.parametrize("condition", [True, None])
def test_loop(condition: bool | None) -> None:
    states = {"s": random(3)}
    assert "Loop" not in ops(unrolled(loop(COUNT, states, ["last", "all"], 5, condition), states))


def test_a_body_may_read_what_lies_outside_and_hold_branches() -> None:
    then = parser.parse_graph("then () => (float[3] a) { a = Add(s, w) }")
    other = parser.parse_graph("other () => (float[3] b) { b = Sub(s, w) }")
    body = parser.parse_graph("body (int64 i, bool go, float[3] s) => (bool on, float[3] t) { on = Identity(go) }")
    body.node.append(helper.make_node("Less", ["i", "three"], ["early"]))
    body.node.append(helper.make_node("If", ["early"], ["t"], then_branch=then, else_branch=other))
    node = helper.make_node("Loop", ["trips", "", "s"], ["last"], body=body)
    constants = {"trips": np.array(5), "three": np.array(3)}
    feeds = {"s": random(3), "w": random(3, seed=1)}
    loaded = unrolled(one_node(node, feeds, constants), feeds)
    assert ops(loaded) == {"Add", "Sub"}
    assert len(list(loaded.graph)) == 5


LAST = COUNT.replace(", float[3] y", "").replace("y = Mul(t, s)", "")
ENDS = LAST.replace("on = Identity(go)", "n = ReduceMax<keepdims = 0>(s)  on = Less(n, n)")


@pytest.mark.parametrize(
    ("body", "trips", "condition"), [(LAST, 5, False), (ENDS, 5, True), (LAST, 90_000, True)], ids=str
)
def test_a_loop_that_may_end_early_or_is_too_long_stays(body: str, trips: int, condition: bool) -> None:
    states = {"s": random(3)}
    assert "Loop" in ops(unrolled(loop(body, states, ["last"], trips, condition), states))


def test_constants_of_a_body_are_found() -> None:
    body = parser.parse_graph("body (float[4] s, float[4] x) => (float[4] t) { a = Add(s, c)  t = Mul(a, x) }")
    body.initializer.append(numpy_helper.from_array(random(4, seed=3), "c"))
    inputs = {"s": random(4), "x": random(5, 4, seed=1)}
    node = helper.make_node("Scan", ["s", "x"], ["last"], body=body, num_scan_inputs=1)
    assert "Scan" not in ops(unrolled(one_node(node, inputs), inputs))

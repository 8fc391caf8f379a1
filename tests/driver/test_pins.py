"""Pins: nodes run where the user wants them, results stay right, and impossible wishes are refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import flexc
from flexc.isa.errors import FlexcError, UsageError
from flexc.passes.pattern import NM
from flexc.passes.pins import Pin

from .conftest import Call, mlp_proto


def engines(program: flexc.Program) -> dict[str, str]:
    return {node: op.engine for op in program.image.debug.ops for node in op.nodes}


def feed(shape: tuple[int, ...] = (1, 3, 37)) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("engine", ["vector", "host"])
def test_a_linear_off_the_array_stays_float(engine: str) -> None:
    program = flexc.compile(mlp_proto(), pins=[f"first={engine}"])
    where = engines(program)
    assert where["first"] == engine
    assert where["second/multiply"] == "array"
    verdict = program.check(feed())
    assert (verdict.passed, verdict.array_ops) == (True, 1)


def test_the_last_pin_holds() -> None:
    program = flexc.compile(mlp_proto(), pins=["*=host", "second=array"])
    where = engines(program)
    assert (where["first"], where["second/multiply"], where["relu"]) == ("host", "array", "host")
    assert program.check(feed()).passed


def test_a_pattern_pins_the_products_that_it_names_to_the_array() -> None:
    where = engines(flexc.compile(mlp_proto(), pins=["*=host", "*=array"]))
    assert (where["first/multiply"], where["second/multiply"], where["relu"]) == ("array", "array", "host")


def test_all_on_the_host_gives_the_model_itself() -> None:
    program = flexc.compile(mlp_proto(), pins=["*=host"])
    assert set(engines(program).values()) == {"host"}
    assert program.check(feed()).passed


def test_weights_of_host_segments_travel_with_the_program(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(mlp_proto(), source, save_as_external_data=True, location="data.bin", size_threshold=0)
    flexc.compile(source, pins=["first=host"]).save(tmp_path / "p.fxc")
    (tmp_path / "data.bin").unlink()
    assert flexc.load(tmp_path / "p.fxc").check(feed()).passed


def test_products_of_activations_follow_pins() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[2,8,16] x) => (float[2,8,8] y)'
        " { t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t) }"
    )
    model.graph.node[1].name = "scores"
    for engine, ops in (("array", 1), ("vector", 0)):
        verdict = flexc.compile(model, pins=[f"sc*={engine}"]).check(feed((2, 8, 16)))
        assert (verdict.passed, verdict.array_ops) == (True, ops)


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        (["frist=host"], "no node has such a name\nhelp: did you mean 'first'?"),
        (["relu=array"], "'relu': Relu is no product that the array could compute"),
        (["relu=2:4"], "'relu': Relu has no weights that could be sparse"),
        (["nothing=host", "softmax=array"], "no node has such a name"),
    ],
)
def test_impossible_pins(pins: list[str], words: str) -> None:
    with pytest.raises(FlexcError) as raised:
        flexc.compile(mlp_proto(), pins=pins)
    assert words in str(raised.value)
    assert str(raised.value).count("--pin") == len(pins)  # all at once


@pytest.mark.parametrize("prune", [None, "none", "keep"])
def test_a_pattern_whatever_the_method(prune: str | None) -> None:
    program = flexc.compile(mlp_proto(), prune=prune, pins=["f*=2:4"])
    assert {op.name: op.nm for op in program.image.debug.ops if op.nm} == {"first": "2:4", "second": "dense"}
    assert program.check(feed()).passed


def test_pinned_linears_are_closed_to_the_method(tmp_path: Path) -> None:
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(2).standard_normal((4, 3, 37)).astype(np.float32))
    program = flexc.compile(mlp_proto(), prune="wanda", nm="4:8", calib=data, pins=["second=1:8", "first=dense"])
    assert {op.name: op.nm for op in program.image.debug.ops if op.nm} == {"first": "dense", "second": "1:8"}


def test_pinned_patterns_follow_the_inputs_where_there_are_data() -> None:
    """Wanda's metric keeps a small weight of a large input; magnitude does not."""
    import onnx_ir as ir

    from flexc.frontend.load import load
    from flexc.passes.calibrate import Statistics
    from flexc.passes.pins import apply_pins
    from flexc.passes.prune import write_pinned

    for sums, kept in ((None, 1), ({"l": np.array([[400.0, 1.0]])}, 0)):
        weight = np.array([[0.5], [1.0]], np.float32)
        text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,1] y) { y = MatMul(x, w) }'
        proto = onnx.parser.parse_model(text)
        proto.graph.node[0].name = "l"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        model: ir.Model = load(proto)
        apply_pins(model, [Pin("l", nm=NM(1, 2))])
        write_pinned(model, Statistics(1, sums) if sums else None)
        constant = next(iter(model.graph.initializers.values())).const_value
        assert constant is not None
        assert np.flatnonzero(constant.numpy()).tolist() == [kept]


def test_prune_takes_patterns_only(flexc: Call, tmp_path: Path) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "p.onnx"
    onnx.save(mlp_proto(), model)
    words = ("prune", model, "-o", out, "--method", "magnitude", "--nm", "4:8", "--json", "--pin")
    report = json.loads(flexc(*words, "second=dense").out)
    assert {row["name"]: row["nm"] for row in report["linears"]} == {"first": "4:8", "second": "dense"}
    refused = flexc(*words, "second=host")
    assert (refused.code, "pin engines in flexc compile" in refused.err) == (2, True)


@pytest.mark.parametrize("text", ["first", "=host", "first=cpu", "first=", "first=4:3", "first=a:b"])
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(UsageError, match=r"pin|N must|N:M"):
        Pin.parse(text)


def test_names_may_hold_equals_signs() -> None:
    assert Pin.parse("a=b=host") == Pin("a=b", "host")


def test_on_the_command_line(flexc: Call, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(mlp_proto(), model)
    done = flexc("compile", model, "-o", tmp_path / "m.fxc", "--pin", "second=host", "--json", "--per-node")
    rows = {row["node"]: row for row in json.loads(done.out)["nodes"]}
    assert rows["second"]["engine"] == "host"
    assert rows["second"]["reason"] == "pinned to the host"
    assert flexc("check", model, "--pin", "second=nowhere").code == 2

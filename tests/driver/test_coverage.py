"""``flexc check`` says before a compilation what the compilation then does."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import flexc as api
from flexc.compiler import Options
from flexc.coverage import coverage
from flexc.isa.program import Program
from tests.end_to_end.models import MODELS

from .conftest import Call, mlp_proto

HEAD = '<ir_version: 8, opset_import: ["": 18]>'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "mlp.onnx"
    onnx.save(mlp_proto(), path)
    return path


def engines(program: Program) -> dict[str, str]:
    """Return where a program's nodes run; row work behind an array kernel's products is the vector unit's."""
    return {
        node: "vector" if place >= len(op.nodes) - op.tail else op.engine
        for op in program.debug.ops
        for place, node in enumerate(op.nodes)
    }


def test_it_agrees_with_the_compilation(model: Path) -> None:
    found = {row.node: row.engine for row in coverage(model, Options()).nodes}
    assert found == {"first": "array", "bias": "array", "relu": "vector", "second": "array", "softmax": "vector"}
    compiled = engines(api.compile(model).image)
    assert compiled["first/multiply"] == "array"
    assert all(compiled.get(node, engine) == engine for node, engine in found.items())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_agrees_on_whole_models(name: str) -> None:
    proto = MODELS[name]()
    compiled = engines(api.compile(proto).image)
    for row in coverage(proto, Options()).nodes:
        if row.node in compiled:
            assert compiled[row.node] == row.engine
        elif row.engine == "none":
            assert not any(node.startswith(f"{row.node}/multiply") for node in compiled)


def test_the_command_writes_nothing(flexc: Call, model: Path) -> None:
    done = flexc("check", model)
    assert (done.code, done.err) == (0, "")
    assert "the machine runs all of it" in done.out
    assert [path.name for path in model.parent.iterdir()] == ["mlp.onnx"]


def test_json_holds_every_node(flexc: Call, model: Path) -> None:
    found = json.loads(flexc("check", model, "--json", "--pin", "relu=host").out)
    assert found["schema_version"] == 1
    assert found["nodes_by_engine"] == {"array": 3, "host": 1, "vector": 1}
    relu = next(row for row in found["nodes"] if row["node"] == "relu")
    assert (relu["engine"], relu["reason"]) == ("host", "pinned to the host")
    assert relu["remedy"] == "leave its --pin out"


def test_what_breaks_a_rule_is_told_the_rule(flexc: Call, tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name, dims in (("x", [4, 3]), ("y", [4]))]
    node = helper.make_node("ArgMax", ["x"], ["y"], name="first", axis=1, keepdims=0)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "whole.onnx"
    )
    (row,) = json.loads(flexc("check", tmp_path / "whole.onnx", "--per-node", "--json").out)["nodes"]
    assert row["engine"] == "host"
    assert row["remedy"].startswith("the machine runs ArgMax like this: float32, along the last axis")


@pytest.mark.parametrize("command", ["check", "compile"])
def test_what_onnxruntime_cannot_run_either_is_refused_before_there_is_a_program(
    flexc: Call, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "m.onnx"
    text = "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = other.Twice(x) z = other.Thrice(x) }"
    imports = '<ir_version: 8, opset_import: ["": 18, "other": 1]>'
    onnx.save(onnx.parser.parse_model(f"{imports} {text}"), path)
    done = flexc(command, path, *(["-o", tmp_path / "m.fxc"] if command == "compile" else []))
    assert done.code == 1
    assert done.err.count("error: ") == 2
    assert "neither the machine nor onnxruntime on the host runs it: other:Twice" in done.err
    assert not (tmp_path / "m.fxc").exists()


def test_all_that_cannot_be_compiled_is_named_at_once(flexc: Call, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    text = "a = NonZero(x) b = Unique(x) c = Relu(b) y = Relu(x)"
    interface = "(float[4,6] x) => (float[4,6] y, int64[2,N] a, float[M] c)"
    onnx.save(onnx.parser.parse_model(f"{HEAD} g {interface} {{ {text} }}"), path)
    done = flexc("check", path)
    assert done.code == 1
    assert done.err.count("error: ") == 2
    assert "(NonZero)" in done.err
    assert "(Unique)" in done.err

"""Linears that run together, as a user sees them: every report and command knows each by its own name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from .conftest import Call

GATE, UP, DOWN = (64, 96), (64, 96), (96, 64)


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    """A file with a gated block, x [128, 64]: down(silu(gate(x)) * up(x))."""
    rng = np.random.default_rng(0)
    shapes = {"gate": GATE, "up": UP, "down": DOWN}
    weights = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "gate.weight"], ["g"], name="gate"),
        helper.make_node("MatMul", ["x", "up.weight"], ["u"], name="up"),
        helper.make_node("Sigmoid", ["g"], ["s"], name="sigmoid"),
        helper.make_node("Mul", ["s", "g"], ["a"], name="silu"),
        helper.make_node("Mul", ["a", "u"], ["p"], name="product"),
        helper.make_node("MatMul", ["p", "down.weight"], ["y"], name="down"),
    ]
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [128, 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [128, 64])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "gated.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def test_every_layer_keeps_its_name(flexc: Call, gated: Path, tmp_path: Path) -> None:
    program = tmp_path / "gated.fxc"
    pins = ("--pin", "gate=2:4", "--pin", "up=1:4")
    report = json.loads(flexc("compile", gated, "-o", program, *pins, "--per-node", "--json").out)
    gate, up, down = report["layers"]
    assert [(each["name"], each["nm"], each["runs_as"]) for each in (gate, up)] == [
        ("gate", "2:4", "2:4"),
        ("up", "1:4", "2:4"),
    ]
    assert gate["macs"] == up["macs"] == 128 * 96 * 64 // 2
    assert [gate["columns"], up["columns"]] == [32, 32], "96 columns of each are 3 groups of a macro for each"
    assert gate["tile_writes"] == up["tile_writes"] > 0
    assert [gate["padding"], up["padding"], down["padding"]] == [0, 0, 0]
    why = {row["node"]: (row["engine"], row["reason"]) for row in report["nodes"]}
    assert why["gate/multiply"] == why["up/multiply"]
    assert "2 linears that read the same vectors run together" in why["up/multiply"][1]
    assert "the results of 'gate/multiply' and 'up/multiply'" in why["product"][1]

    ran = json.loads(flexc("run", program, "--random-inputs", "1", "--check", "--json").out)
    assert ran["check"]["passed"]
    assert ran["layers"][1]["name"] == "gate + up"
    assert ran["layers"][1]["nm"] == "2:4 + 1:4"


def test_each_name_finds_the_code(flexc: Call, gated: Path, tmp_path: Path) -> None:
    program = tmp_path / "gated.fxc"
    flexc("compile", gated, "-o", program)
    gate, up, both = (flexc("disasm", program, "--node", name).out for name in ("gate", "up", "gate + up"))
    assert up == both
    assert 'name="gate + up"' in up
    assert "  mac " in up
    assert set(up.splitlines()[1:]) < set(gate.splitlines()), "the vectors are quantised for the first"


def test_a_check_places_nodes_as_a_compilation_does(flexc: Call, gated: Path) -> None:
    rows = {row["node"]: row for row in json.loads(flexc("check", gated, "--json").out)["nodes"]}
    assert [rows[name]["engine"] for name in ("gate", "up", "product")] == ["array", "array", "vector"]
    assert "'gate/multiply' and 'up/multiply'" in rows["product"]["reason"]

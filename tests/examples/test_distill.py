"""The distillation example: its graphs compute what onnxruntime does, and training keeps the zeros. Needs torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

ROOT = Path(__file__).parents[2]
DECODER = ROOT / "tests" / "models" / "decoder.onnx"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "examples" / "distill")
    import distill
    import torch_graph

    return torch_graph, distill


def halved() -> onnx.ModelProto:
    """The decoder with the smaller half of each linear's weights zero."""
    model = onnx.load(DECODER)
    read = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    for item in model.graph.initializer:
        if item.name in read:
            array = numpy_helper.to_array(item)
            item.CopyFrom(numpy_helper.from_array(np.where(abs(array) < np.median(abs(array)), 0, array), item.name))
    return model


def test_a_graph_computes_what_onnxruntime_does(modules: tuple[Any, Any]) -> None:
    import torch

    model = onnx.load(DECODER)
    graph = modules[0].Graph(model, "cpu")
    tokens = np.random.default_rng(1).integers(0, 48, (5, *graph.shape))
    session = onnxruntime.InferenceSession(DECODER, providers=["CPUExecutionProvider"])
    expected = [session.run(None, {session.get_inputs()[0].name: window})[0] for window in tokens]
    found = torch.func.vmap(lambda window: graph.run(window, {}))(torch.from_numpy(tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def one_node(op: str, shape: list[int], constants: dict[str, Any], attributes: dict[str, Any]) -> onnx.ModelProto:
    """A model of one node that reads `x` and constants."""
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    node = helper.make_node(op, ["x", *constants], ["y"], **attributes)
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("y", None))
    )
    graph = helper.make_graph([node], op, [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


RANDOM = np.random.default_rng(3).standard_normal((6, 2, 3, 3)).astype(np.float32)
NODES: list[tuple[str, list[int], dict[str, Any], dict[str, Any]]] = [
    ("Conv", [1, 4, 9, 8], {"w": RANDOM, "b": RANDOM[:, 0, 0, 0]}, {"group": 2, "pads": [1, 0, 2, 1]}),
    ("Conv", [1, 2, 8, 9], {"w": RANDOM}, {"strides": [2, 1]}),
    ("Conv", [1, 2, 9], {"w": RANDOM[..., 0]}, {"dilations": [2], "pads": [3, 0]}),
    ("MaxPool", [1, 2, 9, 8], {}, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 2]}),
    ("GlobalAveragePool", [1, 2, 9, 8], {}, {}),
    ("Pad", [2, 3], {"pads": np.array([1, 0, 0, 2])}, {}),
    ("Slice", [4, 6], {"from": [-1, 5], "to": [-(2**62), 1], "axes": [0, 1], "steps": [-1, -2]}, {}),
    ("Slice", [4, 6], {"from": [1], "to": [2**62], "axes": [1], "steps": [2]}, {}),
    ("Trilu", [3, 5], {"k": np.array(1)}, {"upper": 0}),
    ("Trilu", [3, 5], {}, {}),
    ("RMSNormalization", [2, 6], {"scale": RANDOM[:, 0, 0, 0]}, {"epsilon": 1e-3}),
    ("ReduceSum", [2, 6], {"axes": [1]}, {"keepdims": 0}),
    ("Flatten", [2, 3, 4], {}, {"axis": 2}),
    ("Clip", [2, 6], {"low": np.float32(-0.5), "high": np.float32(0.25)}, {}),
    ("CumSum", [2, 6], {"axis": np.array(1)}, {}),
    ("Squeeze", [1, 3, 1], {"axes": [2]}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "shape", "constants", "attributes"), NODES, ids=[row[0] for row in NODES])
def test_a_node_computes_what_onnxruntime_does(
    modules: tuple[Any, Any], op: str, shape: list[int], constants: dict[str, Any], attributes: dict[str, Any]
) -> None:
    import torch

    model = one_node(op, shape, constants, attributes)
    x = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    graph = modules[0].Graph(model, "cpu")
    found = torch.func.vmap(lambda window: graph.run(window, {}))(torch.from_numpy(x))
    expected = np.stack([session.run(None, {"x": window})[0] for window in x])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_training_keeps_the_zeros(
    modules: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(halved(), tmp_path / "pruned.onnx")
    np.save(tmp_path / "tokens.npy", np.random.default_rng(1).integers(0, 48, 8 * 40))
    words = ["distill", DECODER, tmp_path / "pruned.onnx", tmp_path / "tokens.npy", "-o", tmp_path / "new.onnx"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--steps", "41", "--batch", "8", "--rate", "0.005"])
    modules[1].main()
    losses = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().err.splitlines()]
    assert losses[-1] < 0.75 * losses[0]
    before, after = onnx.load(tmp_path / "pruned.onnx").graph, onnx.load(tmp_path / "new.onnx").graph
    assert list(before.node) == list(after.node)
    changed = 0
    for old, new in zip(before.initializer, after.initializer, strict=True):
        was, now = numpy_helper.to_array(old), numpy_helper.to_array(new)
        changed += not np.array_equal(was, now)
        assert not now[was == 0].any()
    assert changed == 6

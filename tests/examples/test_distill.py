"""The distillation example: its graphs compute what onnxruntime does, and training keeps the zeros. Needs torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

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

"""Small models written as ONNX text, and a check that loading changes no result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from flexc.frontend.io import save
from flexc.frontend.load import load

Build = Callable[..., onnx.ModelProto]
Same = Callable[..., ir.Model]


def _build(text: str, opset: int = 20, **weights: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def _run(model: onnx.ModelProto | Path, feeds: Mapping[str, np.ndarray]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    results: list[Any] = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"]).run(None, feeds)
    return results


def _feeds(model: ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        numbers = rng.standard_normal(value.shape.numpy()) if value.dtype.is_floating_point() else None
        array = np.ones(value.shape.numpy()) if numbers is None else numbers
        feeds[str(value.name)] = array.astype(value.dtype.numpy())
    return feeds


@pytest.fixture
def build() -> Build:
    """Return a function that makes a model of ONNX text and named weights."""
    return _build


@pytest.fixture
def run() -> Callable[..., list[Any]]:
    """Return a function that runs a model in onnxruntime."""
    return _run


@pytest.fixture
def same(tmp_path: Path) -> Same:
    """Return a function that loads a model, checks that its saved form gives the same results, and returns it."""

    def check(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
        model = load(proto, shapes)
        for node in model.graph.all_nodes():
            assert all(value.dtype is not None and value.shape is not None for value in node.outputs)
            assert all(value.shape.is_static() for value in node.outputs if value.shape is not None)
        names = [node.name for node in model.graph]
        assert len(set(names)) == len(names)
        file = tmp_path / "same.onnx"
        save(model, file)
        feeds = _feeds(model)
        for expected, got in zip(_run(proto, feeds), _run(file, feeds), strict=True):
            assert expected.shape == got.shape
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max(initial=1e-30)))
        return model

    return check


@pytest.fixture
def ops() -> Callable[[ir.Model], list[str]]:
    """Return a function that lists a model's operators in graph order."""
    return lambda model: [node.op_type for node in model.graph]


@pytest.fixture
def rng() -> np.random.Generator:
    """Return seeded random numbers."""
    return np.random.default_rng(7)

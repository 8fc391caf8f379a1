"""A small decoder, windows for it, and small graphs of other shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.load import load
from flexc.passes.calibrate import input_specs
from flexc.passes.feeds import Feeds, random_feeds, windows

DECODER = Path(__file__).parents[2] / "models" / "decoder.onnx"


@pytest.fixture
def decoder() -> ir.Model:
    return load(DECODER)


@pytest.fixture
def feeds(decoder: ir.Model, tmp_path: Path) -> Feeds:
    np.save(tmp_path / "tokens.npy", np.random.default_rng(3).integers(0, 48, 8 * 16))
    return windows(input_specs(decoder), tmp_path / "tokens.npy")


@pytest.fixture
def branches() -> ir.Model:
    """Image -> Conv -> two branches (grouped and strided Conv; Conv), joined, a residual from the start -> y, z."""
    rng = np.random.default_rng(5)
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 4, 3, 3), "w2": (8, 8, 1, 1), "w3": (6, 16, 2, 2)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w1"], ["b"], name="left", group=2, pads=[1, 1, 1, 1], dilations=[1, 1]),
        helper.make_node("Conv", ["r", "w2"], ["c"], name="right"),
        helper.make_node("Concat", ["b", "c"], ["d"], name="join", axis=1),
        helper.make_node("Conv", ["d", "w3"], ["e"], name="last", strides=[2, 1], dilations=[1, 2], pads=[0, 1, 1, 0]),
        helper.make_node("Tanh", ["e"], ["y"], name="tanh"),
        helper.make_node("Sigmoid", ["c"], ["z"], name="sigmoid"),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return load(proto)


@pytest.fixture
def images(branches: ir.Model) -> Feeds:
    return random_feeds(input_specs(branches), 4, seed=1)

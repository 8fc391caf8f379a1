"""Small models for the passes, built in memory and read by the frontend as any user's file is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.load import load

ModelMaker = Callable[..., ir.Model]


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int]]],
    constants: dict[str, np.ndarray[Any, Any]],
    opset: int = 20,
) -> ir.Model:
    """Make a model whose only output is ``y``, and load it."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return load(proto)


@pytest.fixture
def language_model() -> ModelMaker:
    """Tokens [1,12] -> embedding (50 x 37) -> two linears of one input, one with a bias -> product -> tied head."""

    def make(opset: int = 20) -> ir.Model:
        rng = np.random.default_rng(1)
        table = rng.standard_normal((50, 37)).astype(np.float32)
        constants = {
            "table": table,
            "w1": rng.standard_normal((37, 24)).astype(np.float32),
            "w2": rng.standard_normal((37, 24)).astype(np.float32),
            "b2": rng.standard_normal(24).astype(np.float32),
            "w3": rng.standard_normal((24, 37)).astype(np.float32),
            "head": np.ascontiguousarray(table.T),
        }
        nodes = [
            helper.make_node("Gather", ["table", "tokens"], ["x"], name="embed"),
            helper.make_node("MatMul", ["x", "w1"], ["a"], name="up"),
            helper.make_node("MatMul", ["x", "w2"], ["b"], name="gate"),
            helper.make_node("Add", ["b", "b2"], ["c"], name="gate_bias"),
            helper.make_node("Mul", ["a", "c"], ["d"], name="product"),
            helper.make_node("MatMul", ["d", "w3"], ["e"], name="down"),
            helper.make_node("MatMul", ["e", "head"], ["y"], name="logits"),
        ]
        return build(nodes, {"tokens": (TensorProto.INT64, [1, 12])}, constants, opset)

    return make


@pytest.fixture
def conv_model() -> ModelMaker:
    """Image [batch,4,9,8] -> Conv by the attributes given -> Relu."""

    def make(batch: int = 1, group: int = 1, bias: bool = True, **attributes: Any) -> ir.Model:
        rng = np.random.default_rng(2)
        constants = {"w": rng.standard_normal((8, 4 // group, 3, 2)).astype(np.float32)}
        if bias:
            constants["b"] = rng.standard_normal(8).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["x", *constants], ["z"], name="conv", group=group, **attributes),
            helper.make_node("Relu", ["z"], ["y"], name="relu"),
        ]
        return build(nodes, {"x": (TensorProto.FLOAT, [batch, 4, 9, 8])}, constants)

    return make


@pytest.fixture
def conv1d_model() -> ModelMaker:
    """Sequence [1,6,10] -> depthwise Conv of 4 taps, padded at the front only, as a state space model has it."""

    def make() -> ir.Model:
        weight = np.random.default_rng(3).standard_normal((6, 1, 4)).astype(np.float32)
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=6, pads=[3, 0])]
        return build(nodes, {"x": (TensorProto.FLOAT, [1, 6, 10])}, {"w": weight})

    return make

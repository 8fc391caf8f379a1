"""Operators that onnxruntime's optimisers write: taken apart, they mean what onnxruntime computes for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.load import load

RNG = np.random.default_rng(7)
FLOATS = (2, 6, 16)


def weights(*shape: int) -> np.ndarray:
    return (0.5 * RNG.standard_normal(shape)).astype(np.float32)


HALF = np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32)
SQUARE = {"w": weights(16, 48), "b": weights(48)}

#: operator, inputs ("" is left out), constants, attributes, names of the outputs
CASES: dict[str, tuple[str, list[str], dict[str, np.ndarray], dict[str, Any], list[str]]] = {
    "skip": ("SkipLayerNormalization", ["x", "z", "g", "b"], {"g": weights(16), "b": weights(16)}, {}, ["y"]),
    "skip with all": (
        "SkipLayerNormalization",
        ["x", "z", "g", "b", "c"],
        {"g": weights(16), "b": weights(16), "c": weights(16)},
        {"epsilon": 1e-5},
        ["y", "", "", "sum"],
    ),
    "skip rms": (
        "SkipSimplifiedLayerNormalization",
        ["x", "z", "g", "c"],
        {"g": weights(16), "c": weights(16)},
        {"epsilon": 1e-6},
        ["y", "", "", "sum"],
    ),
    "gelu": ("Gelu", ["x"], {}, {}, ["y"]),
    "bias gelu": ("BiasGelu", ["x", "b"], {"b": weights(16)}, {}, ["y"]),
    "fast gelu": ("FastGelu", ["x", "b"], {"b": weights(16)}, {}, ["y"]),
    "quick gelu": ("QuickGelu", ["x"], {}, {"alpha": 1.5}, ["y"]),
    "matmul": ("FusedMatMul", ["x", "z"], {}, {"transB": 1, "alpha": 0.25}, ["y"]),
    "matmul, left": ("FusedMatMul", ["x", "z"], {}, {"transA": 1}, ["y"]),
    "heads": ("MultiHeadAttention", ["x", "z", "x"], {}, {"num_heads": 4}, ["y"]),
    "heads with all": (
        "MultiHeadAttention",
        ["x", "z", "x", "b", "m", "a"],
        {"b": weights(48), "m": HALF, "a": weights(1, 2, 6, 6)},
        {"num_heads": 2, "scale": 0.4, "mask_filter_value": -5000.0},
        ["y"],
    ),
    "heads looking back": ("MultiHeadAttention", ["x", "x", "x"], {}, {"num_heads": 2, "unidirectional": 1}, ["y"]),
    "attention": ("Attention", ["x", "w", "b"], SQUARE, {"num_heads": 4}, ["y"]),
    "attention, masked": ("Attention", ["x", "w", "b", "m"], {**SQUARE, "m": HALF}, {"num_heads": 4}, ["y"]),
    "attention, lengths": (
        "Attention",
        ["x", "w", "b", "m"],
        {**SQUARE, "m": np.array([6, 3], np.int32)},
        {"num_heads": 4, "unidirectional": 1},
        ["y"],
    ),
}
TABLES = {"t": weights(20, 16), "p": weights(9, 16), "k": weights(2, 16), "g": weights(16), "b": weights(16)}


def compare(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> ir.Model:
    """Check that the loaded graph gives what onnxruntime gives for the file; return it."""
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)
    model = load(proto)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for ours, theirs in zip(session.run(None, feed), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
    assert all(node.domain == "" for node in model.graph)
    return model


def model_of(
    node: onnx.NodeProto, inputs: list[onnx.ValueInfoProto], constants: dict[str, np.ndarray], opset: int
) -> onnx.ModelProto:
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph([node], "g", inputs, outputs, held), opset_imports=imports, ir_version=9)


@pytest.mark.parametrize("opset", [14, 20])
@pytest.mark.parametrize("case", CASES)
def test_a_fused_operator(case: str, opset: int) -> None:
    op, inputs, constants, attributes, outputs = CASES[case]
    node = helper.make_node(op, inputs, outputs, "n", domain="com.microsoft", **attributes)
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, FLOATS) for name in ("x", "z") if name in inputs]
    compare(model_of(node, given, constants, opset), {value.name: weights(*FLOATS) for value in given})


@pytest.mark.parametrize("mask", [True, False])
def test_embeddings(mask: bool) -> None:
    names = ["ids", "kinds", "t", "p", "k", "g", "b", *(["mask"] if mask else [])]
    node = helper.make_node("EmbedLayerNormalization", names, ["y", "n", "sum"], "e", domain="com.microsoft")
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT32, (2, 6))
        for name in ("ids", "kinds", "mask")
        if name in names
    ]
    feed: dict[str, np.ndarray] = {
        "ids": RNG.integers(0, 20, (2, 6)),
        "kinds": RNG.integers(0, 2, (2, 6)),
        "mask": HALF,
    }
    compare(model_of(node, given, TABLES, 17), {value.name: feed[value.name].astype(np.int32) for value in given})


def test_rms_norm_in_the_standard_domain() -> None:
    node = helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["y"], "n", axis=-1, epsilon=1e-5)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, FLOATS)]
    compare(model_of(node, given, {"g": weights(16)}, 17), {"x": weights(*FLOATS)})


def test_a_past_stays_with_the_host() -> None:
    node = helper.make_node(
        "Attention", ["x", "w", "b", "", "past"], ["y", "now"], "n", domain="com.microsoft", num_heads=4
    )
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, FLOATS)]
    proto = model_of(node, given, {**SQUARE, "past": weights(2, 2, 4, 3, 4)}, 17)
    shapes = (FLOATS, (2, 2, 4, 9, 4))
    del proto.graph.output[:]
    proto.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("y", "now"), shapes, strict=True)
    )
    assert [node.domain for node in load(proto).graph] == ["com.microsoft"]

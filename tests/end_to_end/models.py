"""Models for the whole path: an MLP of odd sizes, a small image network, a decoder as torch exports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

DECODER = Path(__file__).resolve().parents[1] / "models" / "decoder.onnx"


def _model(
    nodes: Sequence[NodeProto], constants: dict[str, np.ndarray], shape: Sequence[int], out: Sequence[int]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def mlp() -> onnx.ModelProto:
    """[5,61] -> 83 -> Gelu -> 83 with a residual -> LayerNormalization -> 7; a CumSum that only the host can do."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": _floats(rng, 83, 61),
        "b1": _floats(rng, 83),
        "w2": _floats(rng, 83, 83),
        "scale": _floats(rng, 83),
        "shift": _floats(rng, 83),
        "w3": _floats(rng, 83, 7),
        "b3": _floats(rng, 7),
        "seven": np.array(7, np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], name="up", transB=1),
        helper.make_node("Gelu", ["a"], ["b"], name="gelu"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="mix"),
        helper.make_node("Add", ["c", "b"], ["d"], name="residual"),
        helper.make_node("LayerNormalization", ["d", "scale", "shift"], ["e"], name="norm", axis=-1),
        helper.make_node("Mod", ["e", "seven"], ["f"], name="integral", fmod=1),
        helper.make_node("MatMul", ["f", "w3"], ["g"], name="down"),
        helper.make_node("Add", ["g", "b3"], ["y"], name="bias"),
    ]
    return _model(nodes, constants, [5, 61], [5, 7])


def image() -> onnx.ModelProto:
    """[1,3,12,12] -> Conv 3x3, BatchNormalization, Relu -> MaxPool -> depthwise Conv -> Conv 1x1 -> mean -> 5."""
    rng = np.random.default_rng(1)
    constants = {
        "w1": _floats(rng, 20, 3, 3, 3),
        "b1": _floats(rng, 20),
        "gain": np.abs(_floats(rng, 20)) + 0.5,
        "shift": _floats(rng, 20),
        "mean": _floats(rng, 20),
        "variance": np.abs(_floats(rng, 20)) + 0.5,
        "w2": _floats(rng, 20, 1, 3, 3),
        "w3": _floats(rng, 33, 20, 1, 1),
        "b3": _floats(rng, 33),
        "w4": _floats(rng, 33, 5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["a", "gain", "shift", "mean", "variance"], ["b"], name="norm"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("MaxPool", ["c"], ["d"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(
            "Conv",
            ["d", "w2"],
            ["e"],
            name="depthwise",
            pads=[1, 1, 1, 1],
            strides=[2, 2],
            group=20,
            kernel_shape=[3, 3],
        ),
        helper.make_node("Conv", ["e", "w3", "b3"], ["f"], name="pointwise", kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["h"], name="flatten"),
        helper.make_node("MatMul", ["h", "w4"], ["y"], name="classify"),
    ]
    return _model(nodes, constants, [1, 3, 12, 12], [1, 5])


def recurrent() -> onnx.ModelProto:
    """[6,10] -> linear -> a Scan, whose body reads a constant and a value from around it -> linear."""
    rng = np.random.default_rng(2)
    state, each = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [12]) for name in ("state", "each"))
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["state", "decay"], ["faded"]),
            helper.make_node("Add", ["faded", "each"], ["more"]),
            helper.make_node("Add", ["more", "offset"], ["next"]),
            helper.make_node("Identity", ["next"], ["out"]),
        ],
        "body",
        [state, each],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [12]) for name in ("next", "out")],
    )
    constants = {
        "w1": _floats(rng, 10, 12),
        "zero": np.zeros(12, np.float32),
        "decay": np.full(12, 0.5, np.float32),
        "axis": np.array([0], np.int64),
        "w2": _floats(rng, 12, 4),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="up"),
        helper.make_node("ReduceMean", ["a", "axis"], ["offset"], name="offset", keepdims=0),
        helper.make_node("Scan", ["zero", "a"], ["last", "b"], name="scan", body=body, num_scan_inputs=1),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="down"),
    ]
    return _model(nodes, constants, [6, 10], [6, 4])


def branching() -> onnx.ModelProto:
    """[6,10] -> linear -> an If that only the data decide, whose branches read values from around it -> linear."""
    rng = np.random.default_rng(2)
    constants = {"w1": _floats(rng, 10, 12), "half": np.full(12, 0.5, np.float32), "w2": _floats(rng, 12, 4)}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [6, 12]) for name in ("less", "more")]
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Mul", ["a", "half"], ["less"])], "then", [], outputs[:1]),
        "else_branch": helper.make_graph([helper.make_node("Add", ["a", "half"], ["more"])], "else", [], outputs[1:]),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="up"),
        helper.make_node("ReduceMax", ["a"], ["peak"], name="peak", keepdims=0),
        helper.make_node("Greater", ["peak", "peak"], ["choice"], name="choice"),
        helper.make_node("If", ["choice"], ["b"], name="branch", **branches),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="down"),
    ]
    return _model(nodes, constants, [6, 10], [6, 4])


def decoder() -> onnx.ModelProto:
    """Tokens int64 [1,8] -> one Llama-style block -> logits [1,8,48]; see tests/models/make.py."""
    return onnx.load(DECODER)


MODELS = {"mlp": mlp, "image": image, "decoder": decoder}

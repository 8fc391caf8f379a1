"""Attention that keeps its own past grows as a cache that is joined by Concat: exact at every length."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.caches import find_caches
from flexc.frontend.load import load
from flexc.frontend.own_pasts import write_joins_out
from flexc.frontend.source import read
from tests.frontend.test_grouped_query import FORMS
from tests.frontend.test_growing import Arrays, compare

HEADS, GROUPS, SIZE = 4, 2, 32
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
STEPS = (3, 1, 2)


def model(nodes: list[Any], ends: dict[str, tuple[int, list[Any]]], opset: int, **constants: Any) -> onnx.ModelProto:
    """Return a model of an attention over x [1, step, 24], whose past may grow; outputs y and the presents."""
    rng = np.random.default_rng(0)
    widths = {"Q": HEADS * SIZE, "K": GROUPS * SIZE, "V": GROUPS * SIZE, "P": (HEADS + 2 * GROUPS) * SIZE}
    weights = {name: rng.standard_normal((24, width)).astype(np.float32) / 5 for name, width in widths.items()}
    every = {**weights, **{name: np.asarray(value) for name, value in constants.items()}}
    pasts = {name: (FLOAT, [1, GROUPS, "past", SIZE]) for name in ("past_k", "past_v")}
    made = {"y": (FLOAT, None)} | {name: (FLOAT, [1, GROUPS, "total", SIZE]) for name in ("present_k", "present_v")}
    read_from = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *each) for name, each in (ends | pasts).items()],
        [helper.make_tensor_value_info(name, *each) for name, each in made.items()],
        [numpy_helper.from_array(array, name) for name, array in every.items() if name in read_from],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


X: dict[str, tuple[int, list[Any]]] = {"x": (FLOAT, [1, "step", 24])}
MASK: dict[str, tuple[int, list[Any]]] = {"attention_mask": (INT, [1, "total"])}


def projected(*names: str) -> list[Any]:
    return [helper.make_node("MatMul", ["x", name], [name.lower()], f"{name}.linear") for name in names]


def feed(valid: int, step: int) -> Arrays:
    rng = np.random.default_rng(valid)
    return {
        "x": rng.standard_normal((1, step, 24)).astype(np.float32),
        "attention_mask": np.ones((1, valid + step), np.int64),
        "mask_bias": np.triu(rng.standard_normal((step, valid + step)), -valid).astype(np.float32),
    }


def check(proto: onnx.ModelProto) -> None:
    names = {each.name for each in proto.graph.input}
    long = {"present_k": 2, "present_v": 2}

    def given(valid: int, step: int) -> Arrays:
        return {name: array for name, array in feed(valid, step).items() if name in names}

    compare(proto, "step", long, given, STEPS, apart=(1e-5, 1e-5))  # rotations may be rounded once less


@pytest.mark.parametrize(
    ("form", "packed"),
    [("plain", False), ("rotated", True), ("a window", False), ("a scale and a cap", True), ("sinks", False)],
)
def test_group_query_attention(form: str, packed: bool) -> None:
    """As onnxruntime-genai writes it: how many keys are valid comes from the mask."""
    attributes, tables = FORMS[form]
    constants = {"one": np.array([1]), "index": np.array(1)} | tables
    check(model(group_query(attributes, tables, packed=packed), X | MASK, 21, **constants))


def group_query(attributes: dict[str, Any], tables: dict[str, Any], *, packed: bool) -> list[Any]:
    """Return the nodes of an attention over x, its lengths worked out from attention_mask."""
    inputs = ["p", "", ""] if packed else ["q", "k", "v"]
    further = [name if name in tables else "" for name in ("cos", "sin", "positions", "bias", "sinks")]
    return [
        *projected(*(["P"] if packed else ["Q", "K", "V"])),
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["count"], keepdims=0),
        helper.make_node("Sub", ["count", "one"], ["less"]),
        helper.make_node("Cast", ["less"], ["valid"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["dims"]),
        helper.make_node("Gather", ["dims", "index"], ["length"], axis=0),
        helper.make_node("Cast", ["length"], ["total_length"], to=TensorProto.INT32),
        helper.make_node(
            "GroupQueryAttention", [*inputs, "past_k", "past_v", "valid", "total_length", *further],
            ["y", "present_k", "present_v"], "attention", domain="com.microsoft",
            num_heads=HEADS, kv_num_heads=GROUPS, **attributes,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("masked", "opset"),
    [("causal", 23), ("causal", 24), ("an addend", 24), ("causal with an addend", 23), ("truth values", 24)],
)
def test_the_standard_operator(masked: str, opset: int) -> None:
    bias: dict[str, tuple[int, list[Any]]] = {"mask_bias": (FLOAT, ["step", "total"])}
    ends, nodes, mask = X, projected("Q", "K", "V"), ""
    if "addend" in masked:
        ends, mask = X | bias, "mask_bias"
    if masked == "truth values":
        ends, mask = X | bias, "mask"
        nodes.append(helper.make_node("GreaterOrEqual", ["mask_bias", "low"], ["mask"]))
    attributes: dict[str, Any] = {"is_causal": 1} if masked.startswith("causal") else {}
    nodes.append(
        helper.make_node(
            "Attention", ["q", "k", "v", mask, "past_k", "past_v"], ["y", "present_k", "present_v"], "attention",
            q_num_heads=HEADS, kv_num_heads=GROUPS, **attributes,
        )
    )  # fmt: skip
    check(model(nodes, ends, opset, low=np.array(-1.0, np.float32)))


def test_a_past_of_fixed_size_stays() -> None:
    nodes = [
        *projected("Q", "K", "V"),
        helper.make_node(
            "Attention", ["q", "k", "v", "", "past_k", "past_v"], ["y", "present_k", "present_v"], "attention",
            q_num_heads=HEADS, kv_num_heads=GROUPS,
        ),
    ]  # fmt: skip
    proto = model(nodes, X, 23)
    for each in proto.graph.input[1:]:
        each.type.tensor_type.shape.dim[2].dim_value = 6
    graph = read(proto)[0].graph
    write_joins_out(graph)
    assert not find_caches(graph)
    load(proto, dims={"step": 2})

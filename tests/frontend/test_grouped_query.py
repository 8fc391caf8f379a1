"""GroupQueryAttention in standard operators: the numbers are those of onnxruntime's own implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.load import load
from flexc.frontend.operators import native
from flexc.passes.session import Session

Array = npt.NDArray[Any]
HEADS, GROUPS, SIZE, BATCH = 4, 2, 32, 2


def rotation(half: int) -> dict[str, Array]:
    angles = np.outer(np.arange(32), 1.0 / 10 ** (np.arange(half) / half)).astype(np.float32)
    return {"cos": np.cos(angles), "sin": np.sin(angles)}


#: name -> (attributes, further constants by input).
FORMS: dict[str, tuple[dict[str, Any], dict[str, Array]]] = {
    "plain": ({}, {}),
    "a scale and a cap": ({"scale": 0.2, "softcap": 3.0}, {}),
    "a window": ({"local_window_size": 3}, {}),
    "rotated": ({"do_rotary": 1}, rotation(SIZE // 2)),
    "rotated in pairs, in part": ({"do_rotary": 1, "rotary_interleaved": 1}, rotation(SIZE // 4)),
    "smooth": ({"smooth_softmax": 1}, {}),
    "sinks": ({}, {"sinks": np.array([0.5, -1.0, 2.0, 0.1], np.float32)}),
}
INPUTS = ["q", "k", "v", "past_k", "past_v", "valid", "total", "cos", "sin", "positions", "bias", "sinks"]


def model(form: str, step: int, held: int, total: int, *, packed: bool = False, bias: bool = False) -> onnx.ModelProto:
    attributes, constants = FORMS[form]
    width = (HEADS + 2 * GROUPS if packed else HEADS) * SIZE
    kinds: dict[str, tuple[int, list[int]]] = {
        "q": (TensorProto.FLOAT, [BATCH, step, width]),
        "valid": (TensorProto.INT32, [BATCH]),
    }
    if not packed:
        kinds |= {name: (TensorProto.FLOAT, [BATCH, step, GROUPS * SIZE]) for name in ("k", "v")}
    if held:
        kinds |= {name: (TensorProto.FLOAT, [BATCH, GROUPS, held, SIZE]) for name in ("past_k", "past_v")}
    if bias:
        kinds["bias"] = (TensorProto.FLOAT, [1, HEADS, step, total])
    constants = constants | {"total": np.array(total, np.int32)}
    named = [name if name in kinds or name in constants else "" for name in INPUTS]
    node = helper.make_node(
        "GroupQueryAttention", named, ["y", "present_k", "present_v"], "attention", domain="com.microsoft",
        num_heads=HEADS, kv_num_heads=GROUPS, **attributes,
    )  # fmt: skip
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in kinds.items()]
    room = max(held, total)
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, step, HEADS * SIZE])]
    outs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, GROUPS, room, SIZE])
        for name in ("present_k", "present_v")
    ]
    graph = helper.make_graph(
        [node], "g", ends, outs, [numpy_helper.from_array(array, name) for name, array in constants.items()]
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def compare(proto: onnx.ModelProto, valid: list[int]) -> None:
    import onnxruntime as ort

    rng, feeds = np.random.default_rng(0), {}
    for each in proto.graph.input:
        shape = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
        whole = each.type.tensor_type.elem_type == TensorProto.INT32
        feeds[each.name] = np.array(valid, np.int32) - 1 if whole else rng.standard_normal(shape).astype(np.float32)
    expected = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)
    loaded = load(proto)
    assert not [node.op_type for node in loaded.graph if native(node)[0] is None]
    got = list(Session(loaded).run(feeds).values())
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(got[1:], expected[1:], strict=True):
        assert ours.shape == theirs.shape
        for row, count in enumerate(valid):
            np.testing.assert_allclose(ours[row, :, :count], theirs[row, :, :count], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt(form: str) -> None:
    compare(model(form, 5, 0, 5), [5, 5])


@pytest.mark.parametrize("form", FORMS)
def test_a_step_on_a_past_that_grows(form: str) -> None:
    compare(model(form, 1, 6, 7), [7, 7])


@pytest.mark.parametrize("form", ["plain", "rotated", "a window"])
def test_a_step_in_a_buffer_with_room(form: str) -> None:
    """Rows of a batch may be of different lengths: each writes behind what is valid of it."""
    compare(model(form, 1, 12, 9), [9, 4])
    compare(model(form, 5, 12, 5), [5, 5])


@pytest.mark.parametrize("form", ["plain", "rotated"])
def test_packed_and_with_an_addend(form: str) -> None:
    compare(model(form, 4, 0, 4, packed=True), [4, 4])
    compare(model(form, 1, 3, 4, packed=True), [4, 4])
    compare(model(form, 3, 0, 3, bias=True), [3, 3])


@pytest.mark.parametrize("shape", [[2, 3, 128], [2, 4, 3, 32]])
@pytest.mark.parametrize("positions", [[1], [2, 3]])
@pytest.mark.parametrize("form", ["rotated", "rotated in pairs, in part"])
def test_rotation_on_its_own(form: str, positions: list[int], shape: list[int]) -> None:
    import onnxruntime as ort

    attributes, tables = FORMS[form]
    part: dict[str, Any] = {"rotary_embedding_dim": SIZE // 2} if "part" in form else {}
    node = helper.make_node(
        "RotaryEmbedding", ["x", "at", "cos", "sin"], ["y"], "rotation", domain="com.microsoft", num_heads=HEADS,
        interleaved=attributes.get("rotary_interleaved", 0), **part,
    )  # fmt: skip
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    ends.append(helper.make_tensor_value_info("at", TensorProto.INT64, positions))
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    held = [numpy_helper.from_array(array, name) for name, array in tables.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(helper.make_graph([node], "g", ends, outs, held), opset_imports=opsets, ir_version=10)
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {"x": rng.standard_normal(shape).astype(np.float32)}
    feeds["at"] = rng.integers(0, 20, positions)
    loaded = load(proto)
    assert not [node.op_type for node in loaded.graph if native(node)[0] is None]
    (expected,) = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)
    (result,) = Session(loaded).run(feeds).values()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)

"""Quantisation: the numbers against numpy, the graph's form, and onnxruntime running it exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from flexc.frontend.io import save
from flexc.frontend.linears import find_linears
from flexc.isa.errors import FlexcError
from flexc.passes.emit import LINEAR_KEY, ROLE_KEY
from flexc.passes.pattern import NM
from flexc.passes.prune import NM_KEY, prune
from flexc.passes.quantise import quantise, quantise_weight
from flexc.passes.session import Session

ModelMaker = Callable[..., ir.Model]
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8, 49]])
TINY = np.finfo(np.float32).tiny


def int8_rows(x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Quantise rows [rows, ...] as the graph is meant to: codes, and a scale a row."""
    peak = np.abs(x).reshape(len(x), -1).max(axis=1)
    scale = (np.maximum(peak, TINY) / np.float32(127)).astype(np.float32)
    with np.errstate(over="ignore"):
        codes = np.rint(x / scale.reshape(-1, *[1] * (x.ndim - 1)))
    return np.clip(codes, -128, 127).astype(np.int64), scale


def run_with(model: ir.Model, feed: dict[str, NDArray[Any]], *names: str) -> list[NDArray[Any]]:
    """Run a copy of `model` that gives out the named values."""
    probe = model.clone()
    values = {str(value.name): value for node in probe.graph for value in node.outputs}
    probe.graph.outputs.clear()
    probe.graph.outputs.extend(values[name] for name in names)
    outputs = Session(probe).run(feed)
    return [outputs[name] for name in names]


def test_weight_codes_and_scales() -> None:
    matrix = np.array([[1, -2, 0.5], [0, 0, 0], [1e-44, 0, 0], [-3e38, 3e38, 1]], np.float32)
    codes, scales = quantise_weight(matrix)
    assert codes.dtype == np.int8
    assert codes.tolist() == [[64, -127, 32], [0, 0, 0], [0, 0, 0], [-127, 127, 0]]
    np.testing.assert_array_equal(scales, np.maximum(np.abs(matrix).max(axis=1) / np.float32(127), TINY))


def test_weight_codes_of_many_chunks_equal_the_formula() -> None:
    matrix = np.random.default_rng(0).standard_normal((700, 2003)).astype(np.float32)
    codes, scales = quantise_weight(matrix)
    expected = np.rint(matrix / (np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)))
    np.testing.assert_array_equal(codes, expected)
    assert np.abs(matrix - codes * scales[:, np.newaxis]).max() <= scales.max() * 0.5001


@pytest.mark.parametrize("opset", [13, 17, 18, 20, 21, 23])
def test_a_linear_computes_what_numpy_says(language_model: ModelMaker, opset: int) -> None:
    model = quantise(language_model(opset))
    x, codes, product, up = run_with(
        model, {"tokens": TOKENS}, "x", "up/quantise", "up/multiply", output_of(model, "up")
    )
    expected_codes, scale = int8_rows(x[0])
    np.testing.assert_array_equal(codes, expected_codes)
    weight_codes, weight_scale = quantise_weight(find_linears(language_model(opset))[0].matrix())
    expected = expected_codes @ weight_codes.astype(np.int64).T
    np.testing.assert_array_equal(product, expected)
    assert product.dtype == np.int32
    floats = expected.astype(np.float32) * scale[:, np.newaxis] * weight_scale
    np.testing.assert_array_equal(up[0], floats)


def output_of(model: ir.Model, linear: str) -> str:
    """Name the value that the last node of a linear, before any bias, gives."""
    nodes = [node for node in model.graph if node.metadata_props.get(LINEAR_KEY) == linear]
    return str([node for node in nodes if node.metadata_props[ROLE_KEY] != "bias"][-1].outputs[0].name)


def test_the_form_of_the_graph(language_model: ModelMaker) -> None:
    source = language_model()
    prune(source, "magnitude", NM(2, 4))
    floats = {name: value.const_value for name, value in source.graph.initializers.items()}
    model = quantise(source)
    assert {name: value.const_value for name, value in source.graph.initializers.items()} == floats
    roles: dict[str, list[str]] = {}
    for node in model.graph:
        if LINEAR_KEY in node.metadata_props:
            roles.setdefault(node.metadata_props[LINEAR_KEY], []).append(node.metadata_props[ROLE_KEY])
    work = ["multiply", *["dequantise"] * 3, "reshape"]
    assert roles["up"] == ["quantise"] * 7 + work  # flatten, abs, peak, guard, scale, quantise, column
    assert roles["gate"] == [*work, "bias"]  # the input's quantisation is shared
    products = [node for node in model.graph if node.op_type == "MatMulInteger"]
    assert [node.metadata_props[NM_KEY] for node in products] == ["2:4", "2:4", "2:4", "dense"]
    names = [str(node.name) for node in model.graph]
    assert len(set(names)) == len(names)
    for node in model.graph:
        for value in node.outputs:
            assert value.dtype is not None
            assert value.shape is not None
            assert value.shape.is_static()
    weights = {str(node.inputs[1].name): node.inputs[1].dtype for node in products if node.inputs[1] is not None}
    assert set(weights.values()) == {ir.DataType.INT8}
    assert not {"w1", "w2", "w3"} & set(model.graph.initializers)
    assert "table" in model.graph.initializers


def test_names_do_not_depend_on_the_run(language_model: ModelMaker, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        save(quantise(language_model()), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_quantised_model_is_valid_and_close(language_model: ModelMaker, tmp_path: Path) -> None:
    model = language_model()
    save(quantise(model), tmp_path / "quantised.onnx")
    onnx.checker.check_model(tmp_path / "quantised.onnx", full_check=True)
    (got,) = ort.InferenceSession(tmp_path / "quantised.onnx").run(None, {"tokens": TOKENS})
    expected = Session(model).run({"tokens": TOKENS})["y"]
    assert got.shape == expected.shape
    assert cosine(got, expected) > 0.999


def test_a_row_of_zeros_stays_zero(conv1d_model: ModelMaker) -> None:
    model = quantise(conv1d_model())
    np.testing.assert_array_equal(Session(model).run({"x": np.zeros((1, 6, 10), np.float32)})["y"], 0)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"bias": False, "pads": [1, 0, 2, 1], "strides": [2, 3]},
        {"group": 2, "dilations": [2, 1]},
        {"group": 4, "batch": 3, "pads": [1, 1, 1, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ],
    ids=str,
)
def test_convolutions_are_exact_with_a_scale_a_sample(conv_model: ModelMaker, attributes: dict[str, Any]) -> None:
    model = conv_model(**attributes)
    quantised = quantise(model)
    batch = attributes.get("batch", 1)
    x = np.random.default_rng(0).standard_normal((batch, 4, 9, 8)).astype(np.float32) * np.float32(3)
    x *= np.arange(1, batch + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    codes, product, y = run_with(quantised, {"x": x}, "conv/quantise", "conv/multiply", "y")
    expected_codes, scale = int8_rows(x)
    np.testing.assert_array_equal(codes, expected_codes)
    (linear,) = find_linears(model)
    weight_codes, weight_scale = quantise_weight(linear.matrix())
    np.testing.assert_array_equal(product, float_conv(model, expected_codes, linear.to_weight(weight_codes)))
    rows = scale.reshape(-1, 1, 1, 1)
    floats = product.astype(np.float32) * rows * weight_scale.reshape(-1, 1, 1)
    bias = model.graph.initializers.get("b")
    if bias is not None and bias.const_value is not None:
        floats = floats + bias.const_value.numpy().reshape(-1, 1, 1)
    np.testing.assert_array_equal(y, np.maximum(floats, 0))


def float_conv(model: ir.Model, codes: NDArray[np.int64], weight: NDArray[Any]) -> NDArray[Any]:
    """Convolve integers as floats: exact, as every sum stays below 2**24."""
    probe = model.clone()
    node = next(node for node in probe.graph if node.op_type == "Conv")
    kernel = node.inputs[1]
    assert kernel is not None
    kernel.const_value = ir.tensor(weight.astype(np.float32), name=kernel.name)
    node.resize_inputs(2)
    name = str(node.outputs[0].name)
    return run_with(probe, {"x": codes.astype(np.float32)}, name)[0]


@pytest.mark.parametrize("k", [40, 2000])
def test_saturated_products_are_exact(k: int) -> None:
    """All codes at +-127, where kernels that add pairs in 16 bits saturate."""
    from onnx import TensorProto, helper, numpy_helper

    from flexc.frontend.load import load

    weight = np.ones((k, 8), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="full")],
        "full",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = quantise(load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)))
    (product,) = run_with(model, {"x": np.full((5, k), -3, np.float32)}, "full/multiply")
    np.testing.assert_array_equal(product, -127 * 127 * k)


def test_what_cannot_be_quantised_is_refused(language_model: ModelMaker) -> None:
    model = language_model()
    model.graph.opset_imports[""] = 12
    with pytest.raises(FlexcError, match="opset 12 is too old"):
        quantise(model)
    broken = language_model()
    weight = find_linears(broken)[0].weight
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[0, 0] = np.inf
    weight.const_value = ir.tensor(array, name=weight.name)
    with pytest.raises(FlexcError, match="linear 'up': a weight is NaN or infinite"):
        quantise(broken)


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))

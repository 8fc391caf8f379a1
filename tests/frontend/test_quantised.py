"""Quantised models, however they are written: loaded, they compute what onnxruntime makes of them, bit by bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from flexc.frontend.linears import find_linears, replace_weight
from flexc.frontend.load import load
from flexc.passes.session import Session

Array = npt.NDArray[Any]
Build = Callable[..., onnx.ModelProto]
FLOAT, U8, S8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT8
#: Weights of seven bits: no product of theirs with a byte saturates, on any processor.
SMALL = {np.uint8: (64, 192), np.int8: (-64, 65)}


def weight(shape: tuple[int, ...], dtype: Any = np.int8) -> Array:
    low, high = SMALL[dtype]
    return np.random.default_rng(1).integers(low, high, shape).astype(dtype)


def numbers(*shape: int) -> Array:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def expected(model: onnx.ModelProto, feeds: dict[str, Array], *, optimise: bool = False) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    result: Array = session.run(None, feeds)[0]
    return result


def agree(model: onnx.ModelProto, feeds: dict[str, Array], *, optimise: bool = False) -> ir.Model:
    """Load a model; assert that it computes what onnxruntime makes of the file."""
    loaded = load(model)
    (result,) = Session(loaded, optimise=False).run(feeds).values()
    np.testing.assert_array_equal(result, expected(model, feeds, optimise=optimise))
    return loaded


QDQ = """g (float[1,6,16] x) => (float[] y) {
  q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)
  w = DequantizeLinear<axis = 1>(W, sw, zw)
  m = MatMul(d, w)  mq = QuantizeLinear(m, sy, zy)  y = DequantizeLinear(mq, sy, zy)
}"""


@pytest.mark.parametrize("columns", [1, 8])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("act", [np.int8, np.uint8])
def test_a_product_between_quantisations_becomes_integer(build: Build, act: Any, dtype: Any, columns: int) -> None:
    middle, zero = (3, 0) if act == np.int8 else (130, 128)
    shape = () if columns == 1 else (8,)
    model = build(
        QDQ.replace("<axis = 1>", "" if columns == 1 else "<axis = 1>"),
        W=weight((16, 8), dtype),
        sx=np.float32(0.02),
        zx=act(middle),
        sw=np.asarray(np.linspace(0.01, 0.05, columns).reshape(shape), np.float32),
        zw=np.full(shape, 0 if dtype == np.int8 else 128, dtype),
        sy=np.float32(0.07),
        zy=act(zero),
    )
    loaded = agree(model, {"x": numbers(1, 6, 16)}, optimise=True)  # there onnxruntime makes a QLinearMatMul of it
    assert ops(loaded)["MatMulInteger"] == 1
    assert ops(loaded)["MatMul"] == 0
    (linear,) = find_linears(loaded)
    np.testing.assert_array_equal(linear.matrix().T, weight((16, 8), dtype) - (0 if dtype == np.int8 else 128.0))


def test_a_dense_layer_as_torch_writes_it(build: Build) -> None:
    """The weight is dequantised, then transposed; the bias is dequantised from int32."""
    text = """g (float[5,16] x) => (float[] y) {
      q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)
      w = DequantizeLinear<axis = 0>(W, sw)  b = DequantizeLinear<axis = 0>(B, sb)
      g = Gemm<transB = 1>(d, w, b)  r = Relu(g)  yq = QuantizeLinear(r, sy, zy)  y = DequantizeLinear(yq, sy, zy)
    }"""
    scales = np.linspace(0.01, 0.05, 8).astype(np.float32)
    bias = np.random.default_rng(3).integers(-500, 500, 8).astype(np.int32)
    given = {"sx": np.float32(0.02), "zx": np.uint8(120), "sy": np.float32(0.05), "zy": np.uint8(0)}
    model = build(text, W=weight((8, 16)), B=bias, sw=scales, sb=np.float32(0.02) * scales, **given)
    loaded = load(model)
    assert ops(loaded)["MatMulInteger"] == 1
    assert "Transpose" not in ops(loaded)
    x = numbers(5, 16)
    codes = np.clip(np.rint(x / np.float32(0.02)) + 120, 0, 255).astype(np.int64) - 120
    sums = codes @ weight((8, 16)).T.astype(np.int64) + bias
    factor = (np.float32(0.02) * scales) / np.float32(0.05)
    quantised = np.clip(np.rint(np.maximum(sums.astype(np.float32) * factor, 0)), 0, 255)
    (result,) = Session(loaded).run({"x": x}).values()
    np.testing.assert_array_equal(result, quantised.astype(np.float32) * np.float32(0.05))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_between_quantisations(build: Build, groups: int) -> None:
    text = """g (float[1,4,7,6] x) => (float[] y) {
      q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)
      w = DequantizeLinear<axis = 0>(W, sw)  b = DequantizeLinear<axis = 0>(B, sb)
      c = Conv<pads = [1, 1, 1, 0], strides = [1, 2], group = GROUPS>(d, w, b)
      yq = QuantizeLinear(c, sy, zy)  y = DequantizeLinear(yq, sy, zy)
    }"""
    scales = np.linspace(0.01, 0.05, 6).astype(np.float32)
    model = build(
        text.replace("GROUPS", str(groups)),
        W=weight((6, 4 // groups, 3, 3)),
        B=np.arange(6, dtype=np.int32) * 100,
        sw=scales,
        sb=np.float32(0.02) * scales,
        sx=np.float32(0.02),
        zx=np.uint8(120),
        sy=np.float32(0.05),
        zy=np.uint8(100),
    )
    loaded = agree(model, {"x": numbers(1, 4, 7, 6)}, optimise=True)
    assert ops(loaded)["ConvInteger"] == 1


@pytest.mark.parametrize("shape", [(6, 16), (2, 3, 16), (1, 6, 16)])
def test_dynamic_quantisation(build: Build, shape: tuple[int, ...]) -> None:
    text = """g (float[SHAPE] x) => (float[] y) {
      q, s, z = DynamicQuantizeLinear(x)  a = MatMulInteger(q, W, z, zw)
      f = Cast<to = 1>(a)  m = Mul(s, sw)  y = Mul(f, m)
    }""".replace("SHAPE", ",".join(map(str, shape)))
    for opset in (13, 20):
        given = {"W": weight((16, 8), np.uint8), "zw": np.uint8(131), "sw": np.float32(0.03)}
        model = build(text, opset, **given)
        for x in (numbers(*shape), np.abs(numbers(*shape)) + 1, np.zeros(shape, np.float32)):
            agree(model, {"x": x})


def test_an_embedding_shared_with_a_product_is_dequantised_for_each_as_it_needs(build: Build) -> None:
    text = """g (int64[5] t) => (float[] y) {
      w = DequantizeLinear(W, sw)  x = Gather(w, t)  v = Transpose<perm = [1, 0]>(w)  y = MatMul(x, v)
    }"""
    model = build(text, W=weight((12, 16)), sw=np.float32(0.03))
    loaded = agree(model, {"t": np.array([0, 3, 11, 5, 3])})
    (linear,) = find_linears(loaded)
    assert linear.quantised
    np.testing.assert_array_equal(linear.matrix(), weight((12, 16)))
    assert ops(loaded) == {"Gather": 1, "DequantizeLinear": 1, "MatMul": 1}


def test_a_new_weight_leaves_those_who_share_the_old_one_alone(build: Build) -> None:
    text = """g (float[2,4] x) => (float[] y) {
      w = DequantizeLinear(W, sw)  a = MatMul(x, w)  r = Relu(a)  y = MatMul(r, w)
    }"""
    loaded = load(build(text, W=weight((4, 4)), sw=np.float32(0.03)))
    first, second = find_linears(loaded)
    replace_weight(loaded, first, np.zeros((4, 4), np.float32))
    first, second = find_linears(loaded)
    assert not first.matrix().any()
    np.testing.assert_array_equal(second.matrix().T, weight((4, 4)))


@pytest.mark.parametrize("block", [0, 8])
def test_weights_of_four_bits(build: Build, block: int) -> None:
    """One scale a column keeps the integers; scales by blocks of K are folded into the numbers."""
    codes = np.random.default_rng(1).integers(-8, 8, (16, 8))
    scales = numbers(8) if not block else numbers(2, 8)
    attributes = "axis = 1" if not block else "axis = 0, block_size = 8"
    text = f"g (float[3,16] x) => (float[] y) {{ w = DequantizeLinear<{attributes}>(W, sw)  y = MatMul(x, w) }}"
    model = build(text, 21, sw=scales)
    model.ir_version = 10
    model.graph.initializer.append(helper.make_tensor("W", onnx.TensorProto.INT4, (16, 8), codes.reshape(-1)))
    (linear,) = find_linears(load(model))
    wide = codes if not block else codes * np.repeat(scales, 8, axis=0)
    np.testing.assert_array_equal(linear.matrix().T, wide.astype(np.float32))
    assert linear.quantised == (not block)


def scaled(name: str, scale: float, zero: int, dtype: int = U8) -> list[onnx.TensorProto]:
    kind = np.uint8 if dtype == U8 else np.int8
    return [
        numpy_helper.from_array(np.array(scale, np.float32), f"{name}_s"),
        numpy_helper.from_array(np.array(zero, kind), f"{name}_z"),
    ]


CONTRIB: dict[str, tuple[list[str], dict[str, Any]]] = {
    "QLinearAdd": (["a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z"], {}),
    "QLinearMul": (["a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z"], {}),
    "QLinearLeakyRelu": (["a", "a_s", "a_z", "y_s", "y_z"], {"alpha": 0.1}),
    "QLinearConcat": (["y_s", "y_z", "a", "a_s", "a_z", "b", "b_s", "b_z"], {"axis": 1}),
    "MatMulIntegerToFloat": (["a", "W", "a_s", "W_s", "a_z", "W_z", "bias"], {}),
    "QGemm": (["a", "a_s", "a_z", "W", "W_s", "W_z", "whole", "y_s", "y_z"], {"alpha": 1.0}),
    "QLinearMatMul": (["a", "a_s", "a_z", "W", "W_s", "W_z", "y_s", "y_z"], {}),
}


@pytest.mark.parametrize("op", CONTRIB)
def test_operators_that_quantisers_write(op: str) -> None:
    """On top of codes of a and b; additions and products of onnxruntime round twice, hence one code apart at most."""
    inputs, attributes = CONTRIB[op]
    domain = "" if op == "QLinearMatMul" else "com.microsoft"
    out = FLOAT if op == "MatMulIntegerToFloat" else U8
    constants = [
        *scaled("a", 0.02, 120),
        *scaled("b", 0.03, 140),
        *scaled("y", 0.08, 110),
        *scaled("W", 0.04, 2, S8),
        numpy_helper.from_array(weight((16, 8)), "W"),
        numpy_helper.from_array(numbers(8), "bias"),
        numpy_helper.from_array(np.arange(8, dtype=np.int32) * 100, "whole"),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], "n", domain=domain, **attributes)],
        "contrib",
        [helper.make_tensor_value_info(name, U8, [4, 16]) for name in ("a", "b") if name in inputs],
        [helper.make_tensor_value_info("y", out, None)],
        [each for each in constants if each.name in inputs],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    rng = np.random.default_rng(5)
    feeds: dict[str, Array] = {
        name: rng.integers(0, 256, (4, 16)).astype(np.uint8) for name in ("a", "b") if name in inputs
    }
    loaded = load(model)
    (result,) = Session(loaded, optimise=False).run(feeds).values()
    apart = np.abs(result.astype(np.float64) - expected(model, feeds))
    assert apart.max() <= (1 if op in ("QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "QLinearConcat") else 0)
    assert ("MatMulInteger" in ops(loaded)) == ("W" in inputs)


def test_dynamic_quantize_matmul() -> None:
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeMatMul", ["x", "W", "s", "", "bias"], ["y"], "n", domain="com.microsoft")],
        "contrib",
        [helper.make_tensor_value_info("x", FLOAT, [4, 16])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [
            numpy_helper.from_array(weight((16, 8)), "W"),
            numpy_helper.from_array(np.abs(numbers(8)) / 50, "s"),
            numpy_helper.from_array(numbers(8), "bias"),
        ],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    x = numbers(4, 16)
    loaded = load(model)
    (result,) = Session(loaded, optimise=False).run({"x": x}).values()
    np.testing.assert_allclose(result, expected(model, {"x": x}), rtol=1e-5, atol=1e-6)
    assert ops(loaded)["MatMulInteger"] == 1


@pytest.mark.parametrize(("k", "block", "given"), [(64, 16, True), (64, 32, False), (40, 16, True)])
def test_weights_of_four_bits_by_blocks(k: int, block: int, given: bool) -> None:
    blocks, rng = -(-k // block), np.random.default_rng(0)
    constants: dict[str, Array] = {
        "W": rng.integers(0, 256, (8, blocks, block // 2)).astype(np.uint8),
        "s": np.abs(rng.standard_normal(8 * blocks)).astype(np.float32),
    }
    if given:
        constants["z"] = rng.integers(0, 256, 8 * -(-blocks // 2)).astype(np.uint8)
    attributes: dict[str, Any] = {"K": k, "N": 8, "bits": 4, "block_size": block}
    node = helper.make_node("MatMulNBits", ["x", *constants], ["y"], "n", domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "contrib",
        [helper.make_tensor_value_info("x", FLOAT, [3, k])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    x = numbers(3, k)
    (result,) = Session(load(model)).run({"x": x}).values()
    np.testing.assert_allclose(result, expected(model, {"x": x}), rtol=1e-4, atol=1e-4)


def test_a_weight_on_the_left_is_turned_round(build: Build) -> None:
    text = """g (float[16,5] x) => (float[] y) {
      q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)  w = DequantizeLinear(W, sw)  y = MatMul(w, d)
    }"""
    model = build(text, W=weight((8, 16)), sw=np.float32(0.03), sx=np.float32(0.02), zx=np.uint8(120))
    loaded = load(model)
    assert ops(loaded)["MatMulInteger"] == 1
    x = numbers(16, 5)
    (result,) = Session(loaded, optimise=False).run({"x": x}).values()
    np.testing.assert_allclose(result, expected(model, {"x": x}), rtol=1e-5, atol=1e-5)

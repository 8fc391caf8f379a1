"""Products of any bytes as products of signed ones: the sums are those of whole-number arithmetic, always."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from flexc.frontend.load import load
from flexc.passes.prune import NM_KEY, prune
from flexc.passes.quantise import quantise
from flexc.passes.session import Session

Array = npt.NDArray[Any]
TYPES: dict[Any, int] = {np.uint8: onnx.TensorProto.UINT8, np.int8: onnx.TensorProto.INT8}
KINDS = list(itertools.product(TYPES, TYPES))


def parse(text: str, **weights: Array) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def product(op: str, act: Any, x: tuple[int, ...], w: Array, zx: Array | None, zw: Array, **attributes: Any) -> Any:
    """A model of one integer product; a zero point of x that is None comes in at run time."""
    inputs = [helper.make_tensor_value_info("x", TYPES[act], x)]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(zw, "zw")]
    if zx is None:
        inputs.append(helper.make_tensor_value_info("zx", TYPES[act], []))
    else:
        constants.append(numpy_helper.from_array(zx, "zx"))
    node = helper.make_node(op, ["x", "w", "zx", "zw"], ["y"], "product", **attributes)
    out = [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)]
    graph = helper.make_graph([node], "g", inputs, out, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def all_bytes(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Array:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def signed(model: onnx.ModelProto, method: str = "keep") -> ir.Model:
    """Quantise a model; assert that nothing but products of signed bytes without zero points is left."""
    graph = load(model)
    prune(graph, method)
    graph = quantise(graph)
    for node in graph.graph:
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            assert len(node.inputs) == 2
            assert all(value is not None and value.dtype == ir.DataType.INT8 for value in node.inputs)
    return graph


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("columns", [1, 5])
@pytest.mark.parametrize(("act", "kind"), KINDS)
def test_rows(act: Any, kind: Any, columns: int, known: bool) -> None:
    rng = np.random.default_rng(columns)
    x, w = all_bytes(rng, act, (2, 4, 30)), all_bytes(rng, kind, (30, 5))
    zx = all_bytes(rng, act, ())
    zw = all_bytes(rng, kind, () if columns == 1 else (columns,))
    graph = signed(product("MatMulInteger", act, x.shape, w, zx if known else None, zw))
    (result,) = Session(graph, optimise=False).run({"x": x, "zx": zx}).values()
    wide = (x.astype(np.int64) - zx) @ (w.astype(np.int64) - zw)
    np.testing.assert_array_equal(result, wide)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("act", "kind"), KINDS)
def test_images(act: Any, kind: Any, groups: int, known: bool) -> None:
    rng = np.random.default_rng(groups)
    x, w = all_bytes(rng, act, (1, 4, 6, 5)), all_bytes(rng, kind, (6, 4 // groups, 3, 2))
    zx, zw = all_bytes(rng, act, ()), all_bytes(rng, kind, ())
    attributes = {"pads": [1, 0, 2, 1], "strides": [1, 2], "group": groups}
    graph = signed(product("ConvInteger", act, x.shape, w, zx if known else None, zw, **attributes))
    (result,) = Session(graph, optimise=False).run({"x": x, "zx": zx}).values()
    text = f"g (float[1,4,6,5] x) => (float[] y) {{ y = Conv<pads=[1,0,2,1], strides=[1,2], group={groups}>(x, w) }}"
    exact = Session(ir.from_proto(parse(text, w=w.astype(np.float32) - np.float32(zw))))  # below 2^24: exact
    (expected,) = exact.run({"x": x.astype(np.float32) - np.float32(zx)}).values()
    np.testing.assert_array_equal(result, expected)


def sparse(rng: np.random.Generator, kind: Any, zero: int) -> Array:
    """A weight [32, 6] of whose every eight numbers along K two are not the zero point."""
    w = all_bytes(rng, kind, (32, 6))
    kept = rng.random((4, 8, 6)).argsort(axis=1) < 2
    return np.where(kept.reshape(32, 6), w, kind(zero))


@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 128), (np.uint8, 90), (np.int8, 0), (np.int8, -40)])
def test_a_zero_point_counts_as_a_zero(kind: Any, zero: int) -> None:
    """Also where codes less zero point need nine bits: the sum of two products, sparse both."""
    rng = np.random.default_rng(0)
    x, w = all_bytes(rng, np.uint8, (3, 32)), sparse(rng, kind, zero)
    graph = signed(product("MatMulInteger", np.uint8, x.shape, w, np.asarray(np.uint8(77)), np.asarray(kind(zero))))
    patterns = [node.metadata_props[NM_KEY] for node in graph.graph if NM_KEY in node.metadata_props]
    assert set(patterns) == {"2:8"}
    assert len(patterns) == (1 if zero in (0, 128) else 2)
    (result,) = Session(graph, optimise=False).run({"x": x}).values()
    np.testing.assert_array_equal(result, (x.astype(np.int64) - 77) @ (w.astype(np.int64) - zero))


def test_pruning_acts_on_the_integers() -> None:
    """What is pruned becomes the zero point, and everything kept stays as it came."""
    rng = np.random.default_rng(0)
    w = all_bytes(rng, np.uint8, (32, 6))
    model = load(product("MatMulInteger", np.uint8, (3, 32), w, np.asarray(np.uint8(7)), np.asarray(np.uint8(100))))
    from flexc.passes.pattern import NM

    report = prune(model, "magnitude", NM(2, 4))
    assert report.reached == pytest.approx(0.5, abs=0.02)
    (node,) = model.graph
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    pruned = weight.const_value.numpy()
    assert pruned.dtype == np.uint8
    kept = pruned == w
    assert (pruned[~kept] == 100).all()
    size = np.abs(w.astype(int) - 100).reshape(8, 4, 6)
    assert (np.where(kept.reshape(8, 4, 6), size, 0).sum(axis=1) == np.sort(size, axis=1)[:, 2:].sum(axis=1)).all()


def test_a_weight_alone_keeps_its_integers() -> None:
    """MatMul of floats with a dequantised weight: activations are quantised at run time, the weight is not again."""
    w = all_bytes(np.random.default_rng(0), np.int8, (16, 8))
    scales = np.linspace(0.01, 0.02, 8).astype(np.float32)
    text = "g (float[3,16] x) => (float[] y) { d = DequantizeLinear<axis = 1>(w, s)  y = MatMul(x, d) }"
    graph = signed(parse(text, w=w, s=scales))
    (node,) = [node for node in graph.graph if node.op_type == "MatMulInteger"]
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), w)
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    (result,) = Session(graph).run({"x": x}).values()
    np.testing.assert_allclose(result, x @ (w * scales), atol=0.2)


def test_bytes_are_quantised_signed_in_the_first_place() -> None:
    """One QuantizeLinear serves the product and whoever dequantises its codes."""
    text = """g (float[3,16] x) => (float[] y, float[] d) {
      q = QuantizeLinear(x, s, z)  a = MatMulInteger(q, w, z)  y = Cast<to = 1>(a)  d = DequantizeLinear(q, s, z)
    }"""
    w = all_bytes(np.random.default_rng(0), np.int8, (16, 8))
    model = parse(text, w=w, s=np.asarray(np.float32(0.01)), z=np.asarray(np.uint8(100)))
    graph = signed(model)
    (node,) = [node for node in graph.graph if node.op_type == "QuantizeLinear"]
    assert node.outputs[0].dtype == ir.DataType.INT8
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    y, d = Session(graph).run({"x": x}).values()
    codes = np.clip(np.rint(x / np.float32(0.01)) + 100, 0, 255) - 100
    np.testing.assert_array_equal(y, codes @ w.astype(np.float64))
    np.testing.assert_array_equal(d, codes.astype(np.float32) * np.float32(0.01))

"""Activations of 16 bits, and scales along an axis or by blocks: on the machine, with the codes of onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import flexc
from flexc.compiler import Options, compile_graph
from flexc.frontend.load import load
from flexc.number_report import number_facts, numbers_report
from tests.frontend.conftest import _run as run

Array = npt.NDArray[Any]
TYPES = {np.int16: TensorProto.INT16, np.uint16: TensorProto.UINT16}
SHAPE = (4, 6)


def model(nodes: list[onnx.NodeProto], held: dict[str, Array], outputs: dict[str, int], opset: int) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    tensors = [numpy_helper.from_array(each, name) for name, each in held.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], infos, tensors), opset_imports=imports, ir_version=10)


def hard(scale: Array, zero: Array) -> Array:
    """Return numbers on ties between codes, at and beyond both ends, and some between."""
    rng = np.random.default_rng(0)
    limits = np.iinfo(zero.dtype)
    ends = [limits.min - int(zero.flat[0]), limits.max - int(zero.flat[0])]
    codes = [*(np.arange(-5, 6) / 2), *(end + step for end in ends for step in (-1, -0.5, 0, 0.5)), 1e9, -1e9]
    fill = rng.uniform(ends[0], ends[1], SHAPE[0] * SHAPE[1] - len(codes))
    numbers = np.array([*codes, *fill]).reshape(SHAPE) * scale.reshape(-1)[0]
    return np.asarray(numbers, np.float32)


@pytest.mark.parametrize("zero", [0, 517])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("domain", "opset"), [("com.microsoft", 14), ("", 21)])
def test_codes_and_what_they_stand_for(domain: str, opset: int, dtype: Any, columns: bool, zero: int) -> None:
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.001, 0.01, SHAPE[1]) if columns else np.array(0.0037)
    held = {"s": scale.astype(np.float32), "z": np.full(scale.shape, zero, dtype)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q", domain=domain, axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "d", domain=domain, axis=1),
    ]
    proto = model(nodes, held, {"q": TYPES[dtype], "y": TensorProto.FLOAT}, opset)
    x = hard(held["s"], held["z"])
    codes, values = run(proto, {"x": x})
    assert {np.iinfo(dtype).min, np.iinfo(dtype).max} <= set(codes.reshape(-1).tolist())
    program = flexc.compile(proto)
    assert not [op for op in program.image.debug.ops if op.engine == "host"]
    result = program.run({"x": x})
    np.testing.assert_array_equal(result.outputs["q"], codes)
    np.testing.assert_array_equal(result.outputs["y"], values)
    assert program.check({"x": x}).passed


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_scales_along_an_axis(dtype: Any, axis: int, block: int) -> None:
    rng = np.random.default_rng(5)
    shape = [size // block if block and place == axis else size for place, size in enumerate(SHAPE)]
    dims = tuple(shape) if block else (SHAPE[axis],)
    held: dict[str, Array] = {"s": rng.uniform(0.01, 0.05, dims).astype(np.float32)}
    held["z"] = rng.integers(0, 100, dims).astype(dtype)
    attributes: dict[str, Any] = {"axis": axis} | ({"block_size": block} if block else {})
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q", **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "d", **attributes),
    ]
    kind = TensorProto.INT8 if dtype == np.int8 else TensorProto.UINT8
    proto = model(nodes, held, {"q": kind, "y": TensorProto.FLOAT}, 21)
    x = 2 * rng.standard_normal(SHAPE).astype(np.float32)
    program = flexc.compile(proto)
    assert not [op for op in program.image.debug.ops if op.engine == "host"]
    for got, expected in zip(program.run({"x": x}).outputs.values(), run(proto, {"x": x}), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_without_a_zero_point_the_type_is_an_attribute() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], "q", output_dtype=TensorProto.INT16),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], "d"),
    ]
    proto = model(nodes, {"s": np.array(0.002, np.float32)}, {"y": TensorProto.FLOAT}, 21)
    x = np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)
    np.testing.assert_array_equal(flexc.compile(proto).run({"x": x}).outputs["y"], run(proto, {"x": x})[0])


@pytest.mark.parametrize(("domain", "opset"), [("com.microsoft", 14), ("", 21)])
def test_weights_of_16_bits_are_numbers(domain: str, opset: int) -> None:
    rng = np.random.default_rng(3)
    held: dict[str, Array] = {
        "w": rng.integers(-32768, 32768, (6, 5)).astype(np.int16),
        "s": np.array(1e-4, np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"], "d", domain=domain),
        helper.make_node("MatMul", ["x", "v"], ["y"], "m"),
    ]
    proto = model(nodes, held, {"y": TensorProto.FLOAT}, opset)
    loaded = load(proto)
    assert [node.op_type for node in loaded.graph] == ["MatMul"]
    (product,) = loaded.graph
    assert product.metadata_props["flexc.codes"] == "requantised"


def test_what_onnxruntime_quantises_statically_runs_on_the_machine(tmp_path: Any) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(4)
    w = rng.standard_normal((6, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "m"), helper.make_node("Relu", ["h"], ["y"], "r")]
    onnx.save(model(nodes, {"w": w}, {"y": TensorProto.FLOAT}, 17), tmp_path / "m.onnx")
    windows = iter([{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(4)])

    base = (quantization.CalibrationDataReader,)
    reader = type("Reader", base, {"get_next": lambda _self: next(windows, None)})
    quantization.quantize_static(
        tmp_path / "m.onnx", tmp_path / "q.onnx", reader(),
        activation_type=quantization.QuantType.QUInt16, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    numbers = numbers_report(compile_graph(tmp_path / "q.onnx", Options()).quantised)
    assert (numbers["values_of_16_bits"], numbers["weights"]) == (2, {"kept": 1})
    assert dict(number_facts(numbers))["16 bits"].startswith("2 values have codes of 16 bits")
    program = flexc.compile(tmp_path / "q.onnx")
    assert {op.engine for op in program.image.debug.ops} <= {"array", "vector", "dma"}
    x = rng.standard_normal(SHAPE).astype(np.float32)
    assert program.check({"x": x}, tmp_path / "q.onnx").passed

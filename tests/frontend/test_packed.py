"""Weights of a few bits by blocks, as onnxruntime's quantisers write them: loaded, they are what onnxruntime reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import flexc
from flexc.compiler import Options, compile_graph
from flexc.frontend.load import load
from flexc.number_report import number_facts, numbers_report
from tests.frontend.conftest import _run as run

Array = npt.NDArray[Any]
N, K = 8, 40
FLOATS: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def model(
    nodes: list[onnx.NodeProto], x: onnx.ValueInfoProto, held: dict[str, Array | onnx.TensorProto], opset: int = 14
) -> onnx.ModelProto:
    tensors = [
        each if isinstance(each, onnx.TensorProto) else numpy_helper.from_array(each, name)
        for name, each in held.items()
    ]
    kind = x.type.tensor_type.elem_type
    result = TensorProto.FLOAT16 if kind == TensorProto.FLOAT16 else TensorProto.FLOAT
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info("y", result, None)], tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def agree(proto: onnx.ModelProto, x: Array, *, atol: float = 1e-4) -> ir.Model:
    """Check that nothing of onnxruntime's domain is left and that both graphs give the same numbers."""
    loaded = load(proto)
    assert all(node.domain == "" for node in loaded.graph)
    (expected,), (got,) = run(proto, {"x": x}), run(ir.to_proto(loaded), {"x": x})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=atol)
    return loaded


def told(loaded: ir.Model) -> str:
    return dict(number_facts(numbers_report(loaded)))["quantised"]


#: bits, block, zero points, whether k is in another order, type: what onnxruntime has kernels for. (With an order that
#: ignores packed zero points, against its own definition.)
PRODUCTS = [
    (4, 16, "packed", False, TensorProto.FLOAT),
    (4, 16, "packed", False, TensorProto.FLOAT16),
    (4, 16, "numbers", False, TensorProto.FLOAT),
    (4, 16, "numbers", True, TensorProto.FLOAT),
    (4, 16, "none", True, TensorProto.FLOAT),
    (8, 32, "packed", False, TensorProto.FLOAT),
    (8, 32, "none", False, TensorProto.FLOAT16),
    (2, 16, "packed", False, TensorProto.FLOAT),
]


@pytest.mark.parametrize(("bits", "block", "zeros", "order", "kind"), PRODUCTS)
def test_a_product(bits: int, block: int, zeros: str, order: bool, kind: int) -> None:
    rng, blocks, real = np.random.default_rng(bits), -(-K // block), FLOATS[kind]
    held: dict[str, Any] = {
        "w": rng.integers(0, 256, (N, blocks, block * bits // 8), np.uint8),
        "s": rng.uniform(0.1, 0.3, (N, blocks)).astype(real),
    }
    if zeros == "packed":
        held["z"] = rng.integers(0, 256, (N, -(-blocks * bits // 8)), np.uint8)
    elif zeros == "numbers":
        held["z"] = rng.uniform(0, 1 << bits, (N, blocks)).astype(real)
    if order:
        held["o"] = rng.integers(0, blocks, K).astype(np.int32)
    held["b"] = rng.standard_normal(N).astype(real)
    names = ["x", *(name if name in held else "" for name in ("w", "s", "z", "o", "b"))]
    node = helper.make_node(
        "MatMulNBits", names, ["y"], "n", domain="com.microsoft", N=N, K=K, bits=bits, block_size=block
    )
    x = rng.standard_normal((2, 3, K)).astype(real)
    loaded = agree(model([node], helper.make_tensor_value_info("x", kind, x.shape), held), x, atol=0.05 * (kind == 10))
    assert told(loaded).endswith("; 1 was quantised in a way the array has not, and anew to INT8")


@pytest.mark.parametrize("kind", [0, 1])
def test_a_product_of_four_bit_floats(kind: int) -> None:
    rng = np.random.default_rng(kind)
    held = {
        "w": rng.integers(0, 256, N * K // 2, np.uint8),
        "s": rng.uniform(0.1, 0.3, N * K // 16).astype(np.float32),
    }
    attributes: dict[str, Any] = {"N": N, "K": K, "block_size": 16, "quant_type": kind}
    node = helper.make_node("MatMulBnb4", ["x", *held], ["y"], "n", domain="com.microsoft", **attributes)
    x = rng.standard_normal((3, K)).astype(np.float32)
    agree(model([node], helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape), dict(held)), x)


TYPES = {"int4": (TensorProto.INT4, -8, 8), "uint4": (TensorProto.UINT4, 0, 16), "bytes": (TensorProto.UINT8, 0, 256)}


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize(("kind", "bits", "axes"), [
    ("int4", 4, (0, 1)), ("uint4", 4, (0, 1)), ("uint4", 4, (1, 0)), ("bytes", 4, (0, 1)), ("bytes", 8, (0, 1)),
])  # fmt: skip
def test_rows_of_a_table(kind: str, bits: int, axes: tuple[int, int], zeros: bool) -> None:
    rng, shape = np.random.default_rng(3), (32, 64)
    code, low, high = TYPES[kind]
    scales = [size // 16 if place == axes[1] else size for place, size in enumerate(shape)]
    per_byte = 8 // bits if kind == "bytes" else 1

    def codes(name: str, rows: int, columns: int) -> onnx.TensorProto:
        return helper.make_tensor(name, code, (rows, columns), rng.integers(low, high, rows * columns))

    held: dict[str, Any] = {
        "w": codes("w", shape[0], shape[1] // per_byte),
        "s": rng.uniform(0.1, 0.3, scales).astype(np.float32),
    }
    if zeros:
        held["z"] = codes("z", scales[0], scales[1] // per_byte)
    attributes: dict[str, Any] = {"gather_axis": axes[0], "quantize_axis": axes[1], "block_size": 16}
    attributes |= {"bits": bits} if kind == "bytes" else {}
    node = helper.make_node(
        "GatherBlockQuantized", ["w", "x", "s", *(["z"] if zeros else [])], ["y"], "n", domain="com.microsoft",
        **attributes
    )  # fmt: skip
    x = rng.integers(-32, 32, (2, 5))
    loaded = agree(model([node], helper.make_tensor_value_info("x", TensorProto.INT64, x.shape), held), x, atol=0)
    assert told(loaded) == "1 table was dequantised"


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("scales", [1, N])
@pytest.mark.parametrize("kind", ["int4", "uint4"])
def test_four_bits_below_opset_21(kind: str, scales: int, zero: bool) -> None:
    rng = np.random.default_rng(4)
    code, low, high = TYPES[kind]
    shape = () if scales == 1 else (scales,)
    held: dict[str, Any] = {
        "w": helper.make_tensor("w", code, (16, N), rng.integers(low, high, 16 * N)),
        "s": rng.uniform(0.1, 0.3, shape).astype(np.float32),
    }
    if zero:
        held["z"] = helper.make_tensor("z", code, shape, rng.integers(low, high, scales))
    nodes = [
        helper.make_node("DequantizeLinear", list(held), ["v"], "d", domain="com.microsoft", axis=1),
        helper.make_node("MatMul", ["x", "v"], ["y"], "n"),
    ]
    x = rng.standard_normal((3, 16)).astype(np.float32)
    proto = model(nodes, helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape), held)
    agree(proto, x)
    assert told(compile_graph(proto, Options()).quantised) == "1 of 1 linears keep the integers of the file"


def test_what_the_quantiser_of_onnxruntime_writes_runs_on_the_machine() -> None:
    quantiser = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    rng = np.random.default_rng(5)
    held = {"t": rng.standard_normal((32, 64)).astype(np.float32), "w": rng.standard_normal((64, 32)).astype("f")}
    nodes = [helper.make_node("Gather", ["t", "x"], ["r"], "rows"), helper.make_node("MatMul", ["r", "w"], ["y"], "n")]
    x = rng.integers(0, 32, (1, 6))
    proto = model(nodes, helper.make_tensor_value_info("x", TensorProto.INT64, x.shape), dict(held))
    four = quantiser.MatMulNBitsQuantizer(
        proto, block_size=16, op_types_to_quantize=("MatMul", "Gather"), quant_axes=(("MatMul", 0), ("Gather", 1))
    )
    four.process()
    agree(four.model.model, x)
    program = flexc.compile(four.model.model)
    assert program.check({"x": x}).passed
    assert not [op for op in program.image.debug.ops if op.engine == "host"]
    text = told(compile_graph(four.model.model, Options()).quantised)
    assert text.startswith("0 of 1 linears keep the integers of the file; 1 was quantised in a way the array has not")
    assert text.endswith("; 1 table was dequantised")


def test_a_weight_made_at_run_time_is_left_to_the_host() -> None:
    attributes: dict[str, Any] = {"N": N, "K": 32, "block_size": 16, "bits": 4}
    node = helper.make_node("MatMulNBits", ["a", "x", "s"], ["y"], "n", domain="com.microsoft", **attributes)
    held = {"a": np.ones((2, 32), np.float32), "s": np.ones((N, 2), np.float32)}
    proto = model([node], helper.make_tensor_value_info("x", TensorProto.UINT8, (N, 2, 8)), dict(held))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, N)))
    assert [node.op_type for node in load(proto).graph] == ["MatMulNBits"]

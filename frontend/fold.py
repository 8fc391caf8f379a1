"""Constant folding: what a node with constant inputs gives, computed once at compile time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from .codes import folded
from .edit import constant_array, is_constant, static_shape
from .infer import Spec, inner_nodes
from .limits import MAX_ELEMENTS

SIZE_LIMIT = 64 * 2**20  # bytes a folded result may take ...
GROWTH_LIMIT = 4  # ... or this many times its constant inputs, so that weights may be cut, joined and dequantised
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_CASTABLE = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16,
    ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
    ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64, ir.DataType.BOOL,
}  # fmt: skip


def fold(node: ir.Node, specs: Sequence[Spec]) -> list[np.ndarray] | None:
    """Return the outputs of ``node`` if they follow from constants (or from shapes) alone, else None.

    Views (Transpose, Reshape, ...) of memory-mapped weights stay views: nothing is read or copied.

    Args:
        node: a node of the main graph whose inputs have static shapes.
        specs: its inferred output types.
    """
    if node.domain != "":
        return None
    if node.op_type in ("Shape", "Size"):
        return _fold_shape(node)
    if (empty := _fold_empty(specs)) is not None:
        return empty
    if node.op_type in RANDOM or not all(value is None or is_constant(value) for value in node.inputs):
        return None
    if node.op_type in _VIEWS or node.op_type in ("Transpose", "Cast"):
        return _fold_view(node, specs)
    if node.op_type == "ConstantOfShape":
        return _fold_uniform(node)
    if any(True for _ in inner_nodes(node)) or not _fits(node, specs):
        return None
    return folded(node) if node.op_type == "DequantizeLinear" else _evaluate(node, specs)


def _fold_empty(specs: Sequence[Spec]) -> list[np.ndarray] | None:
    """Return outputs that have no elements: whatever the inputs are, these are all there is to know."""
    if not all(spec.shape and 0 in spec.shape and spec.dtype for spec in specs):
        return None
    return [np.empty(spec.shape or (), (spec.dtype or ir.DataType.FLOAT).numpy()) for spec in specs]


def _fold_uniform(node: ir.Node) -> list[np.ndarray] | None:
    """Return one number seen everywhere: of any size, it takes no memory."""
    dims, value = constant_array(node.inputs[0]), node.attributes.get("value")
    if dims is None or math.prod(int(size) for size in dims.reshape(-1)) > MAX_ELEMENTS:
        return None
    number = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    return [np.broadcast_to(number.reshape(()), tuple(int(size) for size in dims.reshape(-1)))]


def _fold_shape(node: ir.Node) -> list[np.ndarray] | None:
    value = node.inputs[0]
    dims = static_shape(value) if value is not None else None
    if dims is None:
        return None
    if node.op_type == "Size":
        return [np.array(math.prod(dims), dtype=np.int64)]
    start, end = node.attributes.get("start"), node.attributes.get("end")
    cut = slice(start.as_int() if start else None, end.as_int() if end else None)
    return [np.array(dims[cut], dtype=np.int64)]


def _fold_view(node: ir.Node, specs: Sequence[Spec]) -> list[np.ndarray] | None:
    value, spec = node.inputs[0], specs[0]
    array = constant_array(value)
    if value is None or array is None or spec.shape is None or spec.dtype is None:
        return None
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return [array.transpose(perm.as_ints() if perm else None)]
    if node.op_type != "Cast":
        return [array.reshape(spec.shape)]
    if value.dtype not in _CASTABLE or spec.dtype not in _CASTABLE:
        return _evaluate(node, specs)
    with np.errstate(invalid="ignore", over="ignore"):  # ONNX leaves a float beyond an integer's range undefined
        return [array.astype(spec.dtype.numpy(), copy=False)]


def _fits(node: ir.Node, specs: Sequence[Spec]) -> bool:
    if not all(spec.complete for spec, value in zip(specs, node.outputs, strict=True) if value.name):
        return True  # a size that depends on the numbers (NonZero, Range): small in practice, known only by computing
    constants = [value.const_value for value in node.inputs if value is not None]
    given = sum(tensor.nbytes for tensor in constants if tensor is not None)
    made = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs if spec.shape is not None and spec.dtype)
    return made <= max(SIZE_LIMIT, GROWTH_LIMIT * given)


@functools.cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException", "InvalidProtobuf")
    errors: list[type[Exception]] = [getattr(state, name) for name in names]
    return (*errors, RuntimeError, TypeError, ValueError)


def _evaluate(node: ir.Node, specs: Sequence[Spec]) -> list[np.ndarray] | None:
    """Run ``node`` alone in onnxruntime; None where that has no kernel for it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    feeds: dict[str, np.ndarray] = {}
    proto = _one_node_model(node, specs, feeds)
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        results: list[Any] = session.run(None, feeds)
    except _runtime_errors():
        return None
    given = iter(results)
    return [next(given) if value.name else np.empty(0) for value in node.outputs]


def _one_node_model(node: ir.Node, specs: Sequence[Spec], feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    proto = onnx.NodeProto(op_type=node.op_type)
    proto.attribute.extend(ir.serde.serialize_attribute(attr) for attr in node.attributes.values())
    graph = onnx.GraphProto(name="fold")
    for i, value in enumerate(node.inputs):
        proto.input.append("" if value is None else f"i{i}")
        if value is not None and value.const_value is not None:
            tensor = value.const_value
            feeds[f"i{i}"] = np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape.numpy())
            graph.input.append(onnx.helper.make_tensor_value_info(f"i{i}", int(tensor.dtype), tensor.shape.numpy()))
    for i, (value, spec) in enumerate(zip(node.outputs, specs, strict=True)):
        proto.output.append(f"o{i}" if value.name else "")
        if value.name:
            graph.output.append(onnx.helper.make_tensor_value_info(f"o{i}", int(spec.dtype or 0), spec.shape))
    graph.node.append(proto)
    opset = onnx.helper.make_opsetid("", _opset(node))
    return onnx.ModelProto(ir_version=10, graph=graph, opset_import=[opset])


def _opset(node: ir.Node) -> int:
    graph = node.graph
    return graph.opset_imports.get("", 13) if graph is not None else 13

"""Models with a Scan, a Loop or a recurrent layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, parser

Array = npt.NDArray[Any]
FLOAT = onnx.TensorProto.FLOAT


def model_of(graph: onnx.GraphProto, opset: int = 20) -> onnx.ModelProto:
    """Return a checked model."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def one_node(
    node: onnx.NodeProto, inputs: dict[str, Array], constants: dict[str, Array] | None = None
) -> onnx.ModelProto:
    """Return the model of one node; outputs get their shapes from onnx's rules."""
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", infos, outputs)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in (constants or {}).items())
    bare = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(bare)
    for info in inferred.graph.output:
        if not info.type.tensor_type.HasField("shape"):  # a Loop may change the shape of its state; these do not
            info.type.CopyFrom(inferred.graph.input[0].type)
    return model_of(inferred.graph)


def scan(inputs: dict[str, Array], body: str, scanned: int, outputs: list[str], **attributes: Any) -> onnx.ModelProto:
    """Return the model of one Scan whose body is written in ONNX's own notation."""
    graph = parser.parse_graph(f"body {body}")
    node = helper.make_node("Scan", list(inputs), outputs, body=graph, num_scan_inputs=scanned, **attributes)
    return one_node(node, inputs)


def random(*shape: int, seed: int = 0) -> Array:
    """Return eighths within 2."""
    return (np.random.default_rng(seed).integers(-16, 17, shape) / 8).astype(np.float32)

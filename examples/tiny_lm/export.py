"""Write the trained model as one ONNX file, with the linears named as in the model."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from model import TinyLM


def export(model: TinyLM, path: Path) -> None:
    """Export ``model`` for one window of text: ``tokens`` int64 [1, context] to ``logits`` [1, context, vocabulary]."""
    tokens = torch.zeros(1, model.shape.context, dtype=torch.int64)
    torch.onnx.export(
        model,
        (tokens,),
        path,
        dynamo=True,
        opset_version=20,
        input_names=["tokens"],
        output_names=["logits"],
        external_data=False,
    )
    proto = onnx.load(path)
    _forget_origins(proto.graph)
    _name_linears(proto.graph, list(model.linears()))
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Drop the exporter's notes on where each node came from: stack traces are 6 % of the file and name local paths."""
    for thing in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")


def _name_linears(graph: onnx.GraphProto, names: list[str]) -> None:
    """Give each MatMul by a weight, and that weight, the name of its linear layer; both come in order of execution."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    linears = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    for node, name in zip(linears, names, strict=True):
        node.name = name
        weight = weights[node.input[1]]
        node.input[1] = weight.name = f"{name}.weight"

"""Raising old models to an operator set flexc knows."""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from ..isa.errors import FlexcError
from .source import in_memory

OLDEST = 13
NEWEST = min(28, onnx.defs.onnx_opset_version())  # what the installed onnx has rules for; onnxruntime reads 28
_KEEP_BYTES = 1024  # constants up to this size go through the converter, which may need their numbers


def modernise(model: ir.Model, where: str) -> ir.Model:
    """Return ``model`` at an opset in OLDEST..NEWEST: as it is, or converted to OLDEST.

    Large weights stay out of the conversion (and on disk).

    Raises:
        FlexcError: the opset is newer than NEWEST, or the converter cannot raise it.
    """
    version = model.opset_imports.get("")
    if version is None:
        model.opset_imports[""] = NEWEST if not any(node.domain == "" for node in model.graph) else 0
        version = model.opset_imports[""]
    if version > NEWEST:
        text = f"operator set {version} is newer than this flexc knows ({NEWEST})"
        raise FlexcError(text, where=where, remedy=f"export the model with opset_version={NEWEST} or lower")
    if version >= OLDEST:
        return model
    try:
        return _convert(model)
    except (onnx.version_converter.ConvertError, RuntimeError) as error:
        text = f"operator set {version} cannot be raised to {OLDEST}: {' '.join(str(error).split())}"
        raise FlexcError(text, where=where, remedy=f"export the model with opset_version={OLDEST} or higher") from error


def _convert(model: ir.Model) -> ir.Model:
    graph = model.graph
    weights: dict[str, ir.TensorProtocol] = {}
    for name, value in tuple(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _KEEP_BYTES:
            weights[name] = tensor
            del graph.initializers[name]
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            if not value.is_graph_input():
                graph.inputs.append(value)
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = in_memory(tensor)
    notes = _swap_notes(model)
    converted = onnx.version_converter.convert_version(ir.serde.serialize_model(model), OLDEST)
    result = ir.serde.deserialize_model(converted)
    for node in result.graph.all_nodes():
        if node.doc_string:
            node.metadata_props.update(notes[int(node.doc_string)])
            node.doc_string = None
    for value in tuple(result.graph.inputs):
        if value.name in weights:
            result.graph.inputs.remove(value)
            value.const_value = weights[value.name]
            result.graph.register_initializer(value)
    return result


def _swap_notes(model: ir.Model) -> list[dict[str, str]]:
    """Give every node a number as its doc string and return their metadata, which the converter drops."""
    nodes = list(model.graph.all_nodes())
    for number, node in enumerate(nodes):
        node.doc_string = str(number)
    return [dict(node.metadata_props) for node in nodes]

"""ONNX's own definitions: an operator that is declared as a function of others is put in its place.

Rules of ours come first (they are written for this machine); what they leave, and what is listed here, is taken from
the operator's schema, at the operator set of the model.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from ..edit import Editor

#: Operators whose function body consists of what the machine has.
EXPANDED = (
    "Attention", "CenterCropPad", "GroupNormalization", "MeanVarianceNormalization", "NegativeLogLikelihoodLoss",
    "RotaryEmbedding", "SoftmaxCrossEntropyLoss", "SwiGLU",
)  # fmt: skip


def expand(node: ir.Node, editor: Editor) -> bool:
    """Put the function body of a node in its place."""
    if any(value is not None and value.dtype == ir.DataType.DOUBLE for value in node.inputs):
        return False
    graph = node.graph
    assert graph is not None
    body = _body(node, graph.opset_imports[""])
    if body is None:
        return False
    _inline(node, body, editor)
    return True


def _body(node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    """Return the function of the newest operator set up to the model's."""
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")  # its type stubs leave functions out
    function = onnx.FunctionProto()
    if schema.has_function:
        versions = [version for version in schema.function_opset_versions if version <= opset]
        if not versions:
            return None
        function.ParseFromString(schema.get_function_with_opset_version(max(versions)))
        return function
    versions = [version for version in schema.context_dependent_function_opset_versions if version <= opset]
    if not versions:
        return None
    types = [_type(value).SerializeToString() for value in node.inputs]
    proto = ir.serde.serialize_node(node)
    text = schema.get_context_dependent_function_with_opset_version(max(versions), proto.SerializeToString(), types)
    function.ParseFromString(text)
    return function


def _type(value: ir.Value | None) -> onnx.TypeProto:
    return onnx.TypeProto() if value is None else ir.serde.serialize_value(value).type


def _inline(node: ir.Node, function: onnx.FunctionProto, editor: Editor) -> None:
    """Copy the nodes of a function in front of ``node``, with its operands and attributes, and remove it."""
    values: dict[str, ir.Value | None] = {"": None}
    for number, name in enumerate(function.input):
        values[name] = node.inputs[number] if number < len(node.inputs) else None
    for count, each in enumerate(function.node):
        attributes = [found for attribute in each.attribute if (found := _attribute(attribute, node)) is not None]
        inputs = [values[name] for name in each.input]
        new = ir.Node(
            each.domain, each.op_type, inputs, attributes, num_outputs=len(each.output), name=f"{node.name}.{count}"
        )
        new.metadata_props.update(node.metadata_props)
        for name, made in zip(each.output, new.outputs, strict=True):
            made.name = f"{node.name}.{name}" if name else ""
            values[name] = made if name else None
        editor.adopt(node, new)
    results = [values[name] for name in function.output[: len(node.outputs)]]
    editor.substitute(node, [value for value in results if value is not None])


def _attribute(attribute: onnx.AttributeProto, node: ir.Node) -> ir.Attr | None:
    """Return an attribute of the body, taken from the node or its schema where it refers to one; None if left out."""
    name = attribute.ref_attr_name
    if not name:
        return ir.serde.deserialize_attribute(attribute)
    given = node.attributes.get(name)
    if given is not None:
        return ir.Attr(attribute.name, given.type, given.value)
    graph = node.graph
    assert graph is not None
    known = onnx.defs.get_schema(node.op_type, graph.opset_imports[""], "").attributes[name].default_value
    if known.type == onnx.AttributeProto.UNDEFINED:
        return None
    default = ir.serde.deserialize_attribute(known)
    return ir.Attr(attribute.name, default.type, default.value)

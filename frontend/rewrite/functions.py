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
    "Attention", "CausalConvWithState", "CenterCropPad", "GroupNormalization", "LinearAttention",
    "MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "RotaryEmbedding", "SoftmaxCrossEntropyLoss", "SwiGLU",
)  # fmt: skip


def expand(node: ir.Node, editor: Editor) -> bool:
    """Put the function body of a node in its place."""
    if any(value is not None and value.dtype in (None, ir.DataType.DOUBLE) for value in node.inputs):
        return False  # not written for float64, nor for what an invalid node before it leaves without a type
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


def _inline(node: ir.Node, proto: onnx.FunctionProto, editor: Editor) -> None:
    """Put the nodes of a function in front of ``node``, with its operands and attributes, and remove it."""
    del proto.output[len(node.outputs) :]  # where fewer are asked for, the body makes fewer
    function = ir.serde.deserialize_function(proto)
    nodes, results = list(function), list(function.outputs)
    for inner in function.all_nodes():
        _resolve(inner, node)
    for number, value in enumerate(function.inputs):
        given = node.inputs[number] if number < len(node.inputs) else None
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, given)
    function.graph.outputs.clear()
    function.remove(nodes)
    for count, new in enumerate(nodes):
        new.name = f"{node.name}.{count}"
        new.metadata_props.update(node.metadata_props)
        for made in new.outputs:
            made.name = f"{node.name}.{made.name}" if made.name else ""
        editor.adopt(node, new)
    editor.substitute(node, results)


def _resolve(inner: ir.Node, node: ir.Node) -> None:
    """Give a node of the body the attributes that it takes from the function's node, or from its schema."""
    for attribute in tuple(inner.attributes.values()):
        if attribute.is_ref():
            found = _referred(attribute, node)
            if found is None:
                del inner.attributes[attribute.name]
            else:
                inner.attributes[attribute.name] = found


def _referred(attribute: ir.Attr, node: ir.Node) -> ir.Attr | None:
    """Return an attribute that refers to one of ``node``; None if that is left out and has no default."""
    name = str(attribute.ref_attr_name)
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

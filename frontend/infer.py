"""Type and shape of a node's outputs, from its inputs alone: ONNX's own rules, one node at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx.onnx_cpp2py_export.checker as onnx_checker
import onnx.shape_inference
import onnx_ir as ir

from ..isa.errors import FlexcError
from .edit import is_constant, static_shape

DATA_LIMIT = 1024  # elements: constants up to this size may steer a shape (Reshape, Slice, Resize)


@dataclass(frozen=True)
class Spec:
    """What is known about one output: element type, and dims where all are known."""

    dtype: ir.DataType | None
    shape: tuple[int, ...] | None

    @property
    def complete(self) -> bool:
        """Whether both the element type and every dim are known."""
        return self.dtype is not None and self.shape is not None


UNKNOWN = Spec(None, None)


class Inference:
    """Checks nodes against their operators' schemas and infers output types.

    Equal nodes on equal input types are inferred once, so unrolled models cost little.

    Args:
        opsets: version of every operator domain the model imports.
        ir_version: ONNX IR version of the model.
    """

    def __init__(self, opsets: Mapping[str, int], ir_version: int) -> None:
        self._opsets = dict(opsets)
        self._imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self._ir_version = ir_version
        self._context = onnx_checker.CheckerContext()
        self._context.ir_version = ir_version
        self._context.opset_imports = self._opsets
        self._known: dict[tuple[object, ...], list[Spec]] = {}

    def outputs(self, node: ir.Node, where: str) -> list[Spec]:
        """Return one :class:`Spec` per output of ``node``.

        Raises:
            FlexcError: the node breaks its operator's schema, or its inputs do not fit together.
        """
        try:
            if any(attr.type in _GRAPHS for attr in node.attributes.values()):
                return self._in_a_model(node, ir.serde.serialize_node(node))
            key, proto, types, data = self._describe(node)
            if key not in self._known:
                self._known[key] = self._infer(node, proto, types, data)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split()).partition(" ==> ")[0]
            raise FlexcError(f"not a valid ONNX node: {text}", where=where) from error
        return self._known[key]

    def _describe(
        self, node: ir.Node
    ) -> tuple[tuple[object, ...], onnx.NodeProto, dict[str, onnx.TypeProto], dict[str, onnx.TensorProto]]:
        proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
        proto.attribute.extend(ir.serde.serialize_attribute(attr) for attr in node.attributes.values())
        proto.output.extend(f"o{i}" if value.name else "" for i, value in enumerate(node.outputs))
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for i, value in enumerate(node.inputs):
            proto.input.append(f"i{i}" if value is not None else "")
            if value is not None:
                types[f"i{i}"] = _type_proto(value)
            if value is not None and (tensor := _small_constant(value, f"i{i}")) is not None:
                data[f"i{i}"] = tensor
        parts = [part.SerializeToString() for part in types.values()]
        numbers = [part.SerializeToString() for part in data.values()]
        key = (proto.SerializeToString(deterministic=True), *parts, *numbers)
        return key, proto, types, data

    def _infer(
        self, node: ir.Node, proto: onnx.NodeProto, types: dict[str, onnx.TypeProto], data: dict[str, onnx.TensorProto]
    ) -> list[Spec]:
        onnx.checker.check_node(proto, self._context)
        if not onnx.defs.has(node.op_type, node.domain):
            return [UNKNOWN] * len(node.outputs)
        schema = onnx.defs.get_schema(node.op_type, self._opsets[node.domain], node.domain)
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=self._imports, ir_version=self._ir_version
        )
        specs = [_spec(found.get(name)) for name in proto.output]
        if all(spec.complete for spec, name in zip(specs, proto.output, strict=True) if name):
            return specs
        if node.op_type in _LIKE_INPUT and node.domain == "":
            return [_spec(types["i0"])]
        return self._in_a_model(node, ir.serde.serialize_node(node))

    def _in_a_model(self, node: ir.Node, proto: onnx.NodeProto) -> list[Spec]:
        """Infer through a model of this one node: reaches function bodies and subgraphs."""
        graph = onnx.GraphProto(name="one node")
        graph.node.append(proto)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output if name)
        for value in {value.name: value for value in reads(node)}.values():
            graph.input.append(onnx.ValueInfoProto(name=value.name, type=_type_proto(value)))
            if (tensor := _small_constant(value, str(value.name))) is not None:
                graph.initializer.append(tensor)
        model = onnx.ModelProto(ir_version=self._ir_version, graph=graph, opset_import=self._imports)
        found = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        for original, inferred in zip(_subgraphs(node), _proto_subgraphs(found.graph.node[0]), strict=True):
            _record_inner(original, inferred)
        types = {value.name: value.type for value in found.graph.output}
        return [_spec(types.get(name)) for name in proto.output]


_LIKE_INPUT = {"GroupNormalization", "MeanVarianceNormalization"}  # ONNX has no shape rule for these
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _small_constant(value: ir.Value, name: str) -> onnx.TensorProto | None:
    tensor = value.const_value
    if tensor is None or not is_constant(value) or tensor.size > DATA_LIMIT or tensor.dtype == ir.DataType.STRING:
        return None
    dims, data = tensor.shape.numpy(), tensor.tobytes()
    return onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=dims, raw_data=data)


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    shape = static_shape(value)
    if isinstance(value.type, ir.TensorType) and shape is not None:
        return onnx.helper.make_tensor_type_proto(int(value.type.dtype), shape)
    proto = ir.serde.serialize_value(value)
    return proto.type


def _spec(proto: onnx.TypeProto | None) -> Spec:
    if proto is None or not proto.HasField("tensor_type"):
        return UNKNOWN
    tensor = proto.tensor_type
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return Spec(dtype, None)
    return Spec(dtype, tuple(dim.dim_value for dim in tensor.shape.dim))


def record(value: ir.Value, spec: Spec) -> None:
    """Give ``value`` the type and shape of ``spec``; what the spec does not know stays as it is."""
    if spec.dtype is not None:
        value.type = ir.TensorType(spec.dtype)
    if spec.shape is not None:
        value.shape = ir.Shape(spec.shape)


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()


def _proto_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attr in node.attribute:
        if attr.type == onnx.AttributeProto.GRAPH:
            yield attr.g
        elif attr.type == onnx.AttributeProto.GRAPHS:
            yield from attr.graphs


def inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes inside the subgraphs of ``node``, at any depth."""
    for graph in _subgraphs(node):
        for inner in graph:
            yield inner
            yield from inner_nodes(inner)


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what ``node`` reads from its own graph and outer ones, through its subgraphs too."""
    yield from (value for value in node.inputs if value is not None)
    inner = list(inner_nodes(node))
    own = {value for each in inner for value in each.outputs}
    own |= {value for graph in _all_subgraphs(node) for value in graph.inputs}
    for each in inner:
        yield from (value for value in each.inputs if value is not None and value not in own)
    for graph in _all_subgraphs(node):
        yield from (value for value in graph.outputs if value not in own)


def _all_subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for owner in (node, *inner_nodes(node)):
        yield from _subgraphs(owner)


def _record_inner(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    infos = (*proto.input, *proto.output, *proto.value_info)
    types = {value.name: value.type for value in infos}
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        if value.name in types:
            record(value, _spec(types[value.name]))
    for node, inferred in zip(graph, proto.node, strict=True):
        for inner, inner_proto in zip(_subgraphs(node), _proto_subgraphs(inferred), strict=True):
            _record_inner(inner, inner_proto)

"""Reading an ONNX file: found, whole, and with its external data inside its own folder."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from ..isa.errors import FlexcError
from .limits import refuse_many_nodes

_EXPORT_AGAIN = "export or download the model again"


def read(source: str | os.PathLike[str] | onnx.ModelProto | ir.Model) -> tuple[ir.Model, str]:
    """Return a model of its own (the source is not changed) and its name for error messages.

    External data is checked but not read: weights are memory-mapped when they are first used.

    Raises:
        FlexcError: no such file, not ONNX, truncated, or external data missing, short or outside the folder.
    """
    if isinstance(source, ir.Model):
        return source.clone(), source.graph.name or "model"
    if isinstance(source, onnx.ModelProto):
        model, where = _deserialize(source, "model"), "model"
        _check_external(model, Path.cwd(), where)
        return model, where
    path = Path(source)
    model = _deserialize(_parse(path), str(path))
    ir.external_data.set_base_dir(model.graph, path.parent)
    _check_external(model, path.parent, str(path))
    _keep_attributes(model, path.parent)
    return model, str(path)


def _parse(path: Path) -> onnx.ModelProto:
    where = str(path)
    if path.is_dir():
        inside = sorted(each.name for each in path.glob("*.onnx"))
        remedy = f"give the file in it, as in {path / inside[0]}" if inside else "give the path of an .onnx file"
        raise FlexcError("is a folder, not an ONNX file", where=where, remedy=remedy)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FlexcError("no such file", where=where, remedy="check the path") from error
    except OSError as error:
        raise FlexcError(f"cannot be read: {error.strerror}", where=where, remedy="check its permissions") from error
    decode_error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except decode_error as error:
        raise FlexcError("not an ONNX file, or cut short", where=where, remedy=_EXPORT_AGAIN) from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise FlexcError("not an ONNX model: it holds no graph", where=where, remedy=_EXPORT_AGAIN)
    return proto


def _deserialize(proto: onnx.ModelProto, where: str) -> ir.Model:
    if proto.graph.sparse_initializer:
        raise FlexcError("sparse initializers are not supported", where=where, remedy="store the weights dense")
    refuse_many_nodes(len(proto.graph.node) + sum(len(function.node) for function in proto.functions), where)
    try:
        return ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        text = " ".join(str(error.__cause__ or error).split())
        raise FlexcError(f"not a valid ONNX model: {text}", where=where, remedy=_EXPORT_AGAIN) from error


def _keep_attributes(model: ir.Model, folder: Path) -> None:
    """Read attributes that lie in other files: they are small, and ONNX's tools look for them in the current folder."""
    for graph in model.graphs():
        for node in graph:
            for name, attr in tuple(node.attributes.items()):
                if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor):
                    attr.value.base_dir = folder
                    node.attributes[name] = ir.AttrTensor(name, in_memory(attr.value))


def in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a copy of a tensor that needs no file."""
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attr in node.attributes.values():
                if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor):
                    yield attr.value


def _check_external(model: ir.Model, folder: Path, where: str) -> None:
    sizes: dict[str, int] = {}
    for tensor in _external_tensors(model):
        location = str(tensor.location)
        if location not in sizes:
            sizes[location] = _size_of(location, folder, where)
        _check_extent(tensor, location, sizes[location], where)


def _size_of(location: str, folder: Path, where: str) -> int:
    """Return the size in bytes of an external data file that may be read."""
    if not location:
        raise FlexcError("an external tensor names no file", where=where, remedy=_EXPORT_AGAIN)
    file = folder / location
    inside = not Path(location).is_absolute() and file.resolve().is_relative_to(folder.resolve())
    if not inside or ".." in Path(location).parts:
        text = f"external data '{location}' lies outside the model's folder, which is not allowed"
        raise FlexcError(text, where=where, remedy="copy it (no link) beside the model and name it by its file name")
    try:
        status = file.stat()
    except OSError as error:
        text = f"external data file '{location}' is missing"
        raise FlexcError(text, where=where, remedy=f"put it beside the model, at {file}") from error
    if not file.is_file():
        raise FlexcError(f"external data '{location}' is not a file", where=where, remedy=_EXPORT_AGAIN)
    if status.st_nlink > 1:
        text = f"external data '{location}' has several hard links, so it may belong to someone else"
        raise FlexcError(text, where=where, remedy="replace it with a copy of its own")
    return status.st_size


def _check_extent(tensor: ir.ExternalTensor, location: str, size: int, where: str) -> None:
    start = tensor.offset or 0
    if tensor.length is not None and tensor.length != tensor.nbytes:
        text = f"tensor '{tensor.name}' needs {tensor.nbytes} bytes, but the file claims {tensor.length}"
        raise FlexcError(text, where=where, remedy=_EXPORT_AGAIN)
    if start < 0 or start + tensor.nbytes > size:
        text = f"external data '{location}' has {size} bytes, tensor '{tensor.name}' ends at {start + tensor.nbytes}"
        raise FlexcError(text, where=where, remedy="the data file is cut short or of another model: fetch it again")

"""Reference graphs inside a program file: what ``--check`` feeds to onnxruntime, with every tensor stored once.

A graph is a blob ``graph/<name>``: its ONNX without data. Each larger tensor is a blob ``tensor/<digest>`` of its
content, so graphs that share a tensor share the blob, and a reader maps just what it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from flexc.isa.errors import FlexcError

Bytes = npt.NDArray[np.uint8]

QUANTISED = "quantised"
"""The INT8 graph that the program was lowered from."""

FLOAT = "float"
"""The fp32 graph after pruning."""

_INLINE_BYTES = 1024
"""Smaller tensors stay in the graph itself."""


def pack(graphs: Mapping[str, ir.Model]) -> dict[str, Bytes]:
    """Return the blobs of graphs by name; tensors are views of the models' own memory wherever they are contiguous."""
    blobs: dict[str, Bytes] = {}
    for name, model in graphs.items():
        shell = model.clone()
        for value in shell.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                large = tensor.nbytes > _INLINE_BYTES and tensor.dtype.bitwidth >= 8
                value.const_value = _outside(tensor, blobs) if large else _inline(tensor)
        proto = ir.serde.serialize_model(shell)
        blobs[f"graph/{name}"] = np.frombuffer(proto.SerializeToString(deterministic=True), np.uint8)
    return blobs


def _inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor in memory: the source's own data file is not to be needed."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=str(tensor.name))


def _outside(tensor: ir.TensorProtocol, blobs: dict[str, Bytes]) -> ir.ExternalTensor:
    array = tensor.numpy()
    if not any(array.strides):  # one number, seen everywhere
        array = array[(slice(0, 1),) * array.ndim]
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.sha256(content.data).hexdigest()[:32]
    blobs.setdefault(f"tensor/{digest}", content)
    return ir.ExternalTensor(
        digest, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=str(tensor.name)
    )


def has(blobs: Mapping[str, Bytes], name: str) -> bool:
    """Return whether a graph is there."""
    return f"graph/{name}" in blobs


def unpack(blobs: Mapping[str, Bytes], name: str) -> ir.Model:
    """Return a graph; its larger tensors are views of the blobs.

    Raises:
        FlexcError: it is not there, or damaged.
    """
    if not has(blobs, name):
        raise FlexcError(f"the program holds no {name} graph", remedy="compile the model again, without --no-reference")
    try:
        proto = onnx.ModelProto.FromString(blobs[f"graph/{name}"].tobytes())
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        raise FlexcError(f"the {name} graph in the program is damaged: {error}") from error
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = _inside(value.const_value, blobs)
    return model


def _inside(tensor: ir.ExternalTensor, blobs: Mapping[str, Bytes]) -> ir.TensorProtocol:
    content = blobs.get(f"tensor/{tensor.location}")
    dtype = tensor.dtype.numpy()
    if content is None or content.size not in (tensor.nbytes, dtype.itemsize):
        raise FlexcError(f"tensor '{tensor.name}' of a reference graph is missing or has another size")
    array: npt.NDArray[Any] = content.view(dtype)
    shape = tensor.shape.numpy()
    array = np.broadcast_to(array, shape) if content.size < tensor.nbytes else array.reshape(shape)
    return ir.Tensor(array, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)

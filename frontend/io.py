"""Writing a model: whole or not at all, the same bytes every time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from ..isa.errors import FlexcError

EXTERNAL_BYTES = 8 * 2**20  # weights larger than this in all go into a data file beside the model
_INLINE_BYTES = 1024  # a tensor up to this size stays in the model file: shape inference needs such ones


def save(model: ir.Model, path: str | os.PathLike[str], *, external: bool = False) -> None:
    """Write ``model`` to ``path``, large weights (or, with ``external``, all but the smallest) to ``<path>.data``.

    Both files are written under temporary names and then moved into place, so a reader never sees half a file, and a
    model may be saved over the file it was loaded from.

    Raises:
        FlexcError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            beside = _data_name(target) if external or _weight_bytes(model) > EXTERNAL_BYTES else None
            _write(model, draft, beside)
            for name in (_data_name(target), target.name):
                if (Path(folder) / name).exists():
                    (Path(folder) / name).replace(target.with_name(name))
    except OSError as error:
        remedy = "check that the folder exists and may be written, and that the disk has room"
        raise FlexcError(f"cannot be written: {error.strerror}", where=str(target), remedy=remedy) from error


def _data_name(target: Path) -> str:
    return f"{target.name}.data"


def _weight_bytes(model: ir.Model) -> int:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _write(model: ir.Model, file: Path, data_name: str | None) -> None:
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    tensors = [value.const_value for value in values]
    try:
        for value in values:
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _in_memory(value.const_value)  # onnx_ir would close files whose arrays are in use
        ir.save(model, file, format="protobuf", external_data=data_name, size_threshold_bytes=_INLINE_BYTES)
    finally:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)

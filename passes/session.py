"""A graph in memory, opened in onnxruntime without serialising its weights (and so without protobuf's 2 GB limit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..isa.errors import FlexcError

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

_INLINE_BYTES = 1024
"""Smaller initializers travel inside the serialised graph, so that shapes and axes stay constants for the optimiser."""


def open_session(model: ir.Model, *, threads: int = 0) -> ort.InferenceSession:
    """Open `model` on the CPU; onnxruntime reads the weights where they lie.

    Args:
        model: the graph.
        threads: threads within an operator, 0 for one a core.

    Raises:
        FlexcError: onnxruntime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    data = _serialise(model, options)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base class
        raise FlexcError(f"onnxruntime cannot open the graph: {str(error).splitlines()[0]}") from error


def _serialise(model: ir.Model, options: ort.SessionOptions) -> bytes:
    """Serialise `model` without its larger initializers, which are handed to `options` as they are."""
    import numpy as np
    import onnx_ir as ir
    import onnxruntime as ort

    shell = model.clone()
    names: list[str] = []
    values: list[ort.OrtValue] = []
    for name, value in shell.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _INLINE_BYTES:
            continue
        names.append(name)
        values.append(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor.numpy())))
        shape = ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)
    if names:
        options.add_external_initializers(names, values)
    data: bytes = ir.serde.serialize_model(shell).SerializeToString()
    return data

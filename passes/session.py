"""A graph in memory, opened in onnxruntime without serialising its weights (and so without protobuf's 2 GB limit)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ..isa.errors import FlexcError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_INLINE_BYTES = 1024
"""Smaller initializers travel inside the serialised graph, so that shapes and axes stay constants for the optimiser."""


class Session:
    """An onnxruntime CPU session of a graph; onnxruntime reads the larger weights where they lie in memory.

    Args:
        model: the graph. Changes made to it later do not reach the session.
        threads: threads within an operator, 0 for one a core.
        optimise: let onnxruntime fuse and rearrange nodes; without, every node is computed as ONNX defines it.

    Raises:
        FlexcError: onnxruntime refuses the graph.
    """

    def __init__(self, model: ir.Model, *, threads: int = 0, optimise: bool = True) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        shell, self._weights = _without_weights(model)  # kept here: onnxruntime only borrows their memory
        if self._weights:
            borrowed = [ort.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()]
            options.add_external_initializers(list(self._weights), borrowed)
        data = ir.serde.serialize_model(shell).SerializeToString()
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise FlexcError(f"onnxruntime cannot open the graph: {_first_line(error)}") from error
        self.inputs = frozenset(item.name for item in self._session.get_inputs())
        self.outputs = tuple(item.name for item in self._session.get_outputs())

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph on `feed`, whose names that are no inputs are passed over; return the outputs, all when None.

        Raises:
            FlexcError: an input is missing or does not fit, or an operator fails.
        """
        names = list(self.outputs if outputs is None else outputs)
        fed = {name: array for name, array in feed.items() if name in self.inputs}
        try:
            return dict(zip(names, self._session.run(names, fed), strict=True))
        except Exception as error:
            raise FlexcError(f"onnxruntime cannot run the graph: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _without_weights(model: ir.Model) -> tuple[ir.Model, dict[str, Array]]:
    """Return a copy of `model` whose larger initializers are only declared, and their arrays by name."""
    shell = model.clone()
    weights: dict[str, Array] = {}
    for name, value in shell.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes <= _INLINE_BYTES:
            value.const_value = ir.Tensor(
                tensor.numpy(), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
            )
            continue
        weights[name] = np.ascontiguousarray(tensor.numpy())
        shape = ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)
    return shell, weights

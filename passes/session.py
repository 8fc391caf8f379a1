"""A graph in memory, opened in onnxruntime without serialising its weights (and so without protobuf's 2 GB limit)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ..isa.errors import FlexcError
from .processors import usable_processors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_INLINE_BYTES = 1024
"""Smaller initializers travel inside the serialised graph, so that shapes and axes stay constants for the optimiser."""


class Session:
    """An onnxruntime CPU session of a graph; onnxruntime reads the larger weights where they lie in memory.

    Args:
        model: the graph. Changes made to it later do not reach the session.
        threads: threads within an operator, 0 for one a processor that this process may use.
        optimise: let onnxruntime fuse and rearrange nodes; without, every node is computed as ONNX defines it.

    Raises:
        FlexcError: onnxruntime refuses the graph.
    """

    def __init__(self, model: ir.Model, *, threads: int = 0, optimise: bool = True) -> None:
        shell, self._weights = _without_weights(model)  # kept here: onnxruntime only borrows their memory
        data = ir.serde.serialize_model(shell).SerializeToString()
        try:
            self._session = _open(data, self._weights, threads, optimise=optimise)
        except Exception as error:
            raise FlexcError(f"onnxruntime cannot open the graph: {first_line(error)}") from error
        self.inputs = frozenset(item.name for item in self._session.get_inputs())
        self.outputs = tuple(item.name for item in self._session.get_outputs())

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph on `feed`, whose names that are no inputs are passed over; return the outputs, all when None.

        Raises:
            FlexcError: an input is missing or does not fit, or an operator fails.
        """
        names = list(self.outputs if outputs is None else outputs)
        fed = {name: np.asarray(array) for name, array in feed.items() if name in self.inputs}
        try:
            return dict(zip(names, self._session.run(names, fed), strict=True))
        except Exception as error:
            raise FlexcError(f"onnxruntime cannot run the graph: {first_line(error)}") from error


def open_session(source: str | bytes, *, optimise: bool = False) -> Any:
    """Open a model file, or a serialised model, exactly as it is: no node fused or moved unless it shall `optimise`.

    Raises:
        FlexcError: onnxruntime refuses it.
    """
    try:
        return _open(source, {}, 0, optimise=optimise)
    except Exception as error:
        raise FlexcError(f"onnxruntime cannot open it: {first_line(error)}") from error


def _open(data: str | bytes, weights: Mapping[str, Array], threads: int, *, optimise: bool) -> Any:
    """Open a session whose products of u8 and s8 do not saturate at 16 bits on processors without VNNI.

    The setting for that makes onnxruntime 1.32 fail on some graphs whose products share constants ("Attempt to replace
    the existing tensor"); those are opened without it.
    """
    try:
        return _session(data, weights, threads, optimise=optimise, precise=True)
    except Exception as error:
        if "replace the existing tensor" not in str(error):
            raise
    return _session(data, weights, threads, optimise=optimise, precise=False)


def _session(data: str | bytes, weights: Mapping[str, Array], threads: int, *, optimise: bool, precise: bool) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_processors()
    options.log_severity_level = 4  # what fails comes as an exception
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if weights:
        borrowed = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), borrowed)
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def first_line(error: Exception) -> str:
    """Return what onnxruntime says of an error, without its trace."""
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

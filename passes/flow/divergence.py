"""How far outputs are from those of the dense model: KL of the softmax for logits, relative error otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...frontend.edit import shape_of
from ...isa.errors import FlexcError
from ..calibrate import input_specs
from .options import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Divergence:
    """A metric and the outputs it looks at.

    Attributes:
        metric: ``kl``: mean over positions of KL(dense || changed) of the softmax along the last axis, in nats;
            ``output``: |changed - dense|^2 / |dense|^2. Several outputs count alike.
        outputs: names of the model's outputs that are compared.
    """

    metric: str
    outputs: tuple[str, ...]

    def reference(self, dense: Mapping[str, Array]) -> dict[str, Array]:
        """Return what later comparisons need of the dense outputs of one window."""
        return {name: _float(dense[name]) for name in self.outputs}

    def __call__(self, reference: Mapping[str, Array], changed: Mapping[str, Array]) -> float:
        """Return the divergence of one window; infinite where an output is not finite."""
        measure = _kl if self.metric == "kl" else _relative
        return sum(measure(reference[name], _float(changed[name])) for name in self.outputs) / len(self.outputs)


def divergence_of(model: ir.Model, metric: Metric) -> Divergence:
    """Choose what to compare.

    ``auto`` takes KL where an output is called logits or is as wide as the vocabulary of an input, and the relative
    error of all floating-point outputs otherwise.

    Raises:
        FlexcError: the model has no floating-point output.
    """
    floats = [value for value in model.graph.outputs if value.dtype in _FLOATS]
    if not floats:
        raise FlexcError("no output holds floating-point numbers, so nothing tells how far pruning changes them")
    vocabularies = {spec.vocabulary for spec in input_specs(model)} - {None}
    logits = [value for value in floats if _is_logits(value, vocabularies)]
    if metric == "output" or (metric == "auto" and not logits):
        return Divergence("output", tuple(str(value.name) for value in floats))
    return Divergence("kl", tuple(str(value.name) for value in logits or floats[:1]))


def _is_logits(value: ir.Value, vocabularies: set[int | None]) -> bool:
    shape = shape_of(value)
    return "logits" in str(value.name).lower() or (bool(shape) and shape[-1] in vocabularies)


def _float(array: Array) -> Array:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _kl(dense: Array, changed: Array) -> float:
    """Return the mean over rows of sum p (log p - log q), in float64."""
    log_p, log_q = _log_softmax(dense), _log_softmax(changed)
    total = float(np.sum(np.exp(log_p) * (log_p - log_q)))
    return total / max(1, log_p.size // max(1, log_p.shape[-1])) if np.isfinite(total) else np.inf


def _log_softmax(logits: Array) -> NDArray[np.float64]:
    shifted: NDArray[np.float64] = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _relative(dense: Array, changed: Array) -> float:
    error = float(np.sum(np.square(changed.astype(np.float64) - dense)))
    scale = float(np.sum(np.square(dense, dtype=np.float64)))
    return error / max(scale, float(np.finfo(np.float64).tiny)) if np.isfinite(error) else np.inf

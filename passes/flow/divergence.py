"""How far outputs are from those of the dense model: KL of the softmax for logits, relative error otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Reference:
    """One dense output of one window: every `every`-th of its rows and, for KL, their softmax.

    What is not finite (a logit of minus infinity, say) is 0 in `rows` and marked in `outside`: it is not compared.
    """

    rows: Array
    every: int
    softmax: Array | None
    outside: Array | None = None


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

    def reference(self, dense: Mapping[str, Array], windows: int = 1) -> list[Reference]:
        """Return for each output what later comparisons need of one of `windows` dense windows.

        Of long outputs only evenly spaced rows are kept, so that all windows together take `_REFERENCE_BYTES` at most.

        Raises:
            FlexcError: no output has a finite number.
        """
        kept = []
        for name in self.outputs:
            rows = _rows(dense[name])
            limit = _REFERENCE_BYTES // (8 * max(1, rows.shape[1]) * windows * len(self.outputs))
            every = -(-len(rows) // max(1, limit))
            rows = np.array(rows[::every])
            outside = ~np.isfinite(rows)
            softmax = _softmax(np.where(outside, -np.inf, rows)) if self.metric == "kl" else None
            rows[outside] = 0
            kept.append(Reference(rows, every, softmax, outside if outside.any() else None))
        if all(each.outside is not None and each.outside.all() for each in kept):
            raise FlexcError(
                f"on a calibration window no number of output '{self.outputs[0]}' is finite, so nothing tells how far "
                "pruning changes it",
                remedy="give other data, or choose a method that does not measure outputs, such as --method wanda",
            )
        return kept

    def __call__(self, reference: Sequence[Reference], changed: Mapping[str, Array]) -> float:
        """Return the divergence of one window; infinite where an output is not finite."""
        total = 0.0
        for name, dense in zip(self.outputs, reference, strict=True):
            rows = _rows(changed[name])[:: dense.every]
            if dense.outside is not None:
                rows = np.where(dense.outside, 0, rows)
            value = _relative(dense.rows, rows) if dense.softmax is None else _kl(dense.rows, dense.softmax, rows)
            total += value if np.isfinite(value) else np.inf
        return total / len(self.outputs)


_REFERENCE_BYTES = 1 << 30
"""What all windows together keep of the dense outputs."""


def divergence_of(model: ir.Model, metric: Metric) -> Divergence:
    """Choose what to compare.

    ``auto`` takes KL where an output is called logits or is as wide as the vocabulary of an input, and the relative
    error of all floating-point outputs otherwise.

    Raises:
        FlexcError: the model has no floating-point output.
    """
    floats = [value for value in model.graph.outputs if value.dtype in _FLOATS]
    if not floats:
        raise FlexcError(
            "no output holds floating-point numbers, so nothing tells how far pruning changes them",
            remedy="export the scores that the outputs are made from, or choose another method, such as --method wanda",
        )
    vocabularies = {spec.vocabulary for spec in input_specs(model)} - {None}
    logits = [value for value in floats if _is_logits(value, vocabularies)]
    if metric == "output" or (metric == "auto" and not logits):
        return Divergence("output", tuple(str(value.name) for value in floats))
    return Divergence("kl", tuple(str(value.name) for value in logits or floats[:1]))


def _is_logits(value: ir.Value, vocabularies: set[int | None]) -> bool:
    shape = shape_of(value)
    return "logits" in str(value.name).lower() or (bool(shape) and shape[-1] in vocabularies)


def _rows(array: Array) -> Array:
    """View an output as float32 or float64 [rows, last axis]."""
    floats = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    return floats.reshape(-1, array.shape[-1] if array.ndim else 1)


def _softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=np.finfo(logits.dtype).min))
    raised /= np.maximum(raised.sum(axis=-1, keepdims=True), np.finfo(logits.dtype).tiny)
    return np.asarray(raised)


def _kl(logits: Array, softmax: Array, changed: Array) -> float:
    """Return the mean over rows of KL(p || q), p the softmax of the dense logits, q that of the changed ones.

    With d = changed - dense, sum p (log p - log q) = log sum p exp(d) - sum p d. Centred on the mean of d under p the
    second term is zero and what is left, log(1 + sum p (exp(d) - 1 - d)), has no cancellation: it is as exact as the
    logits' own float32 while the sums run in float64.
    """
    difference = changed - logits
    difference -= np.einsum("rv,rv->r", softmax, difference)[:, np.newaxis]
    excess = np.expm1(difference)
    excess -= difference
    excess *= softmax
    return float(np.mean(np.log1p(excess.sum(axis=-1, dtype=np.float64))))


def _relative(dense: Array, changed: Array) -> float:
    error = float(np.sum(np.square(changed.astype(np.float64) - dense)))
    scale = float(np.sum(np.square(dense, dtype=np.float64)))
    return error / max(scale, float(np.finfo(np.float64).tiny)) if np.isfinite(error) else np.inf

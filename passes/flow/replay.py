"""Re-running a model with other weights: the divergence of its outputs from the dense model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...frontend.linears import Linear
from ..feeds import Feed
from ..session import Session
from .divergence import Divergence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatMatrix = NDArray[np.float32]


class Replay:
    """A model whose linears take their weights at every run.

    Args:
        model: the dense, static graph; left as it is.
        linears: those of its linears whose weights may change.
        feeds: the windows to measure on.
        divergence: what is measured.
    """

    def __init__(
        self, model: ir.Model, linears: Sequence[Linear], feeds: Sequence[Feed], divergence: Divergence
    ) -> None:
        self._linears = {linear.name: linear for linear in linears}
        self._feeds = feeds
        self._divergence = divergence
        self._session = Session(_with_weight_inputs(model, list(self._linears)))
        self._weights = {name: linear.to_weight(linear.matrix()) for name, linear in self._linears.items()}
        self._dense = [divergence.reference(self._run(feed, {})) for feed in feeds]

    def settle(self, matrices: Mapping[str, FloatMatrix]) -> None:
        """Let linears have these matrices [n, k] until told otherwise."""
        self._weights.update({name: self._linears[name].to_weight(matrix) for name, matrix in matrices.items()})

    def measure(self, matrices: Mapping[str, FloatMatrix]) -> float:
        """Return the mean divergence over the windows with these matrices, and the settled ones elsewhere."""
        changed = {name: self._linears[name].to_weight(matrix) for name, matrix in matrices.items()}
        values = [
            self._divergence(dense, self._run(feed, changed))
            for feed, dense in zip(self._feeds, self._dense, strict=True)
        ]
        return sum(values) / max(1, len(values))

    def _run(self, feed: Feed, changed: Mapping[str, Any]) -> dict[str, Any]:
        weights = {_weight_input(name): array for name, array in {**self._weights, **changed}.items()}
        return self._session.run({**feed, **weights})


def _weight_input(linear: str) -> str:
    return f"weight of {linear}"


def _with_weight_inputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of the model in which the weights of linears are graph inputs."""
    open_model = model.clone()
    for node in open_model.graph:
        old = node.inputs[1] if node.name in names and len(node.inputs) > 1 else None
        if old is not None:
            value = ir.Value(name=_weight_input(str(node.name)), shape=old.shape, type=old.type)
            open_model.graph.inputs.append(value)
            node.replace_input_with(1, value)
            if not old.uses():
                del open_model.graph.initializers[str(old.name)]
    return open_model

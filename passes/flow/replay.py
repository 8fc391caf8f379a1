"""Re-running a model with other weights: the divergence of its outputs from the dense model's.

What a change leaves as it is does not run again: every segment in front of the first changed linear is skipped, as are
later ones that read nothing changed. The segment of a changed linear takes its weights as inputs; all others keep
theirs as constants, prepared by onnxruntime once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...frontend.linears import Linear
from ..feeds import Feed
from .cuts import Cutter, Segment
from .divergence import Divergence
from .segments import Stage, Values, Workers

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]
    FloatMatrix = NDArray[np.float32]


class Replay:
    """A model whose linears can take other weights.

    Args:
        model: the dense, static graph; left as it is.
        linears: those of its linears whose weights may change.
        feeds: the windows to measure on; they and what segments hand on are kept in memory.
        divergence: what is measured.
    """

    def __init__(
        self, model: ir.Model, linears: Sequence[Linear], feeds: Sequence[Feed], divergence: Divergence
    ) -> None:
        self._model, self._divergence = model, divergence
        self._linears = {linear.name: linear for linear in linears}
        self._workers = Workers(len(feeds))
        cutting = Cutter(model, linears, divergence.outputs).narrow()
        self._segments = cutting.segments
        self._place = {name: index for index, segment in enumerate(self._segments) for name in segment.linears}
        self._weights: dict[str, Array] = {name: each.to_weight(each.matrix()) for name, each in self._linears.items()}
        self._open = [Stage(model, each, opened=True, threads=self._workers.threads) for each in self._segments]
        self._closed: dict[int, Stage] = {}
        prelude = Stage(model, cutting.prelude, threads=self._workers.threads)
        self._base: list[Values] = self._workers.map(lambda at: {**feeds[at], **prelude.run(feeds[at])}, len(feeds))
        self._workers.map(lambda at: self._run_all(self._base[at]), len(feeds))
        self._dense = [divergence.reference(values, len(feeds)) for values in self._base]
        self.settled = 0.0

    def work(self, linears: Sequence[str]) -> int:
        """Return how many segments run again when these linears change."""
        return len(self._segments) - min((self._place[name] for name in linears), default=len(self._segments))

    def settle(self, matrices: Mapping[str, FloatMatrix]) -> float:
        """Let linears have these matrices [n, k] from now on; return the divergence then."""
        for name, matrix in matrices.items():
            self._weights[name] = self._linears[name].to_weight(matrix)
            self._closed.pop(self._place[name], None)
        places = {self._place[name] for name in matrices}
        values = self._workers.map(lambda at: self._settle_window(at, places), len(self._base))
        self.settled = sum(values) / len(values)
        return self.settled

    def measure(self, matrices: Mapping[str, FloatMatrix]) -> float:
        """Return the mean divergence over the windows with these matrices, and the settled ones elsewhere."""
        if not matrices:
            return self.settled
        changed = {name: self._linears[name].to_weight(matrix) for name, matrix in matrices.items()}
        opened: dict[int, dict[str, Array]] = {}
        for name in changed:
            place = self._place[name]
            opened.setdefault(place, self._weights_of(self._segments[place], changed))
        for place in range(min(opened), len(self._segments)):
            if place not in opened:
                self._stage(place)  # made here: the workers only use it
        values = self._workers.map(lambda at: self._measure_window(at, opened), len(self._base))
        return float(sum(values)) / len(values)

    def _weights_of(self, segment: Segment, changed: Mapping[str, Array] | None = None) -> dict[str, Array]:
        return {name: (changed or {}).get(name, self._weights[name]) for name in segment.linears}

    def _stage(self, place: int) -> Stage:
        if place not in self._closed:
            segment, threads = self._segments[place], self._workers.threads
            self._closed[place] = Stage(self._model, segment, weights=self._weights, threads=threads)
        return self._closed[place]

    def _run_all(self, values: Values) -> None:
        """Run every segment with the model's own weights, adding to `values`."""
        for stage, segment in zip(self._open, self._segments, strict=True):
            values.update(stage.run(values, self._weights_of(segment)))

    def _settle_window(self, at: int, places: set[int]) -> float:
        base = self._base[at]
        touched: set[str] = set()
        for place, segment in enumerate(self._segments):
            if place in places or not touched.isdisjoint(segment.inputs):
                base.update(self._open[place].run(base, self._weights_of(segment)))
                touched.update(segment.outputs)
        return self._divergence(self._dense[at], base)

    def _measure_window(self, at: int, opened: Mapping[int, Mapping[str, Array]]) -> float:
        base, changed = self._base[at], Values()
        for place in range(min(opened), len(self._segments)):
            segment = self._segments[place]
            if place not in opened and changed.keys().isdisjoint(segment.inputs):
                continue
            values = _overlay(base, changed, segment)
            stage = self._open[place] if place in opened else self._closed[place]
            changed.update(stage.run(values, opened.get(place)))
        return self._divergence(self._dense[at], {**base, **changed})


def _overlay(base: Values, changed: Values, segment: Segment) -> Values:
    return {name: changed.get(name, base[name]) for name in segment.inputs}

"""All calibration windows on their way through a model, from one input of linears to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...frontend.linears import Linear
from ...isa.errors import FlexcError
from ..feeds import Feed, Feeds
from .cuts import Cutter, Cutting
from .grams import gram, input_rows
from .segments import Stage, Values, Workers

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Grams = NDArray[np.float32]

_BYTES = 3 << 29
"""What streams may hold of windows; of larger models fewer windows are used."""


class Route:
    """The stops of a model's linears: where each input that linears read is known and nobody has read it yet.

    Attributes:
        groups: for each stop the linears that read the input there.
    """

    def __init__(self, model: ir.Model, linears: Sequence[Linear]) -> None:
        self.model = model
        by_name = {linear.name: linear for linear in linears}
        outputs = [str(linear.node.outputs[0].name) for linear in linears]
        self.cutting: Cutting
        self.cutting, names = Cutter(model, linears, outputs).before_inputs()
        self.groups = [[by_name[name] for name in group] for group in names]


class Stream:
    """Windows on a route, all at the same stop; it starts in front of the first.

    Args:
        route: the stops.
        feeds: the windows.
        streams: how many streams share the memory.
    """

    def __init__(self, route: Route, feeds: Feeds, streams: int = 1) -> None:
        self._route, self._cutting = route, route.cutting
        self._workers = Workers(len(feeds))
        prelude = Stage(route.model, self._cutting.prelude, threads=self._workers.threads)
        first: Feed = feeds[0]
        held = sum(array.nbytes for array in ({**first, **prelude.run(first)}).values()) + self._largest()
        self.windows = max(1, min(len(feeds), _BYTES // max(1, held * streams)))
        self._values: list[Values] = self._workers.map(lambda at: {**feeds[at], **prelude.run(feeds[at])}, self.windows)
        self._at = 0

    def _largest(self) -> int:
        """Return the bytes of the largest set of values handed on, roughly: each counted as what a segment puts out."""
        shapes = {str(value.name): value for node in self._route.model.graph for value in node.outputs}
        sizes = [0]
        for segment in self._cutting.segments:
            values = [shapes[name] for name in segment.outputs if name in shapes]
            sizes.append(sum(4 * int(np.prod(value.shape.numpy())) for value in values if value.shape is not None))
        return 2 * max(sizes)

    def advance(self, matrices: Mapping[str, Array]) -> None:
        """Go on to the next stop; the linears on the way have these weights, in their own layout, or the model's."""
        segment = self._cutting.segments[self._at]
        stage = Stage(self._route.model, segment, weights=matrices, threads=self._workers.threads)
        later = {name for each in self._cutting.segments[self._at + 1 :] for name in each.inputs}

        def step(at: int) -> None:
            values = self._values[at]
            values.update(stage.run(values))
            for name in list(values):
                if name not in later:
                    del values[name]

        self._workers.map(step, self.windows)
        self._at += 1

    def source(self, linear: Linear, window: int) -> Array:
        """Return the input of a linear at the present stop."""
        value = linear.node.inputs[0]
        assert value is not None, "a linear has an input"
        return self._values[window][str(value.name)]


def sum_grams(linear: Linear, stream: Stream, other: Stream | None = None) -> tuple[Grams, Grams]:
    """Sum over all windows x x^T of a stream at its stop, and y x^T with y of the other stream (or x again).

    Raises:
        FlexcError: an input is not finite.
    """
    own: Grams | None = None
    cross: Grams | None = None
    for window in range(stream.windows):
        rows = input_rows(linear, stream.source(linear, window))
        more = gram(rows, rows)
        own = more if own is None else own + more
        if other is not None:
            more = gram(input_rows(linear, other.source(linear, window)), rows)
            cross = more if cross is None else cross + more
    assert own is not None, "a stream has a window"
    cross = own if cross is None else cross
    if not (np.isfinite(own).all() and np.isfinite(cross).all()):
        raise FlexcError(f"the input of '{linear.name}' is not finite on some calibration window")
    return own, cross

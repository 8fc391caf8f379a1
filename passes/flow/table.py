"""The matrices that linears would have in each pattern, made when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...frontend.linears import Linear
from ..calibrate import Statistics
from ..feeds import Feeds
from ..pattern import NM
from ..prune import masked
from .options import Update
from .stream import Route, Stream, sum_grams
from .update import update_weight

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    FloatMatrix = NDArray[np.float32]
    Grams = NDArray[np.float32]

_GRAM_BYTES = 1 << 30
"""Where the Gram matrices of all linears are larger, costs are measured on masks alone."""

_CACHE_BYTES = 1 << 29
"""Matrices kept for when they are asked for again."""


class Table:
    """Candidate matrices: Wanda's masks, or masks and weights as an update makes them on the dense model's inputs.

    Args:
        model: the dense graph.
        linears: those that may be asked for.
        statistics: of the inputs of the linears.
        feeds: calibration windows; looked at only where an update is wanted.
        update: what becomes of the weights that stay.

    Attributes:
        kind: what the matrices are: an update's name; ``none`` where its Gram matrices would not fit into memory.
    """

    def __init__(
        self, model: ir.Model, linears: Sequence[Linear], statistics: Statistics, feeds: Feeds, update: Update
    ) -> None:
        size = sum(4 * linear.k**2 * linear.groups for linear in linears)
        self.kind: Update = update if size <= _GRAM_BYTES else "none"
        self._linears = {linear.name: linear for linear in linears}
        self._statistics = statistics
        self._grams = _dense_grams(model, linears, feeds) if self.kind != "none" else {}
        self._made: OrderedDict[tuple[str, NM], FloatMatrix] = OrderedDict()
        self._bytes = 0

    def matrix(self, name: str, nm: NM) -> FloatMatrix:
        """Return a linear's matrix [n, k] in a pattern."""
        if nm.is_dense:
            return self._linears[name].matrix()
        if (name, nm) not in self._made:
            made = self._make(self._linears[name], nm)
            self._made[name, nm] = made
            self._bytes += made.nbytes
            while self._bytes > _CACHE_BYTES and len(self._made) > 1:
                self._bytes -= self._made.popitem(last=False)[1].nbytes
        self._made.move_to_end((name, nm))
        return self._made[name, nm]

    def _make(self, linear: Linear, nm: NM) -> FloatMatrix:
        if self.kind == "none":
            return masked(linear, nm, self._statistics.norms(linear.name))
        return update_weight(linear.matrix(), self._grams[linear.name], None, nm, self.kind, rough=True)


def _dense_grams(model: ir.Model, linears: Sequence[Linear], feeds: Feeds) -> dict[str, Grams]:
    route = Route(model, linears)
    stream = Stream(route, feeds)
    found: dict[str, Grams] = {}
    for group in route.groups:
        stream.advance({})
        for linear in group:
            shared = linear.node.op_type != "Conv" and linear is not group[0]
            found[linear.name] = found[group[0].name] if shared else sum_grams(linear, stream)[0]
    return found

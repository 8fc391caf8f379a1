"""Pruning: N:M zeros written into a graph's weights, or the pattern already there read, by a method's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..frontend.linears import Linear, find_linears, replace_weight
from ..isa.errors import FlexcError, UsageError, did_you_mean
from .masks import top_mask
from .pattern import BLOCKS, DENSE, NM, Cost, detect, macro_cost

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from .calibrate import Statistics

    FloatMatrix = NDArray[np.float32]

NM_KEY = "flexc.nm"
"""Metadata key of a linear's node that holds its pattern: ``4:8`` or ``dense``."""

_CHUNK = 1 << 22
"""Weights scored and masked in one go."""


@dataclass(frozen=True)
class Request:
    """What the user asked for: a pattern and calibration statistics where the method takes them."""

    nm: NM | None = None
    statistics: Statistics | None = None
    allowed_m: tuple[int, ...] = BLOCKS
    cost: Cost = macro_cost


Select = Callable[[Sequence[Linear], Request], dict[str, NM]]
"""Choose a pattern for each linear, by name."""

Rewrite = Callable[[Linear, NM, Request], "FloatMatrix"]
"""Return a linear's matrix [n, k] brought to a pattern."""


@dataclass(frozen=True)
class Method:
    """A way to prune: how it chooses patterns and, unless it leaves weights alone, how it brings a weight to one."""

    name: str
    summary: str
    select: Select
    rewrite: Rewrite | None = None
    needs_nm: bool = False
    needs_statistics: bool = False


@dataclass(frozen=True)
class PrunedLinear:
    """One linear after pruning: n x k weights, its pattern, and sparsity (share of zeros) asked for and reached."""

    name: str
    n: int
    k: int
    nm: NM
    requested: float | None
    nonzero: int

    @property
    def weights(self) -> int:
        """Weights of the linear, zeros included."""
        return self.n * self.k

    @property
    def reached(self) -> float:
        """Share of weights that are zero."""
        return 1 - self.nonzero / max(1, self.weights)

    @property
    def kept(self) -> int:
        """Weights that the pattern keeps a place for, at most."""
        return self.n * self.nm.kept(self.k)


@dataclass(frozen=True)
class PruneReport:
    """What pruning did, a row for each linear in graph order."""

    method: str
    linears: tuple[PrunedLinear, ...]

    @property
    def weights(self) -> int:
        """Weights of all linears."""
        return sum(linear.weights for linear in self.linears)

    @property
    def reached(self) -> float:
        """Share of zeros over all linears."""
        return 1 - sum(linear.nonzero for linear in self.linears) / max(1, self.weights)

    @property
    def requested(self) -> float | None:
        """Sparsity asked for over the linears that were pruned; None when nothing was asked for."""
        asked = [linear for linear in self.linears if linear.requested is not None]
        if not asked:
            return None
        return sum((linear.requested or 0) * linear.weights for linear in asked) / sum(row.weights for row in asked)


def find_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        remedy = did_you_mean(name, list(METHODS)) or f"methods: {', '.join(METHODS)}"
        raise UsageError(f"unknown pruning method '{name}'", remedy=remedy)
    return METHODS[name]


def default_method(model: ir.Model) -> str:
    """Return ``keep`` when any linear's weight has an N:M pattern, else ``none``."""
    return "keep" if any(not detect(linear.matrix()).is_dense for linear in find_linears(model)) else "none"


def prune(
    model: ir.Model,
    method: str,
    nm: NM | None = None,
    statistics: Statistics | None = None,
    *,
    include_tied: bool = False,
    allowed_m: Sequence[int] = BLOCKS,
    cost: Cost = macro_cost,
) -> PruneReport:
    """Prune the linears of `model` in place and note each one's pattern in its node's metadata.

    A head tied to the embedding is left as it is unless `include_tied`; its pattern, if it has one, is kept.

    Args:
        model: a static graph, changed in place.
        method: a name in :data:`METHODS`.
        nm: the pattern, for methods that need one.
        statistics: calibration statistics, for methods that need them.
        include_tied: prune a head tied to the embedding too.
        allowed_m: block lengths to look for where a pattern already in a weight is kept.
        cost: what decides between several such patterns, see :func:`~.pattern.detect`.

    Raises:
        UsageError: an unknown method, or one without what it needs.
        FlexcError: weights that cannot be ranked.
    """
    chosen = find_method(method)
    request = Request(nm, statistics, tuple(allowed_m), cost)
    _check_needs(chosen, request)
    linears = find_linears(model)
    open_to_pruning = [linear for linear in linears if include_tied or not linear.tied]
    patterns = chosen.select(open_to_pruning, request)
    rows = []
    for linear in linears:
        if linear.name in patterns:
            rows.append(_prune_linear(model, linear, patterns[linear.name], chosen, request))
        else:
            rows.append(_describe(linear, linear.matrix(), _select_left_alone(linear, chosen, request), None))
    return PruneReport(method, tuple(rows))


def _check_needs(method: Method, request: Request) -> None:
    """Refuse a method that lacks its pattern or its calibration data."""
    if method.needs_nm and request.nm is None:
        raise UsageError(f"--prune {method.name} needs a pattern", remedy="give one, --nm 4:8")
    if method.needs_statistics and request.statistics is None:
        raise UsageError(f"--prune {method.name} needs calibration data", remedy="give some, --calib FILE.npy")


def _prune_linear(model: ir.Model, linear: Linear, nm: NM, method: Method, request: Request) -> PrunedLinear:
    """Bring one linear to its pattern."""
    if method.rewrite is None:
        return _describe(linear, linear.matrix(), nm, None)
    if nm.is_dense:
        return _describe(linear, linear.matrix(), nm, 0.0)
    matrix = method.rewrite(linear, nm, request)
    replace_weight(model, linear, matrix)
    return _describe(linear, matrix, nm, 1 - nm.density)


def _describe(linear: Linear, matrix: FloatMatrix, nm: NM, requested: float | None) -> PrunedLinear:
    """Write the pattern on the linear's node and count what is left."""
    nm = DENSE if nm.is_dense else nm
    linear.node.metadata_props[NM_KEY] = str(nm)
    return PrunedLinear(linear.name, linear.n, linear.k, nm, requested, int(np.count_nonzero(matrix)))


def _select_left_alone(linear: Linear, method: Method, request: Request) -> NM:
    """Pattern of a linear that is not open to pruning: what it already has, unless nothing is to be sparse."""
    return DENSE if method.name == "none" else detect(linear.matrix(), request.allowed_m, request.cost)


def _detect_each(linears: Sequence[Linear], request: Request) -> dict[str, NM]:
    return {linear.name: detect(linear.matrix(), request.allowed_m, request.cost) for linear in linears}


def _all_dense(linears: Sequence[Linear], _request: Request) -> dict[str, NM]:
    return {linear.name: DENSE for linear in linears}


def _uniform(linears: Sequence[Linear], request: Request) -> dict[str, NM]:
    return {linear.name: request.nm or DENSE for linear in linears}


def _magnitude(linear: Linear, nm: NM, _request: Request) -> FloatMatrix:
    """Keep by |W|."""
    return masked(linear, nm, np.ones((1, linear.k), np.float32))


def _wanda(linear: Linear, nm: NM, request: Request) -> FloatMatrix:
    """Keep by |W_ij| * ||X_j||_2 (Sun et al., arXiv 2306.11695)."""
    if request.statistics is None or linear.name not in request.statistics.square_sums:
        raise FlexcError("no calibration statistics", where=f"linear '{linear.name}'", remedy="calibrate this model")
    return masked(linear, nm, request.statistics.norms(linear.name))


def masked(linear: Linear, nm: NM, norms: FloatMatrix) -> FloatMatrix:
    """Return the matrix [n, k] with only the largest |W| * norm of each block; `norms` is [groups, k], rows in order.

    A grouped convolution's rows see their own group's inputs.
    """
    matrix = linear.matrix()
    pruned = np.empty(matrix.shape, np.float32)
    step = max(1, _CHUNK // max(1, linear.k))
    for start in range(0, linear.n, step):
        rows = slice(start, min(start + step, linear.n))
        group = np.arange(rows.start, rows.stop) * len(norms) // linear.n
        scores = np.abs(matrix[rows]) * (norms if len(norms) == 1 else norms[group])
        np.multiply(matrix[rows], _mask(linear, scores, nm), out=pruned[rows])
    return pruned


def _mask(linear: Linear, scores: FloatMatrix, nm: NM) -> NDArray[np.bool_]:
    """Return the mask by `scores`, naming the linear when they cannot be ranked."""
    try:
        return top_mask(scores, nm)
    except FlexcError as error:
        raise FlexcError(error.message, where=f"linear '{linear.name}'", remedy=error.remedy) from None


METHODS = {
    method.name: method
    for method in (
        Method("keep", "find the N:M pattern already in each weight", _detect_each),
        Method("magnitude", "keep the largest weights of each block", _uniform, _magnitude, needs_nm=True),
        Method(
            "wanda",
            "keep the weights with the largest |weight| * ||input||",
            _uniform,
            _wanda,
            needs_nm=True,
            needs_statistics=True,
        ),
        Method("none", "leave the weights alone and run all of them dense", _all_dense),
    )
}
"""Pruning methods by name."""

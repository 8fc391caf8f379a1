"""Pruning: N:M zeros written into a graph's weights, or the pattern already there read, by a method's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..frontend.linears import Linear, find_linears, replace_weight, share_again, sharing
from ..isa.errors import FlexcError, UsageError, raise_all
from .emit import PIN_NM_KEY
from .masks import top_mask
from .methods import DEFAULT_M, HYPER_M, SAMPLES, Method, find_method
from .pattern import BLOCKS, DENSE, NM, Cost, detect, fits, macro_cost

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from .calibrate import Statistics
    from .feeds import Feeds
    from .flow.budget import Budget
    from .flow.options import Effort, Metric, Update

    FloatMatrix = NDArray[np.float32]

NM_KEY = "flexc.nm"
"""Metadata key of a linear's node that holds its pattern: ``4:8`` or ``dense``."""

_ALL_PINNED = "every linear that could be pruned is pinned: the method chose nothing"

_CHUNK = 1 << 22
"""Weights scored and masked in one go."""

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, steps done, steps in all)."""


def _silent(_what: str, _done: int, _steps: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Request:
    """What is asked of a method, and what it may look at; each looks at what it needs.

    Attributes:
        nm: one pattern for all linears.
        sparsity: share of zeros over all linears open to pruning.
        budget: another limit, which the linears open to pruning share.
        patterns: patterns chosen before, by linear name; then nothing is selected.
        statistics: of the calibration windows.
        feeds: the calibration windows.
        samples: how many of them to use at most.
        m_set: block lengths to choose from.
        allowed_m: block lengths to look for where a pattern is already in a weight.
        cost: what decides between several such patterns, see :func:`~.pattern.detect`.
        hyper_m: times the mean from which on a metric counts as an outlier.
        update: what becomes of the weights that stay; None: what the method does by itself.
        effort: how long to search.
        metric: how the divergence of outputs is measured.
        include_tied: a head tied to the embedding is open to pruning, too.
        state: file that an interrupted selection leaves and goes on from.
        progress: told how far it is.
    """

    nm: NM | None = None
    sparsity: float | None = None
    budget: Budget | None = None
    patterns: Mapping[str, NM] | None = None
    statistics: Statistics | None = None
    feeds: Feeds | None = None
    samples: int = SAMPLES
    m_set: tuple[int, ...] = DEFAULT_M
    allowed_m: tuple[int, ...] = BLOCKS
    cost: Cost = macro_cost
    hyper_m: float = HYPER_M
    update: str | None = None
    effort: Effort = "quick"
    metric: Metric = "auto"
    include_tied: bool = False
    state: Path | None = None
    progress: Progress = _silent


@dataclass(frozen=True)
class Choice:
    """What a method chose.

    Attributes:
        patterns: by linear name, for every linear open to pruning.
        warnings: what the user must know about it.
        facts: further numbers for the report.
        costs: by linear name, what its pattern costs by the method's own measure.
    """

    patterns: Mapping[str, NM]
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)


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


def _zeros_of(linears: Sequence[PrunedLinear]) -> float:
    """Share of zeros over linears, 0 of none."""
    weights = sum(linear.weights for linear in linears)
    return 1 - sum(linear.nonzero for linear in linears) / weights if weights else 0.0


@dataclass(frozen=True)
class PruneReport:
    """What pruning did, a row for each linear in graph order."""

    method: str
    linears: tuple[PrunedLinear, ...]
    choice: Choice = Choice({})
    asked: float | None = None

    @property
    def weights(self) -> int:
        """Weights of all linears."""
        return sum(linear.weights for linear in self.linears)

    @property
    def reached(self) -> float:
        """Share of zeros over all linears."""
        return _zeros_of(self.linears)

    @property
    def open(self) -> tuple[PrunedLinear, ...]:
        """The linears that were open to pruning; all where none was pruned."""
        return tuple(linear for linear in self.linears if linear.requested is not None) or self.linears

    @property
    def reached_of_open(self) -> float:
        """Share of zeros over the linears that were open to pruning."""
        return _zeros_of(self.open)

    @property
    def requested(self) -> float | None:
        """Sparsity asked for over the linears that were pruned; None when nothing was asked for."""
        if self.asked is not None:
            return self.asked
        asked = [linear for linear in self.linears if linear.requested is not None]
        if not asked:
            return None
        return sum((linear.requested or 0) * linear.weights for linear in asked) / sum(row.weights for row in asked)


def default_method(model: ir.Model) -> str:
    """Return ``keep`` when any linear's weight has an N:M pattern, else ``none``."""
    return "keep" if any(not detect(linear.matrix()).is_dense for linear in find_linears(model)) else "none"


def is_open(linear: Linear, *, include_tied: bool = False) -> bool:
    """Return whether a linear is open to pruning.

    One whose pattern is pinned is not, see :func:`write_pinned`; a head tied to the embedding is not, unless
    `include_tied`; nor is a depthwise convolution, whose rows have a
    handful of weights and no input channels to choose from.
    """
    if PIN_NM_KEY in linear.node.metadata_props:
        return False
    depthwise = linear.groups > 1 and linear.weight.shape is not None and linear.weight.shape[1] == 1
    return (include_tied or not linear.tied) and not depthwise


def open_linears(model: ir.Model, *, include_tied: bool = False) -> list[Linear]:
    """Return the linears of a model that are open to pruning, in graph order."""
    return [linear for linear in find_linears(model) if is_open(linear, include_tied=include_tied)]


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
    """Prune by a method that needs no more than a pattern and statistics, see :func:`prune_by`."""
    request = Request(nm=nm, statistics=statistics, include_tied=include_tied, allowed_m=tuple(allowed_m), cost=cost)
    return prune_by(model, method, request)


def prune_by(model: ir.Model, method: str, request: Request) -> PruneReport:
    """Prune the linears of `model` in place and note each one's pattern in its node's metadata.

    Linears that are not open to pruning (see :func:`is_open`) are left as they are; a pattern that such a weight has is
    kept.

    Args:
        model: a static graph, changed in place.
        method: a name in :data:`~.methods.METHODS`.
        request: how much to prune, and what the method may look at.

    Raises:
        UsageError: an unknown method, or one without what it needs.
        FlexcError: weights that cannot be ranked, or a request that cannot be met.
    """
    check_weights(open_linears(model, include_tied=request.include_tied))
    return write_patterns(model, method, choose_patterns(model, method, request), request)


def choose_patterns(model: ir.Model, method: str, request: Request) -> Choice:
    """Let a method choose a pattern for every linear open to pruning, or take those given; the model stays as it is.

    Raises:
        UsageError, FlexcError: as :func:`prune_by` does.
    """
    chosen = find_method(method)
    _check_needs(chosen, request)
    linears = open_linears(model, include_tied=request.include_tied)
    if request.patterns is not None and chosen.write:
        return Choice({linear.name: request.patterns.get(linear.name, DENSE) for linear in linears})
    if not linears and any(PIN_NM_KEY in linear.node.metadata_props for linear in find_linears(model)):
        return Choice({}, warnings=(_ALL_PINNED,) if chosen.amounts else ())
    if chosen.amounts:
        check_any_open(model, linears)
    found: Choice = chosen.resolve(chosen.select)(model, linears, request)
    return found


def check_any_open(model: ir.Model, linears: Sequence[Linear]) -> None:
    """Refuse a model none of whose linears is open to pruning; `linears` are those that are.

    Raises:
        FlexcError: it says why not.
    """
    if linears:
        return
    closed = find_linears(model)
    if not closed:
        raise FlexcError("the model has no linear that could be pruned", remedy="a linear is a MatMul, Gemm or Conv")
    tied = any(linear.tied for linear in closed)
    raise FlexcError(
        "the model has no linear that is open to pruning: heads tied to the embedding, depthwise convolutions and "
        "what is pinned are not",
        remedy="--prune-tied opens the head" if tied else "a linear is a MatMul, Gemm or Conv",
    )


def check_weights(linears: Sequence[Linear]) -> None:
    """Refuse weights that are infinite or NaN, which nothing can rank.

    Raises:
        FlexcError: it names all such linears.
    """
    wrong = [linear.name for linear in linears if not np.isfinite(linear.matrix()).all()]
    remedy = "check how the model was made"
    raise_all([FlexcError("a weight is infinite or NaN", where=f"linear '{name}'", remedy=remedy) for name in wrong])


def write_patterns(model: ir.Model, method: str, choice: Choice, request: Request) -> PruneReport:
    """Bring the weights of `model` to the patterns chosen, in place, as the method does it.

    Raises:
        FlexcError: weights that cannot be ranked.
    """
    chosen = find_method(method)
    if chosen.write:
        request = replace(request, update=request.update or chosen.update)
        groups = sharing(find_linears(model))
        chosen.resolve(chosen.write)(model, choice.patterns, request)
        share_again(model, groups)
    rows = []
    for linear in find_linears(model):
        given = choice.patterns.get(linear.name)
        requested = 1 - given.kept(linear.k) / max(1, linear.k) if given is not None and chosen.write else None
        rows.append(_describe(linear, given or _left_alone(linear, chosen, request), requested))
    return PruneReport(method, tuple(rows), choice, request.sparsity if chosen.write else None)


def _check_needs(method: Method, request: Request) -> None:
    """Refuse a method that lacks what says how much to prune, or data to look at."""
    given = (request.nm, request.sparsity, request.budget, request.patterns)
    if method.amounts and all(each is None for each in given):
        if method.amounts[0] == "nm":
            raise UsageError(f"--prune {method.name} needs a pattern", remedy="give one, --nm 4:8")
        raise UsageError(f"--prune {method.name} needs a sparsity", remedy="give one, --sparsity 0.5")
    if method.uses_data and request.statistics is None:
        raise UsageError(f"--prune {method.name} needs calibration data", remedy="give some, --calib FILE.npy")


def _describe(linear: Linear, nm: NM, requested: float | None) -> PrunedLinear:
    """Write the pattern on the linear's node and count what is left."""
    nm = DENSE if nm.is_dense else nm
    linear.node.metadata_props[NM_KEY] = str(nm)
    return PrunedLinear(linear.name, linear.n, linear.k, nm, requested, int(np.count_nonzero(linear.matrix())))


def _left_alone(linear: Linear, method: Method, request: Request) -> NM:
    """Pattern of a linear that is not open to pruning: pinned or already there, unless nothing is to be sparse."""
    if PIN_NM_KEY in linear.node.metadata_props:
        return NM.parse(linear.node.metadata_props[PIN_NM_KEY])
    return DENSE if method.name == "none" else kept_pattern(linear, request)


def kept_pattern(linear: Linear, request: Request) -> NM:
    """Return the pattern that a weight has: the one noted on its node where the weight fits it, else the one found."""
    noted = linear.node.metadata_props.get(NM_KEY)
    if noted is not None:
        try:
            nm = NM.parse(noted)
        except UsageError:
            nm = DENSE
        if not nm.is_dense and nm.m in request.allowed_m and fits(linear.matrix(), nm):
            return nm
    return detect(linear.matrix(), request.allowed_m, request.cost)


def write_pinned(model: ir.Model, statistics: Statistics | None) -> None:
    """Bring linears whose pattern is pinned to it: by Wanda's metric where there are statistics, else by magnitude.

    They come first, so that whatever a method measures is measured around them.
    """
    for linear in find_linears(model):
        nm = NM.parse(linear.node.metadata_props.get(PIN_NM_KEY, "dense"))
        if nm.is_dense or fits(linear.matrix(), nm):
            continue
        seen = statistics is not None and linear.name in statistics.square_sums
        norms = norms_of(linear, statistics) if seen else np.ones((1, linear.k), np.float32)
        replace_weight(model, linear, masked(linear, nm, norms))


def write_magnitude(model: ir.Model, patterns: Mapping[str, NM], _request: Request) -> None:
    """Keep by |W|."""
    for linear in find_linears(model):
        nm = patterns.get(linear.name, DENSE)
        if not nm.is_dense:
            replace_weight(model, linear, masked(linear, nm, np.ones((1, linear.k), np.float32)))


def write_masks(model: ir.Model, patterns: Mapping[str, NM], request: Request) -> None:
    """Keep by |W_ij| * ||X_j||_2 (Sun et al., arXiv 2306.11695), or as the update asked for does."""
    if request.update not in (None, "none") and request.feeds is not None:
        from .flow.apply import apply_patterns

        update = cast("Update", request.update)
        apply_patterns(model, patterns, request.feeds, update, request.samples, request.progress)
        return
    for linear in find_linears(model):
        nm = patterns.get(linear.name, DENSE)
        if not nm.is_dense:
            replace_weight(model, linear, masked(linear, nm, norms_of(linear, request.statistics)))


def norms_of(linear: Linear, statistics: Statistics | None) -> FloatMatrix:
    """Return the norms of a linear's inputs [groups, k].

    Raises:
        FlexcError: there are none.
    """
    if statistics is None or linear.name not in statistics.square_sums:
        raise FlexcError("no calibration statistics", where=f"linear '{linear.name}'", remedy="calibrate this model")
    return statistics.norms(linear.name)


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

"""Pruning as the commands do it: calibration data, budgets of the machine, and what the method chooses within them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flexc.budgets import within
from flexc.isa.errors import FlexcError
from flexc.passes.calibrate import Statistics, calibrate, input_specs
from flexc.passes.feeds import Feeds, random_feeds, windows
from flexc.passes.methods import Method, find_method
from flexc.passes.pattern import DENSE, NM
from flexc.passes.pattern import Cost as RowCost
from flexc.passes.prune import (
    PruneReport,
    Request,
    check_weights,
    choose_patterns,
    default_method,
    open_linears,
    write_patterns,
    write_pinned,
)
from flexc.progress import Bar
from flexc.prune_options import Calibration, PruneOptions
from flexc.selection_file import load_selection
from flexc.stages import Stages
from flexc.tables import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.isa.machine import Machine


@dataclass(frozen=True)
class Pruned:
    """What pruning did, and what it looked at.

    Attributes:
        report: a row for each linear.
        feeds: the calibration windows that were used, if any.
        statistics: of their inputs, in the order that channels had.
        spent: of a budget: the quantity, its limit, the estimate, what the timed program takes, and the dense one.
        warnings: what the user must know.
        permuted: how many classes of channels were put in another order.
    """

    report: PruneReport
    feeds: Feeds | None = None
    statistics: Statistics | None = None
    spent: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    permuted: int = 0

    @property
    def requested(self) -> float | None:
        """Sparsity asked for; None where a budget asks for something else, or nothing was asked for."""
        return None if self.spent else self.report.requested


def prune_model(
    model: ir.Model, options: PruneOptions, machine: Machine, stages: Stages, attention: str = "auto"
) -> Pruned:
    """Prune a loaded model in place; `attention` says where products of activations run when programs are timed.

    Raises:
        UsageError: options that contradict each other.
        FlexcError: calibration data or a selection that cannot be used, a sparsity or budget that cannot be reached.
    """
    method = find_method(options.prune or default_method(model))
    request = Request(include_tied=options.include_tied)
    if method.write:
        check_weights(open_linears(model, include_tied=options.include_tied))
    with stages.stage("calibrate"):
        feeds, warnings = _feeds(model, method, options)
        statistics = _statistics(model, feeds, options)
        warnings += _blind(feeds, statistics)
    request = _request(model, method, options, machine, replace(request, feeds=feeds, statistics=statistics))
    permuted = 0
    if (options.permute or method.permute) == "free":
        with stages.stage("permute"):
            request, permuted = _permute(model, request)
    write_pinned(model, request.statistics)
    request = replace(request, progress=Bar(stages))
    spent: dict[str, Any] = {}
    with stages.stage("select"):
        if options.budget is None:
            choice = choose_patterns(model, method.name, request)
        else:
            choice, spent = within(model, method, request, options.budget, machine, attention)
    with stages.stage("prune"):
        report = write_patterns(model, method.name, choice, request)
    return Pruned(report, feeds, statistics, spent, (*warnings, *choice.warnings), permuted)


def _request(model: ir.Model, method: Method, options: PruneOptions, machine: Machine, request: Request) -> Request:
    linears = [linear.name for linear in open_linears(model, include_tied=options.include_tied)]
    allowed = machine.array.block_sizes
    chosen = None
    if options.selection is not None and method.write:
        chosen = load_selection(options.selection, linears, allowed)
    return replace(
        request,
        nm=options.nm,
        sparsity=options.sparsity,
        patterns=chosen,
        samples=options.samples,
        m_set=tuple(m for m in options.m_set if m in allowed) or tuple(allowed),
        allowed_m=tuple(allowed),
        cost=pattern_cost(machine),
        hyper_m=options.hyper_m,
        update=options.update,
        effort=cast("Any", options.effort),
        metric=cast("Any", options.metric),
        state=options.state,
    )


def _permute(model: ir.Model, request: Request) -> tuple[Request, int]:
    """Put channels in an order that loses less at about the density asked for; half, where a budget asks for none."""
    from flexc.passes.permute.apply import permute
    from flexc.passes.permute.same import same_outputs

    linears = open_linears(model, include_tied=request.include_tied)
    if request.statistics is None or request.feeds is None:
        return request, 0
    m_set, density = request.m_set, 1 - (0.5 if request.sparsity is None else request.sparsity)
    if request.nm is not None:
        m_set, density = (request.nm.m,), request.nm.density
    elif request.patterns is not None:
        kept = sum(linear.n * request.patterns.get(linear.name, DENSE).kept(linear.k) for linear in linears)
        density = kept / max(1, sum(linear.n * linear.k for linear in linears))
    with same_outputs(model, request.feeds[0]):
        statistics, count = permute(model, linears, request.statistics, density, m_set)
    return replace(request, statistics=statistics), count


_REAL_DATA = "give data such as the model will meet"

RANDOM_INPUTS = (
    "no calibration data: {windows} of random inputs stand in for them, and accuracy suffers; "
    "give real ones with --calib FILE.npy"
)


def _feeds(model: ir.Model, method: Method, options: PruneOptions) -> tuple[Feeds | None, tuple[str, ...]]:
    """Return the calibration windows that a method looks at, and a warning where they are made up."""
    if not method.uses_data:
        unused = f"the method {method.name} looks at no data: the calibration data given are not used"
        return None, (unused,) if options.calib is not None else ()
    specs = input_specs(model)
    if options.calib is None:
        feeds = random_feeds(specs, options.samples, seed=0)
        return feeds, (RANDOM_INPUTS.format(windows=counted(len(feeds), "window")),)
    feeds = options.calib if isinstance(options.calib, Feeds) else windows(specs, _files(options.calib))
    return feeds.first(options.samples), ()


def _statistics(model: ir.Model, feeds: Feeds | None, options: PruneOptions) -> Statistics | None:
    """Calibrate, if there are windows; where a model cannot take random ones, say that they were made up."""
    try:
        return None if feeds is None else calibrate(model, feeds, options.samples)
    except FlexcError as error:
        if options.calib is not None:
            raise
        remedy = "no calibration data were given, and the model cannot take random inputs; give real ones with --calib"
        raise FlexcError(error.message, where=error.where, remedy=remedy) from None


def _blind(feeds: Feeds | None, statistics: Statistics | None) -> tuple[str, ...]:
    """Return a warning where some linears see only zeros, of which no method learns anything.

    Raises:
        FlexcError: all data are zero, or all linears see only zeros.
    """
    if feeds is None or statistics is None or not statistics.square_sums:
        return ()
    blind = [name for name, sums in statistics.square_sums.items() if not sums.any()]
    if len(blind) == len(statistics.square_sums) or not any(array.any() for feed in feeds for array in feed.values()):
        raise FlexcError("the calibration data are all zeros: no weight can be told from another", remedy=_REAL_DATA)
    if not blind:
        return ()
    many = counted(len(blind), "linear")
    return (f"{many} of {len(statistics.square_sums)} read only zeros in the calibration data, first '{blind[0]}'",)


def _files(calib: Calibration) -> Path | Mapping[str, Path | str]:
    return calib if isinstance(calib, Mapping) else Path(cast("str | os.PathLike[str]", calib))


def pattern_cost(machine: Machine) -> RowCost:
    """Return what decides between patterns that fit a weight: the machine's cycles a vector, then its stored bits."""

    def cost(k: int, nm: NM) -> tuple[float, float]:
        n, m = (1, 1) if nm.is_dense else (nm.n, nm.m)
        tiles = -(-k // machine.k_tile(n, m))
        return float(tiles * machine.cycles_per_vector(n, m)), float(nm.kept(k) * (8 + machine.index_bits(m)))

    return cost

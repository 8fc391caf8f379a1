"""FLOW from start to end: measure what each pattern costs, choose, and bring the weights to the choice.

The steps can be used one by one: :func:`select` returns a :class:`~.selection.Selection` and leaves the model as it
is; :func:`~.apply.apply_patterns` brings a model to the patterns of any selection, also one made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...frontend.linears import Linear
from ...isa.errors import FlexcError
from ..calibrate import Statistics, calibrate
from ..feeds import Feeds
from ..pattern import NM
from ..prune import masked, open_linears
from .apply import apply_patterns
from .budget import sparsity_budget
from .candidates import candidates, finest
from .divergence import divergence_of
from .knapsack import solve
from .options import FlowOptions, Progress, no_progress
from .replay import Replay
from .selection import Selection

if TYPE_CHECKING:
    import onnx_ir as ir

WINDOWS = 8
"""Calibration windows that costs are measured on: they rank candidates as 32 do (Spearman 0.97)."""


def run_flow(model: ir.Model, feeds: Feeds, options: FlowOptions, progress: Progress = no_progress) -> Selection:
    """Choose a pattern for every linear of `model` and prune it in place, see :func:`select` and `apply_patterns`.

    Raises:
        UsageError: options that nothing could satisfy.
        FlexcError: a budget that cannot be kept, or calibration data that cannot be used.
    """
    selection = select(model, feeds, options, progress)
    apply_patterns(model, selection.patterns, feeds, options.update, options.samples, progress)
    return selection


def select(model: ir.Model, feeds: Feeds, options: FlowOptions, progress: Progress = no_progress) -> Selection:
    """Choose a pattern for every linear open to pruning, so that the outputs change least within the budget.

    Args:
        model: a static graph, left as it is.
        feeds: calibration windows.
        options: see :class:`~.options.FlowOptions`.
        progress: told after every linear.

    Raises:
        UsageError: options that nothing could satisfy.
        FlexcError: no linear to prune, a budget that cannot be kept, or calibration data that cannot be used.
    """
    linears = open_linears(model, include_tied=options.include_tied)
    if not linears:
        raise FlexcError("the model has no linear that could be pruned")
    budget = options.budget or sparsity_budget(linears, options.sparsity)
    patterns = candidates(options.m_set)
    if budget.by_zeros:
        patterns = finest(patterns)
    weights = [np.array([budget.weigh(linear, nm) for nm in patterns]) for linear in linears]
    solve([np.zeros(len(patterns))] * len(linears), weights, budget.limit, what=budget.name, unit=budget.unit)
    costs, metric, windows = _costs(model, linears, patterns, feeds, options, progress)
    chosen = solve(costs, weights, budget.limit, what=budget.name, unit=budget.unit)
    return Selection(
        patterns={linear.name: patterns[index] for linear, index in zip(linears, chosen, strict=True)},
        budget=budget.name,
        unit=budget.unit,
        limit=budget.limit,
        reached=float(sum(weight[index] for weight, index in zip(weights, chosen, strict=True))),
        metric=metric,
        costs={linear.name: float(cost[index]) for linear, cost, index in zip(linears, costs, chosen, strict=True)},
        windows=windows,
    )


def _costs(
    model: ir.Model,
    linears: Sequence[Linear],
    patterns: Sequence[NM],
    feeds: Feeds,
    options: FlowOptions,
    progress: Progress,
) -> tuple[list[np.ndarray[tuple[int], np.dtype[np.float64]]], str, int]:
    """Measure what each pattern of each linear adds to the divergence, the others being lightly pruned."""
    statistics = calibrate(model, feeds, options.samples, [linear.name for linear in linears])
    divergence = divergence_of(model, options.metric)
    replay = Replay(model, linears, list(feeds.first(WINDOWS)), divergence)
    point = NM(5, 8) if options.budget is None and options.sparsity > _HIGH else NM(6, 8)
    base = {linear.name: _pruned(linear, point, statistics) for linear in linears}
    replay.settle(base)
    costs = []
    for done, linear in enumerate(linears):
        progress("costs", done, len(linears))
        costs.append(np.array([replay.measure({linear.name: _pruned(linear, nm, statistics)}) for nm in patterns]))
    progress("costs", len(linears), len(linears))
    return costs, divergence.metric, min(WINDOWS, len(feeds))


_HIGH = 0.65
"""Above this sparsity the point that costs are taken around is 5:8, below it is 6:8."""


def _pruned(linear: Linear, nm: NM, statistics: Statistics) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return linear.matrix() if nm.is_dense else masked(linear, nm, statistics.norms(linear.name))

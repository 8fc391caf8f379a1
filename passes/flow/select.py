"""FLOW from start to end: measure what each pattern costs, choose, and bring the weights to the choice.

The steps can be used one by one: :func:`select` returns a :class:`~.selection.Selection` and leaves the model as it
is; :func:`~.apply.apply_patterns` brings a model to the patterns of any selection, also one made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from ...frontend.edit import shape_of
from ..calibrate import Statistics, calibrate
from ..feeds import Feed, Feeds
from ..prune import check_any_open, open_linears
from .budget import sparsity_budget
from .costs import measure_costs
from .cuts import Cutter, bytes_handed_on
from .divergence import Divergence, divergence_of
from .measurements import Measurements, context_of
from .options import Effort, FlowOptions, Progress, no_progress
from .problem import Problem, light_point
from .replay import Replay
from .search import search
from .selection import Selection
from .table import Table

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...frontend.linears import Linear

WINDOWS: dict[Effort, int] = {"quick": 8, "full": 16}
"""Least calibration windows that divergence is measured on: 8 of 256 tokens rank as 32 do (Spearman 0.97)."""

ROWS: dict[Effort, int] = {"quick": 2048, "full": 4096}
"""Output rows (tokens, say) that are wanted: of shorter windows more are taken, up to four times the least."""

_BYTES = 3 << 29
"""What windows may hold between segments; of larger models fewer are taken."""

ROUNDS: dict[Effort, int] = {"quick": 1, "full": 8}
"""Rounds of search on the joint divergence."""


def select(
    model: ir.Model,
    feeds: Feeds,
    options: FlowOptions,
    progress: Progress = no_progress,
    statistics: Statistics | None = None,
) -> Selection:
    """Choose a pattern for every linear open to pruning, so that the outputs change least within the budget.

    Args:
        model: a static graph, left as it is.
        feeds: calibration windows.
        options: see :class:`~.options.FlowOptions`.
        progress: told what is being done, and steps done and to do.
        statistics: of the windows, where they are known already.

    Raises:
        UsageError: options that nothing could satisfy.
        FlexcError: no linear to prune, a budget that cannot be kept, calibration data that cannot be used, or a state
            file of something else.
    """
    linears = open_linears(model, include_tied=options.include_tied)
    check_any_open(model, linears)
    budget = options.budget or sparsity_budget(linears, options.sparsity)
    problem = Problem.of(linears, budget, options.m_set)
    feeds = feeds.first(options.samples)
    statistics = statistics or calibrate(model, feeds, options.samples, [linear.name for linear in linears])
    divergence = divergence_of(model, options.metric)
    windows = _spread(feeds, _windows(model, linears, divergence, options.effort))
    progress("preparing", 0, 1)
    table = Table(model, linears, statistics, feeds, options.update)
    context = context_of(model, linears, windows, divergence, table.kind, len(feeds))
    replay = Replay(model, linears, windows, divergence)
    measurements = Measurements(replay, table, context, options.state, problem.members)
    point = light_point(problem.density(), options.m_set)
    costs = measure_costs(problem, measurements, point, progress)
    # far from `point` costs do not add up, and then the same share everywhere may be better
    chosen = min((problem.choose(costs), problem.alike()), key=measurements.settle)
    rounds = ROUNDS[options.effort] if table.kind == "none" else 0
    chosen, joint = search(problem, measurements, costs, chosen, rounds, progress)
    added = {name: float(cost[problem.patterns[name].index(chosen[name])] - cost.min()) for name, cost in costs.items()}
    return Selection(
        patterns=problem.expanded(chosen),
        budget=budget.name,
        unit=budget.unit,
        limit=budget.limit,
        reached=problem.takes(chosen),
        metric=divergence.metric,
        costs={each.name: added[name] for name, group in problem.members.items() for each in group},
        divergence=joint,
        windows=len(windows),
    )


def _windows(model: ir.Model, linears: Sequence[Linear], divergence: Divergence, effort: Effort) -> int:
    """Return on how many windows to measure."""
    least = WINDOWS[effort]
    shape = next(shape_of(value) for value in model.graph.outputs if value.name == divergence.outputs[0])
    wanted = min(max(-(-ROWS[effort] // max(1, prod(shape[:-1]))), least), 4 * least)
    cutting = Cutter(model, linears, divergence.outputs).narrow()
    return max(1, min(wanted, _BYTES // max(1, bytes_handed_on(model, cutting))))


def _spread(feeds: Feeds, count: int) -> list[Feed]:
    """Return `count` windows, evenly spread over all."""
    count = min(count, len(feeds))
    return [feeds[index * len(feeds) // count] for index in range(count)]

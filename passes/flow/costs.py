"""Costs: the divergence that each pattern of each linear adds, measured one by one around a lightly pruned point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..pattern import NM
from .measurements import Measurements
from .options import Progress
from .problem import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_NODES = (1, 2, 3, 4, 6, 8, 12)
"""The N that are measured; between them, costs are interpolated: they are smooth and convex in N."""

_TOO_SPARSE = 3
"""Patterns this many times sparser than what is asked for on average are not looked at under a limit of zeros."""


def measure_costs(problem: Problem, measurements: Measurements, point: NM, progress: Progress) -> dict[str, Floats]:
    """Return for every linear the divergence with each of its patterns, the others being at `point`."""
    names = [linear.name for linear in problem.linears]
    least = problem.density() / _TOO_SPARSE if problem.budget.by_zeros else 0.0
    measurements.settle(dict.fromkeys(names, point))
    nodes = {name: _nodes(problem.patterns[name], point, least) for name in names}
    steps = {name: len(nodes[name]) * measurements.work(name) for name in names}
    total, done = sum(steps.values()), 0
    costs: dict[str, Floats] = {}
    for name in names:
        measured = {nm: measurements.measure({name: nm}) for nm in nodes[name]}
        costs[name] = _interpolate(problem.patterns[name], measured, least)
        done += steps[name]
        progress("measuring costs", done, total)
    return costs


def _nodes(patterns: Sequence[NM], point: NM, least: float) -> list[NM]:
    """Return the patterns to measure: some of each M, `point`, and the ends of each M's range."""
    chosen = []
    for m in {nm.m for nm in patterns}:
        of_m = [nm for nm in patterns if nm.m == m and nm.density >= least]
        ends = {of_m[0], of_m[-1]} if of_m else set()
        chosen += [nm for nm in of_m if nm.n in _NODES or nm == point or nm in ends]
    return chosen


def _interpolate(patterns: Sequence[NM], measured: dict[NM, float], least: float) -> Floats:
    """Return the costs of all patterns, by a monotone cubic through those of the same M and dense; infinite below."""
    from scipy.interpolate import PchipInterpolator

    costs = np.full(len(patterns), np.inf)
    for m in {nm.m for nm in patterns}:
        known = sorted((nm.density, cost) for nm, cost in measured.items() if nm.m == m or nm.is_dense)
        places = [index for index, nm in enumerate(patterns) if nm.m == m and nm.density >= least]
        if not places:
            continue
        if len(known) == 1 or not np.isfinite([cost for _, cost in known]).all():
            lookup = dict(known)
            costs[places] = [lookup.get(patterns[index].density, np.inf) for index in places]
            continue
        curve = PchipInterpolator(*np.array(known).T)
        costs[places] = curve([patterns[index].density for index in places])
    return costs

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
"""Patterns that keep this many times less than is kept on average are not looked at under a limit of zeros.

It is the weights that a linear really keeps which count: of three inputs 1:8 keeps a third. So the patterns left always
hold a choice within the limit, as each step between those of a linear is at most what its sparsest keeps.
"""


def measure_costs(problem: Problem, measurements: Measurements, point: NM, progress: Progress) -> dict[str, Floats]:
    """Return for every linear the divergence with each of its patterns, the others being at `point`."""
    names = [linear.name for linear in problem.linears]
    least = problem.density() / _TOO_SPARSE if problem.budget.by_zeros else 0.0
    measurements.settle(dict.fromkeys(names, point))
    open_to = {
        linear.name: [nm for nm in problem.patterns[linear.name] if nm.kept(linear.k) >= least * linear.k]
        for linear in problem.linears
    }
    nodes = {name: _nodes(open_to[name], point) for name in names}
    steps = {name: len(nodes[name]) * measurements.work(name) for name in names}
    total, done = sum(steps.values()), 0
    costs: dict[str, Floats] = {}
    for name in names:
        measured = {nm: measurements.measure({name: nm}) for nm in nodes[name]}
        costs[name] = _interpolate(problem.patterns[name], open_to[name], measured)
        done += steps[name]
        progress("measuring costs", done, total)
    return costs


def _nodes(patterns: Sequence[NM], point: NM) -> list[NM]:
    """Return the patterns to measure: some of each M, `point`, and the ends of each M's range."""
    chosen = []
    for m in {nm.m for nm in patterns}:
        of_m = [nm for nm in patterns if nm.m == m]
        chosen += [nm for nm in of_m if nm.n in _NODES or nm == point or nm in (of_m[0], of_m[-1])]
    return chosen


def _interpolate(patterns: Sequence[NM], open_to: Sequence[NM], measured: dict[NM, float]) -> Floats:
    """Return the costs of all patterns, by a monotone cubic through those of the same M and dense.

    They are infinite for patterns that are not among `open_to`.
    """
    from scipy.interpolate import PchipInterpolator

    costs = np.full(len(patterns), np.inf)
    for m in {nm.m for nm in open_to}:
        known = sorted((nm.density, cost) for nm, cost in measured.items() if nm.m == m or nm.is_dense)
        places = [index for index, nm in enumerate(patterns) if nm.m == m and nm in open_to]
        if len(known) == 1 or not np.isfinite([cost for _, cost in known]).all():
            lookup = dict(known)
            costs[places] = [lookup.get(patterns[index].density, np.inf) for index in places]
            continue
        curve = PchipInterpolator(*np.array(known).T)
        costs[places] = curve([patterns[index].density for index in places])
    return costs

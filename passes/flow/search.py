"""Search on the joint divergence: exchanges of neighbouring patterns, as many at once as still make it smaller.

Around the present choice the change that each linear's next lighter and next heavier pattern makes is measured, and the
knapsack chooses among these. Costs at the target are not additive far away, so at most `radius` linears may change at
once; if the joint divergence does not fall, half as many, down to two (a trust region, Conn, Gould and Toint, 2000).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..pattern import NM
from .knapsack import solve
from .measurements import Measurements
from .options import Progress
from .problem import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_ENOUGH = 0.003
"""The search ends when a round lowers the divergence by less than this share."""

_HALVINGS = 12
"""Steps of the bisection for the price of a change that leaves as many changes as are allowed."""


def search(
    problem: Problem,
    measurements: Measurements,
    costs: Mapping[str, Floats],
    chosen: Mapping[str, NM],
    rounds: int,
    progress: Progress,
) -> tuple[dict[str, NM], float]:
    """Improve a choice.

    Args:
        problem: patterns and budget.
        measurements: what measures.
        costs: of every pattern; patterns that another one beats in cost and weight are not tried.
        chosen: the choice to start from.
        rounds: rounds at most; each measures two patterns a linear, and some exchanges.
        progress: told after every linear.

    Returns:
        The best choice found, and its divergence.
    """
    ladders = {
        linear.name: _ladder(problem, linear.name, costs[linear.name], chosen[linear.name])
        for linear in problem.linears
    }
    at = dict(chosen)
    best = measurements.settle(at)
    radius = max(2, len(at) // 4)
    for number in range(rounds):
        before = best
        moves = _neighbours(problem, measurements, ladders, at, best, (number, rounds), progress)
        while radius > 1:  # one alone rarely keeps to the budget
            new = _exchange(problem, moves, at, radius)
            if new == at:
                break
            found = measurements.measure({name: nm for name, nm in new.items() if at[name] != nm})
            if found < best:
                at, best = new, measurements.settle(new)
                break
            radius = min(radius, _changes(new, at)) // 2
        if before - best < _ENOUGH * before:
            break
        radius = min(2 * radius, max(2, len(at) // 3))
    progress("searching", 1, 1)
    return at, best


def _ladder(problem: Problem, name: str, costs: Floats, chosen: NM) -> tuple[NM, ...]:
    """Return the patterns of a linear from light to heavy, each cheaper than the one before it."""
    rungs, cheapest = [], np.inf
    for nm, cost in zip(problem.patterns[name], costs, strict=True):
        if nm == chosen or cost < cheapest:
            rungs.append(nm)
            cheapest = min(cheapest, float(cost))
    return tuple(rungs)


def _neighbours(
    problem: Problem,
    measurements: Measurements,
    ladders: Mapping[str, tuple[NM, ...]],
    at: Mapping[str, NM],
    best: float,
    turn: tuple[int, int],
    progress: Progress,
) -> dict[str, dict[NM, float]]:
    """Measure what the next rungs of every linear change, its present one changing nothing."""
    moves: dict[str, dict[NM, float]] = {}
    works = [measurements.work(linear.name) for linear in problem.linears]
    done = turn[0] * sum(works)
    for linear, work in zip(problem.linears, works, strict=True):
        name = linear.name
        rung = ladders[name].index(at[name])
        near = ladders[name][max(0, rung - 1) : rung + 2]
        moves[name] = {nm: 0.0 if nm == at[name] else measurements.measure({name: nm}) - best for nm in near}
        done += work
        progress("searching", done, turn[1] * sum(works))
    return moves


def _exchange(
    problem: Problem, moves: Mapping[str, Mapping[NM, float]], at: Mapping[str, NM], radius: int
) -> dict[str, NM]:
    """Return the best choice of moves within the budget that changes about `radius` linears at most."""
    weights = [_weights(problem, name, near) for name, near in moves.items()]

    def choose(price: float) -> dict[str, NM]:
        costs = [
            np.array([change + price * (nm != at[name]) for nm, change in near.items()]) for name, near in moves.items()
        ]
        picks = solve(costs, weights, problem.budget.limit)
        return {name: list(near)[pick] for (name, near), pick in zip(moves.items(), picks, strict=True)}

    low, high = 0.0, max(abs(change) for near in moves.values() for change in near.values() if np.isfinite(change))
    best, enough = None, choose(low)
    if _changes(enough, at) <= radius:
        return enough
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = choose(middle)
        if _changes(found, at) > radius:
            low = middle
            continue
        high, best = middle, found
        if _changes(found, at) == radius:
            break
    return best if best is not None and _changes(best, at) else _pair(problem, moves, at)


def _changes(new: Mapping[str, NM], at: Mapping[str, NM]) -> int:
    return sum(nm != at[name] for name, nm in new.items())


def _pair(problem: Problem, moves: Mapping[str, Mapping[NM, float]], at: Mapping[str, NM]) -> dict[str, NM]:
    """Return the best exchange of two linears within the budget: a price of changes may leap over it."""
    single = [(name, nm, change) for name, near in moves.items() for nm, change in near.items()]
    owner = np.array([list(moves).index(name) for name, _, _ in single])
    change = np.array([change for _, _, change in single])
    more = np.array([_weight(problem, name, nm) - _weight(problem, name, at[name]) for name, nm, _ in single])
    fits = np.add.outer(more, more) <= problem.budget.limit - problem.takes(at)
    fits &= owner[:, np.newaxis] != owner
    sums = np.where(fits, np.add.outer(change, change), np.inf)
    one, other = np.unravel_index(int(np.argmin(sums)), sums.shape)
    picked = {single[index][0]: single[index][1] for index in (one, other)} if sums[one, other] < 0 else {}
    return {**at, **picked}


def _weight(problem: Problem, name: str, nm: NM) -> float:
    return float(problem.weights[name][problem.patterns[name].index(nm)])


def _weights(problem: Problem, name: str, near: Mapping[NM, float]) -> Floats:
    return np.array([_weight(problem, name, nm) for nm in near])

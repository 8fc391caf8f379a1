"""The exact multiple-choice knapsack: one candidate for every linear, least cost in sum, within a limit.

    minimise    sum_i cost[i][x_i]
    subject to  sum_i weight[i][x_i] <= limit

A Lagrangian price of weight gives a lower bound, and a greedy choice an upper one. Candidates whose bound is above the
upper one are dropped (Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", 1995); what is left is
solved by dynamic programming over the undominated pairs of weight and cost, cut by the same bound (Dyer, Riha and
Walker, "A hybrid dynamic programming / branch-and-bound algorithm", 1995). Few pairs are left, as the bounds are
close: 0.2 s for 300 linears of 40 candidates. HiGHS (scipy.optimize.milp) took 0.1 to 1.2 s for most such problems,
but did not end in minutes where many linears are of one size and alike, which is what models are; and it prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...isa.errors import FlexcError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]

_ROUNDING = 1e-12
"""Sums of weights may exceed the limit by this share of it: rounding of the sum itself."""


def solve(
    costs: Sequence[Floats], weights: Sequence[Floats], limit: float, *, what: str = "budget", unit: str = ""
) -> tuple[int, ...]:
    """Choose one candidate for each linear.

    Args:
        costs: for each linear the cost of every candidate, float64 [candidates]; linears may have different numbers.
            Candidates of infinite cost are never chosen.
        weights: for each linear what every candidate takes of the budget, at least 0, of the same lengths.
        limit: the most that the choice may take in sum.
        what: what the budget is called in messages.
        unit: its unit in messages.

    Returns:
        The index of the chosen candidate of every linear.

    Raises:
        FlexcError: not even the least of every linear fits; the message names the least that can be reached.
    """
    if not costs:
        return ()
    check_reachable(weights, limit, what=what, unit=unit)
    _check_finite(costs, weights, limit, what, unit)
    return _Problem(costs, weights, limit).solve()


def check_reachable(weights: Sequence[Floats], limit: float, *, what: str = "budget", unit: str = "") -> None:
    """Refuse a limit that not even the lightest candidate of every linear keeps.

    Raises:
        FlexcError: it names the least that can be reached.
    """
    least = sum(float(weight.min()) for weight in weights)
    if least > limit * (1 + _ROUNDING):
        amount = f"{limit:.6g} {unit}".rstrip()
        remedy = f"the nearest that can be reached is {least:.6g} {unit}".rstrip()
        raise FlexcError(f"no choice of patterns keeps to {amount} of {what}", remedy=remedy)


def _check_finite(costs: Sequence[Floats], weights: Sequence[Floats], limit: float, what: str, unit: str) -> None:
    """Refuse a limit that only candidates of infinite cost keep: those that make an output infinite, or no number.

    Raises:
        FlexcError: it names the least that the others take.
    """
    usable = [weight[np.isfinite(cost)] for cost, weight in zip(costs, weights, strict=True)]
    least = sum(float(weight.min(initial=np.inf)) for weight in usable)
    if least > limit * (1 + _ROUNDING):
        amount = f"{limit:.6g} {unit}".rstrip()
        reached = f"the nearest that leaves them finite is {least:.6g} {unit}".rstrip()
        remedy = reached if np.isfinite(least) else "choose a method that does not measure outputs: --method wanda"
        raise FlexcError(f"within {amount} of {what} an output is infinite or no number", remedy=remedy)


class _Problem:
    """One knapsack; `alive` holds for every linear the candidates that may still be in an optimum."""

    def __init__(self, costs: Sequence[Floats], weights: Sequence[Floats], limit: float) -> None:
        self.costs = [np.asarray(cost, np.float64) for cost in costs]
        self.weights = [np.asarray(weight, np.float64) for weight in weights]
        self.limit = limit * (1 + _ROUNDING)
        self.alive = [_undominated(cost, weight) for cost, weight in zip(self.costs, self.weights, strict=True)]

    def solve(self) -> tuple[int, ...]:
        price, choice = self._price()
        if price == 0:
            return tuple(choice)
        known = self._fill(choice)
        reduced = [cost + price * weight for cost, weight in zip(self.costs, self.weights, strict=True)]
        lowest = [float(value.min()) for value in reduced]
        above = [value - low for value, low in zip(reduced, lowest, strict=True)]
        upper = _total(self.costs, known)
        gap = upper - (sum(lowest) - price * self.limit)
        gap += 1e-12 * (abs(upper) + price * self.limit)  # rounding of the bounds themselves
        self.alive = [alive[value[alive] <= gap] for value, alive in zip(above, self.alive, strict=True)]
        return self._enumerate(above, gap)

    def _at(self, price: float) -> list[int]:
        """Return the choice that is cheapest when a unit of weight costs `price`; of equals the lightest."""
        picks = []
        for cost, weight, alive in zip(self.costs, self.weights, self.alive, strict=True):
            value = cost[alive] + price * weight[alive]
            picks.append(int(alive[np.argmin(value)]))  # lightest first in `alive`
        return picks

    def _price(self) -> tuple[float, list[int]]:
        """Find by bisection the least price at which the cheapest choice fits, and that choice."""
        choice = self._at(0.0)
        if _total(self.weights, choice) <= self.limit:
            return 0.0, choice
        low, high = 0.0, 1.0
        while _total(self.weights, self._at(high)) > self.limit:
            low, high = high, high * 4
        for _ in range(100):
            middle = (low + high) / 2
            fits = _total(self.weights, self._at(middle)) <= self.limit
            low, high = (low, middle) if fits else (middle, high)
        return high, self._at(high)

    def _fill(self, choice: list[int]) -> list[int]:
        """Spend what a choice leaves of the limit on the exchanges of one candidate that save most."""
        choice = list(choice)
        while True:
            slack = self.limit - _total(self.weights, choice)
            gains = [self._exchange(place, index, slack) for place, index in enumerate(choice)]
            gain, place, index = max(gains)
            if gain <= 0:
                return choice
            choice[place] = index

    def _exchange(self, place: int, index: int, slack: float) -> tuple[float, int, int]:
        """Return the most that another candidate of a linear saves within `slack` more weight: (gain, place, it)."""
        cost, weight = self.costs[place], self.weights[place]
        gains = np.where(weight - weight[index] <= slack, cost[index] - cost, 0.0)
        best = int(np.argmax(gains))
        return float(gains[best]), place, best

    def _enumerate(self, above: Sequence[Floats], gap: float) -> tuple[int, ...]:
        """Build all undominated partial choices whose bound is within `gap`, linear by linear; return the best."""
        order = sorted(range(len(self.alive)), key=lambda place: -len(self.alive[place]))
        least = [float(self.weights[place][self.alive[place]].min()) for place in order]
        rest = [*np.cumsum(least[::-1])[::-1][1:].tolist(), 0.0]
        weight, cost, bound = np.zeros(1), np.zeros(1), np.zeros(1)
        steps: list[Indices] = []
        for place, still_needed in zip(order, rest, strict=True):
            alive = self.alive[place]
            weight = np.add.outer(weight, self.weights[place][alive]).reshape(-1)
            cost = np.add.outer(cost, self.costs[place][alive]).reshape(-1)
            bound = np.add.outer(bound, above[place][alive]).reshape(-1)
            may = np.flatnonzero((bound <= gap) & (weight + still_needed <= self.limit))
            kept = may[_undominated(cost[may], weight[may])]
            weight, cost, bound = weight[kept], cost[kept], bound[kept]
            steps.append(kept)
        return self._trace(order, steps, int(np.argmin(cost)))

    def _trace(self, order: Sequence[int], steps: Sequence[Indices], state: int) -> tuple[int, ...]:
        """Walk back from the last state to the candidate of every linear."""
        chosen = [0] * len(order)
        for place, kept in zip(reversed(order), reversed(steps), strict=True):
            state, candidate = divmod(int(kept[state]), len(self.alive[place]))
            chosen[place] = int(self.alive[place][candidate])
        return tuple(chosen)


def _total(amounts: Sequence[Floats], choice: Sequence[int]) -> float:
    return sum(float(amount[index]) for amount, index in zip(amounts, choice, strict=True))


def _undominated(cost: Floats, weight: Floats) -> Indices:
    """Return the candidates that no other one beats or equals in both cost and weight, lightest first."""
    order = np.lexsort((cost, weight))
    earlier = np.minimum.accumulate(np.concatenate([[np.inf], cost[order][:-1]]))
    kept: Indices = order[cost[order] < earlier]
    return kept

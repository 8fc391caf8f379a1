"""The choice as a problem: which patterns each linear may get, what they take, what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...frontend.linears import Linear, sharing
from ..pattern import DENSE, NM
from .budget import Budget, kept_weights
from .candidates import candidates, finest
from .knapsack import check_reachable, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Patterns that may be chosen for each linear, lightest first, and what each takes of the budget.

    Linears that share a weight get one pattern: `linears` holds the first of them, `members` all by its name.

    Raises:
        FlexcError: nothing keeps to the budget (by :meth:`of`).
    """

    linears: tuple[Linear, ...]
    budget: Budget
    patterns: Mapping[str, tuple[NM, ...]]
    weights: Mapping[str, Floats]
    members: Mapping[str, tuple[Linear, ...]]

    @classmethod
    def of(cls, linears: Sequence[Linear], budget: Budget, m_set: Sequence[int]) -> Problem:
        """Collect the patterns worth a measurement."""
        known = candidates(m_set)
        if budget.by_zeros:
            known = finest(known)
        patterns: dict[str, tuple[NM, ...]] = {}
        weights: dict[str, Floats] = {}
        members = {group[0].name: tuple(group) for group in sharing(linears)}
        for name, group in members.items():
            patterns[name], weights[name] = _worthwhile(group, budget, known)
        problem = cls(tuple(group[0] for group in members.values()), budget, patterns, weights, members)
        check_reachable(list(weights.values()), budget.limit, what=budget.name, unit=budget.unit)
        return problem

    def choose(self, costs: Mapping[str, Floats]) -> dict[str, NM]:
        """Return the patterns with the least sum of costs within the budget; of equals those that keep more."""
        names = [linear.name for linear in self.linears]
        found = solve(
            [costs[name] for name in names],
            [self.weights[name] for name in names],
            self.budget.limit,
            what=self.budget.name,
            unit=self.budget.unit,
        )
        kept = self._kept_for_nothing(costs, dict(zip(names, found, strict=True)))
        return {name: self.patterns[name][index] for name, index in kept.items()}

    def _kept_for_nothing(self, costs: Mapping[str, Floats], found: Mapping[str, int]) -> dict[str, int]:
        """Give what a choice leaves of the budget to heavier patterns that cost no more, in graph order.

        That a pattern costs nothing was seen on a few windows: others may need what it takes away.
        """
        found = dict(found)
        taken = sum(float(self.weights[name][index]) for name, index in found.items())
        room = max(0.0, self.budget.limit - taken)  # the knapsack lets sums exceed the limit by their rounding
        for name, index in found.items():
            weight, cost = self.weights[name], costs[name]
            same = np.flatnonzero((cost <= cost[index]) & (weight - weight[index] <= room))
            found[name] = int(same[np.argmax(weight[same])])
            room -= float(weight[found[name]] - weight[index])
        return found

    def takes(self, chosen: Mapping[str, NM]) -> float:
        """Return what a choice takes of the budget."""
        return sum(float(self.weights[name][self.patterns[name].index(nm)]) for name, nm in chosen.items())

    def alike(self) -> dict[str, NM]:
        """Return the patterns within the budget with which every linear gives up about the same share."""
        costs = {
            name: np.array([_size(group) * (1 - nm.density) ** 2 for nm in self.patterns[name]])
            for name, group in self.members.items()
        }
        return self.choose(costs)

    def density(self) -> float:
        """Return the share of weights kept when every linear gives up alike: about what the budget asks for."""
        chosen = self.alike()
        kept = sum(sum(kept_weights(each, chosen[name]) for each in group) for name, group in self.members.items())
        return kept / sum(_size(group) for group in self.members.values())

    def expanded(self, chosen: Mapping[str, NM]) -> dict[str, NM]:
        """Return the patterns of all linears, of those that share a weight, too."""
        return {each.name: nm for name, nm in chosen.items() for each in self.members[name]}


def _size(group: Sequence[Linear]) -> int:
    return sum(linear.n * linear.k for linear in group)


def _worthwhile(group: Sequence[Linear], budget: Budget, known: Sequence[NM]) -> tuple[tuple[NM, ...], Floats]:
    """Return the patterns that no other one replaces, and what they take; lightest first.

    A pattern is replaced by one that takes no more and may keep every set of weights that it may keep: at least its
    share of a block that is a multiple of its own; dense keeps all.
    """
    k = group[0].k
    kept = [nm for nm in known if nm.is_dense or nm.kept(k) < k]
    taken = {nm: sum(budget.weigh(linear, nm) for linear in group) for nm in kept}

    def replaces(new: NM, old: NM) -> bool:
        covers = new.is_dense or (not old.is_dense and new.m >= old.m and new.density >= old.density)
        return new != old and covers and taken[new] <= taken[old]

    left = [nm for nm in kept if not any(replaces(other, nm) for other in kept)]
    left.sort(key=lambda nm: (taken[nm], nm.density))
    return tuple(left), np.array([taken[nm] for nm in left])


def light_point(density: float, m_set: Sequence[int]) -> NM:
    """Return the pattern around which costs are measured: half the way to `density`, in ratio.

    The largest N with N / M at most the root of the density. Costs taken there tell more of the pruned model than those
    around the dense one, while costs at the density itself are unstable (docs/flow-tried.md has figures).
    """
    m = max(m_set)
    n = max(1, int(m * np.sqrt(density)))
    return DENSE if n >= m else NM(n, m)

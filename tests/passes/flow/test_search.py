"""The search on a made-up divergence in which linears help or hurt each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from flexc.frontend.linears import find_linears
from flexc.passes.flow.budget import sparsity_budget
from flexc.passes.flow.measurements import Measurements
from flexc.passes.flow.options import no_progress
from flexc.passes.flow.problem import Problem, light_point
from flexc.passes.flow.search import search
from flexc.passes.pattern import DENSE, NM


class Interacting:
    """Divergence: a quadratic form of the shares pruned, with terms between linears."""

    def __init__(self, names: list[str]) -> None:
        rng = np.random.default_rng(4)
        half = rng.random((len(names), len(names))) ** 3
        self.form = half @ half.T
        self.names, self.at = names, dict[str, NM]()

    def settle(self, assignment: dict[str, NM]) -> float:
        self.at = {**self.at, **assignment}
        return self.measure({})

    def measure(self, changes: dict[str, NM]) -> float:
        now = {**self.at, **changes}
        pruned = np.array([1 - now[name].density for name in self.names])
        return float(pruned @ self.form @ pruned)

    def work(self, _name: str) -> int:
        return 1


def test_the_search_lowers_the_joint_divergence_within_the_budget(decoder: ir.Model) -> None:
    linears = find_linears(decoder)
    problem = Problem.of(linears, sparsity_budget(linears, 0.5), (8,))
    fake = Interacting([linear.name for linear in linears])
    fake.settle(dict.fromkeys(fake.names, NM(6, 8)))
    costs = {
        name: np.array([fake.measure({name: nm}) for nm in patterns]) for name, patterns in problem.patterns.items()
    }
    start = dict.fromkeys(fake.names, NM(4, 8))
    before = fake.settle(start)
    found, after = search(problem, cast("Measurements", cast("Any", fake)), costs, start, 10, no_progress)
    assert after < 0.9 * before
    assert fake.settle(found) == after
    assert problem.takes(found) <= problem.budget.limit


def test_the_light_point_lies_between() -> None:
    points = {sparsity: light_point(1 - sparsity, (4, 8)) for sparsity in (0.0, 0.3, 0.5, 0.6, 0.7, 0.97)}
    assert list(points.values()) == [DENSE, NM(6, 8), NM(5, 8), NM(5, 8), NM(4, 8), NM(1, 8)]


def test_a_pattern_that_another_one_replaces_is_not_measured(decoder: ir.Model) -> None:
    linears = find_linears(decoder)
    problem = Problem.of(linears, sparsity_budget(linears, 0.5), (2, 4, 8))
    assert all({nm.m for nm in patterns} <= {1, 8} for patterns in problem.patterns.values())


def test_a_budget_met_but_for_its_rounding_is_met(decoder: ir.Model) -> None:
    """A limit from a share of weights, such as 0.55, may lie below the whole number that it stands for."""
    linears = find_linears(decoder)
    total = sum(linear.n * linear.k for linear in linears)
    budget = sparsity_budget(linears, 0.5)
    near = replace(budget, limit=budget.limit * (1 - 2**-52))
    assert near.limit < budget.limit == total / 2
    assert Problem.of(linears, near, (8,)).alike() == dict.fromkeys([linear.name for linear in linears], NM(4, 8))

"""The knapsack against brute force, its limit, and its time."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexc.isa.errors import FlexcError
from flexc.passes.flow.knapsack import solve

tables = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5), min_size=1, max_size=5
)


def total(amounts: list[np.ndarray], choice: tuple[int, ...]) -> float:
    return float(sum(amount[index] for amount, index in zip(amounts, choice, strict=True)))


@settings(max_examples=200, deadline=None)
@given(tables, st.integers(0, 100))
def test_it_finds_the_optimum(table: list[list[tuple[int, int]]], limit: int) -> None:
    costs = [np.array([cost for cost, _ in row], np.float64) / 7 for row in table]
    weights = [np.array([weight for _, weight in row], np.float64) for row in table]
    fitting = [
        total(costs, choice)
        for choice in itertools.product(*(range(len(row)) for row in table))
        if total(weights, choice) <= limit
    ]
    if not fitting:
        with pytest.raises(FlexcError, match="no choice of patterns"):
            solve(costs, weights, limit)
        return
    choice = solve(costs, weights, limit)
    assert total(weights, choice) <= limit
    assert total(costs, choice) == pytest.approx(min(fitting), abs=1e-12)


def test_an_unreachable_limit_names_the_nearest() -> None:
    with pytest.raises(FlexcError, match=r"no choice of patterns keeps to 3 bits of stored size") as refused:
        solve([np.zeros(2)] * 2, [np.array([2.0, 5.0])] * 2, 3, what="stored size", unit="bits")
    assert refused.value.remedy == "the nearest that can be reached is 4 bits"


def test_what_costs_infinitely_much_is_never_chosen() -> None:
    costs, weights = [np.array([np.inf, 1.0])] * 2, [np.array([1.0, 3.0])] * 2
    assert solve(costs, weights, 6) == (1, 1)
    with pytest.raises(FlexcError, match="an output is infinite or no number") as refused:
        solve(costs, weights, 5, what="bits")
    assert refused.value.remedy == "the nearest that leaves them finite is 6"
    with pytest.raises(FlexcError, match="an output is infinite or no number") as refused:
        solve([np.full(2, np.inf)], weights[:1], 5)
    assert "--method wanda" in refused.value.remedy


@pytest.mark.parametrize("alike", [True, False])
def test_300_linears_of_40_candidates_take_less_than_a_second(alike: bool) -> None:
    """Linears of one size and alike are hard: very many choices are nearly optimal."""
    rng = np.random.default_rng(0)
    sizes = rng.choice([384 * 384, 384 * 1024], 300)
    density = np.arange(1, 41) / 40
    steepness = rng.uniform(3, 8, 300)
    costs = [np.exp(-density * steep) * size * rng.random() for steep, size in zip(steepness, sizes, strict=True)]
    weights = [density * size if alike else np.sort(rng.integers(1, 10**6, 40)).astype(float) for size in sizes]
    limit = 0.9 * sum(weight.mean() for weight in weights)
    start = time.process_time()
    choice = solve(costs, weights, limit)
    assert time.process_time() - start < 1
    assert total(weights, choice) <= limit

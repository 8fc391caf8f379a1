"""Weight updates against least squares solved directly."""

from __future__ import annotations

import numpy as np
import pytest

from flexc.passes.flow.solvers import DAMPING, Task, admm, conjugate_gradient, least_squares, sparsegpt
from flexc.passes.flow.update import update_weight
from flexc.passes.masks import top_mask
from flexc.passes.pattern import NM


def correlated(k: int, positions: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((k, k)) @ rng.standard_normal((k, positions)) / k**0.5
    return np.asarray(mixed, np.float32)


@pytest.fixture
def task() -> Task:
    inputs = correlated(40, 400)
    weight = np.random.default_rng(1).standard_normal((24, 40)).astype(np.float32)
    gram = inputs @ inputs.T
    return Task(weight, gram, weight @ gram)


def error(task: Task, found: np.ndarray) -> float:
    gap = found - task.weight
    return float(np.einsum("nk,kj,nj->", gap, task.gram, gap))


def test_conjugate_gradients_solve_on_the_support(task: Task) -> None:
    start = task.weight * top_mask(np.abs(task.weight), NM(2, 4))
    found = conjugate_gradient(task, start, steps=200, tolerance=1e-6)
    pull = DAMPING * task.gram.diagonal().mean()
    for row, begun, weight in zip(found, start, task.weight, strict=True):
        support = np.flatnonzero(begun)
        gram = task.gram.astype(np.float64) + pull * np.eye(40)
        expected = np.linalg.solve(gram[np.ix_(support, support)], (gram @ weight)[support])
        np.testing.assert_allclose(row[support], expected, rtol=1e-2, atol=1e-3)
        assert not row[begun == 0].any()


@pytest.mark.parametrize("nm", [NM(2, 4), NM(3, 8), NM(5, 16)])
def test_updates_come_closer_than_a_mask(task: Task, nm: NM) -> None:
    norms = np.sqrt(task.gram.diagonal())
    mask = task.weight * top_mask(np.abs(task.weight) * norms, nm)
    pruned = sparsegpt(task, nm)
    solved = conjugate_gradient(task, pruned)
    both = admm(task, nm)
    assert error(task, solved) < error(task, pruned) < error(task, mask)
    assert error(task, both) < error(task, pruned)
    for found in (pruned, solved, both):
        blocks = np.pad(found, [(0, 0), (0, -40 % nm.m)]).reshape(24, -1, nm.m)
        assert np.count_nonzero(blocks, axis=-1).max() == nm.n


def test_the_dense_solution_of_the_own_outputs_is_the_weight(task: Task) -> None:
    np.testing.assert_allclose(least_squares(task), task.weight, atol=1e-4)


def test_groups_are_updated_by_their_own_inputs() -> None:
    grams = np.stack([(x := correlated(8, 50, seed)) @ x.T for seed in (0, 1)])
    weight = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)
    found = update_weight(weight, grams, None, NM(2, 4), "admm")
    for group in (0, 1):
        rows = slice(3 * group, 3 * group + 3)
        alone = update_weight(weight[rows], grams[group : group + 1], None, NM(2, 4), "admm")
        np.testing.assert_array_equal(found[rows], alone)


def test_dead_inputs_do_no_harm() -> None:
    weight = np.random.default_rng(2).standard_normal((6, 16)).astype(np.float32)
    inputs = correlated(16, 50)
    inputs[3:9] = 0
    for gram in (inputs @ inputs.T, np.zeros((16, 16), np.float32)):
        for update in ("sparsegpt", "cg", "admm"):
            found = update_weight(weight, gram[np.newaxis], None, NM(2, 4), update)
            assert np.abs(found).max() < 10 * np.abs(weight).max()

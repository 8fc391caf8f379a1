"""Masks against a naive ranking, with ties, odd K and bad scores."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flexc.isa.errors import FlexcError
from flexc.passes.masks import top_mask
from flexc.passes.network import nth_largest_network
from flexc.passes.pattern import BLOCKS, DENSE, NM

PATTERNS = [NM(n, m) for m in BLOCKS for n in range(1, m + 1)]


def naive(scores: NDArray[np.float32], nm: NM) -> NDArray[Any]:
    """Rank each block by a stable sort, largest first, and keep the first N."""
    mask = np.zeros(scores.shape, np.bool_)
    for start in range(0, scores.shape[1], nm.m):
        order = np.argsort(-scores[:, start : start + nm.m], axis=1, kind="stable")[:, : nm.n]
        np.put_along_axis(mask[:, start : start + nm.m], order, True, axis=1)
    return mask


few_values = st.sampled_from([0.0, 1e-45, 1.0, 1.5, 3e38, np.inf])
any_values = st.floats(0, width=32, allow_nan=False)


@given(
    nm=st.sampled_from(PATTERNS),
    scores=st.tuples(st.integers(1, 5), st.integers(1, 70)).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.one_of(few_values, any_values))
    ),
)
def test_masks_equal_a_stable_ranking(nm: NM, scores: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(top_mask(scores, nm), naive(scores, nm))


@pytest.mark.parametrize("nm", PATTERNS, ids=str)
def test_a_matrix_of_many_chunks(nm: NM) -> None:
    scores = np.abs(np.random.default_rng(0).standard_normal((211, 1003))).astype(np.float32)
    np.testing.assert_array_equal(top_mask(scores, nm), naive(scores, nm))


def test_ties_keep_the_lower_index() -> None:
    mask = top_mask(np.zeros((1, 8), np.float32), NM(3, 8))
    assert mask.tolist() == [[True] * 3 + [False] * 5]


def test_negative_zero_is_zero() -> None:
    assert top_mask(np.array([[0.0, -0.0]], np.float32), NM(1, 2)).tolist() == [[True, False]]
    assert top_mask(np.array([[-0.0, 0.0]], np.float32), NM(1, 2)).tolist() == [[True, False]]


def test_dense_keeps_all() -> None:
    assert top_mask(np.zeros((2, 5), np.float32), DENSE).all()


@pytest.mark.parametrize("bad", [np.nan, -1.0])
def test_scores_without_an_order_are_refused(bad: float) -> None:
    with pytest.raises(FlexcError, match="NaN or negative"):
        top_mask(np.array([[1, 2, bad, 0]], np.float32), NM(2, 4))


@pytest.mark.parametrize(("n", "m"), [(nm.n, nm.m) for nm in PATTERNS if nm.m <= 8])
def test_networks_select_right_on_all_zero_one_inputs(n: int, m: int) -> None:
    """The zero-one principle: a min/max network is right for all inputs if it is for all of zeros and ones."""
    comparators, target = nth_largest_network(n, m)
    inputs = np.array(list(itertools.product([0, 1], repeat=m))).T
    wires = list(inputs)
    for step in comparators:
        low, high = wires[step.low], wires[step.high]
        wires[step.low] = np.minimum(low, high) if step.min_needed else low
        wires[step.high] = np.maximum(low, high) if step.max_needed else high
    np.testing.assert_array_equal(wires[target], inputs.sum(axis=0) >= n)

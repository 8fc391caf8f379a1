"""Outlier density and distribution, checked against what they say they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.linears import find_linears
from flexc.passes.calibrate import Statistics
from flexc.passes.outliers import (
    mean_distance_in_rectangle,
    outliers_by_name,
    outliers_of,
    published_statistics,
    wanda_metric,
)

ModelMaker = Callable[..., ir.Model]


def pairs_mean(points: np.ndarray) -> float:
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    return float(distances[np.triu_indices(len(points), 1)].mean())


def test_density_counts_what_is_above_the_threshold() -> None:
    metric = np.ones((4, 100), np.float32)
    metric[2, 7:17] = 50.0
    assert outliers_of(metric, 5.0).density == pytest.approx(100 * 10 / 400)
    assert outliers_of(metric, 30.0).density == 0.0


def test_distribution_is_1_where_outliers_are_spread_evenly_and_grows_with_clustering() -> None:
    rng = np.random.default_rng(0)
    spread = (rng.random((300, 200)) < 0.02).astype(np.float32)
    assert outliers_of(spread, 5.0).distribution == pytest.approx(1.0, abs=0.05)
    corner = np.zeros((300, 200), np.float32)
    corner[:30, :20] = 1.0
    assert outliers_of(corner, 5.0).distribution == pytest.approx(10.0, rel=0.05)
    column = np.zeros((300, 200), np.float32)
    column[:, 3] = 1.0  # one input channel: in one dimension, laid end to end, this would look spread
    expected = mean_distance_in_rectangle(300, 200) / (301 / 3)
    assert outliers_of(column, 5.0).distribution == pytest.approx(expected, rel=0.01)


def test_few_outliers_have_no_distribution() -> None:
    metric = np.ones((2, 30), np.float32)
    assert outliers_of(metric, 5.0).distribution == 0.0
    metric[0, 0] = 1000
    assert outliers_of(metric, 5.0).distribution == 0.0
    assert outliers_of(np.empty((0, 4), np.float32)).density == 0.0


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (3.0, 1.0), (10.0, 400.0)])
def test_mean_distance_in_a_rectangle(a: float, b: float) -> None:
    points = np.random.default_rng(1).random((1500, 2)) * (a, b)
    assert mean_distance_in_rectangle(a, b) == pytest.approx(pairs_mean(points), rel=0.03)
    if a == b:
        assert mean_distance_in_rectangle(a, b) == pytest.approx(0.5214054, rel=1e-6)


def test_the_metric_is_weight_times_input_norm_by_group(conv_model: ModelMaker) -> None:
    (linear,) = find_linears(conv_model(group=2))
    norms = np.abs(np.random.default_rng(0).standard_normal((2, linear.k)))
    metric = wanda_metric(linear, Statistics(1, {"conv": norms**2}))
    for row in range(8):
        np.testing.assert_allclose(metric[row], np.abs(linear.matrix()[row]) * norms[row // 4], rtol=1e-6)
    np.testing.assert_array_equal(wanda_metric(linear, None), np.abs(linear.matrix()))
    assert set(outliers_by_name([linear], None)) == {"conv"}


def test_published_statistics_follow_the_released_code() -> None:
    rng = np.random.default_rng(2)
    metrics = [np.abs(rng.standard_t(3, (12, 16))).astype(np.float32) for _ in range(3)]
    flat = np.concatenate([metric.ravel() for metric in metrics])
    places = np.flatnonzero(flat > flat.mean() * 2)
    density, distribution = published_statistics(metrics, 2.0, first=40)
    assert density == pytest.approx(100 * len(places) / flat.size)
    assert len(places) > 40
    assert distribution == pytest.approx(1 / pairs_mean(places[:40, None].astype(float)))
    assert published_statistics(metrics, 1e6) == (0.0, 0.0)

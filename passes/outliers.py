"""Outliers of a linear: how many weights stand out by Wanda's metric, and how they lie in the matrix.

The metric of a weight is |W_ij| * ||X_j||_2 (Sun et al., arXiv 2306.11695); an outlier is one above ``hyper_m`` times
the metric's mean over the linear (Yin et al., arXiv 2310.05175).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .methods import HYPER_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..frontend.linears import Linear
    from .calibrate import Statistics

    FloatMatrix = NDArray[np.float32]

_PAIRED = 2048
"""Outliers whose pairwise distances are taken, evenly picked of all: the mean is then within about 1 %."""

Metric = Callable[["Linear"], "FloatMatrix"]
"""The metric [n, k] of a linear."""


@dataclass(frozen=True)
class Outliers:
    """Outliers of one linear.

    Attributes:
        density: share of the weights that are outliers, in percent.
        distribution: how closely they lie together in the matrix: the mean distance of two positions drawn evenly from
            the rectangle [n, k] over the mean distance of two outliers. 1 is evenly spread, more is clustered; 0 where
            there are fewer than two.
    """

    density: float
    distribution: float


def wanda_metric(linear: Linear, statistics: Statistics | None) -> FloatMatrix:
    """Return |W| * ||X|| of a linear [n, k], rows of a grouped Conv with their own group's; |W| without statistics."""
    matrix = linear.matrix()
    if statistics is None or linear.name not in statistics.square_sums:
        plain: FloatMatrix = np.abs(matrix)
        return plain
    norms = statistics.norms(linear.name)
    rows = norms if len(norms) == 1 else np.repeat(norms, linear.n // len(norms), axis=0)
    metric: FloatMatrix = np.abs(matrix) * rows
    return metric


def outliers_of(metric: FloatMatrix, hyper_m: float = HYPER_M) -> Outliers:
    """Count the outliers of a metric [n, k] and say how they lie."""
    if metric.size == 0:
        return Outliers(0.0, 0.0)
    found = metric > np.float32(metric.mean(dtype=np.float64) * hyper_m)
    places = np.flatnonzero(found)
    density = 100 * len(places) / metric.size
    if len(places) < 2:
        return Outliers(density, 0.0)
    picked = places[np.linspace(0, len(places) - 1, min(len(places), _PAIRED)).astype(np.int64)]
    distance = _mean_distance(*np.divmod(picked, metric.shape[1]))
    return Outliers(density, mean_distance_in_rectangle(*metric.shape) / distance)


def _mean_distance(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> float:
    """Return the mean Euclidean distance of two different positions."""
    y, x = rows.astype(np.float32), columns.astype(np.float32)
    total = math.fsum(
        float(np.hypot(y[index + 1 :] - y[index], x[index + 1 :] - x[index]).sum(dtype=np.float64))
        for index in range(len(y) - 1)
    )
    return total / (len(y) * (len(y) - 1) / 2)


def mean_distance_in_rectangle(a: float, b: float) -> float:
    """Return the mean distance of two points drawn evenly from a rectangle a x b (Ghosh 1951)."""
    d = math.hypot(a, b)
    straight = a**3 / b**2 + b**3 / a**2 + d * (3 - (a / b) ** 2 - (b / a) ** 2)
    curved = b * b / a * math.acosh(d / b) + a * a / b * math.acosh(d / a)
    return (straight + 2.5 * curved) / 15


def outliers_by_name(
    linears: Sequence[Linear], statistics: Statistics | None, hyper_m: float = HYPER_M
) -> dict[str, Outliers]:
    """Return the outliers of each linear by name."""
    return {linear.name: outliers_of(wanda_metric(linear, statistics), hyper_m) for linear in linears}


def published_statistics(metrics: Sequence[FloatMatrix], hyper_m: float, first: int = 10_000) -> tuple[float, float]:
    """Return (O, D) of a transformer block as FLOW's released code computes them (arXiv 2504.14365).

    The metrics of the block's linears, one [n, k] each in order, are laid end to end. O is the share above `hyper_m`
    times their common mean, in percent; D is 1 over the mean distance of two of the `first` outliers, whose places are
    plain indices into that line. 0 where there are fewer than two.
    """
    size = sum(metric.size for metric in metrics)
    mean = sum(float(metric.sum(dtype=np.float64)) for metric in metrics) / max(1, size)
    limit = np.float32(mean * hyper_m)
    count, places, start = 0, [np.empty(0, np.int64)], 0
    for metric in metrics:
        found = np.flatnonzero(metric > limit)
        places.append(found[: max(0, first - count)] + start)
        count, start = count + len(found), start + metric.size
    used = np.concatenate(places).astype(np.float64)
    if len(used) < 2:
        return 100 * count / max(1, size), 0.0
    order = 2 * np.arange(len(used)) - (len(used) - 1)  # of sorted places, each is added and subtracted that often
    distance = float((order * used).sum()) / (len(used) * (len(used) - 1) / 2)
    return 100 * count / size, 1 / distance

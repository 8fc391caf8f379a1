"""What a selection may spend: an amount each linear takes in each pattern, and a limit on their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...isa.errors import UsageError
from ..pattern import NM

if TYPE_CHECKING:
    from ...frontend.linears import Linear

Weigh = Callable[["Linear", NM], float]
"""(linear, pattern) -> the amount of the budgeted quantity that the linear takes in that pattern."""


@dataclass(frozen=True)
class Budget:
    """A limit on the sum of `weigh` over the linears that are open to pruning.

    Attributes:
        name: what is limited, as reports and messages say it: ``kept weights``, ``bits``, ``cycles``, ``energy``.
        limit: the most that the linears may take together, in `unit`.
        weigh: what one linear takes in one pattern, in `unit`; additive over linears.
        unit: for reports.
        by_zeros: whether only the number of zeros counts, so that of patterns with one density the largest M wins.
    """

    name: str
    limit: float
    weigh: Weigh
    unit: str = ""
    by_zeros: bool = False


def sparsity_budget(linears: Sequence[Linear], sparsity: float) -> Budget:
    """Limit the weights kept by `linears` to a share 1 - `sparsity` of all their weights.

    Raises:
        UsageError: a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity {sparsity:g}: it is a share from 0 to below 1", remedy="0.5 prunes half")
    total = sum(linear.n * linear.k for linear in linears)
    return Budget("kept weights", (1 - sparsity) * total, kept_weights, "weights", by_zeros=True)


def kept_weights(linear: Linear, nm: NM) -> float:
    """Count the weights a linear keeps in a pattern."""
    return float(linear.n * nm.kept(linear.k))

"""A selection: which pattern every linear gets, what was asked for and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..pattern import NM


@dataclass(frozen=True)
class Selection:
    """What FLOW chose, a value that can be saved, edited and applied again.

    Attributes:
        patterns: linear name -> pattern, in graph order, for every linear that was open to pruning.
        budget: what was limited, see :class:`~.budget.Budget`.
        unit: unit of `limit` and `reached`.
        limit: the most that was allowed.
        reached: what the patterns take.
        metric: how divergence was measured: ``kl`` (nats a position) or ``output`` (relative error).
        costs: linear name -> the divergence that its pattern adds, as it was measured alone.
        divergence: of all patterns together, on the windows that were measured; None where it was not.
        windows: how many calibration windows costs were measured on.
    """

    patterns: Mapping[str, NM]
    budget: str
    unit: str
    limit: float
    reached: float
    metric: str
    costs: Mapping[str, float] = field(default_factory=dict)
    divergence: float | None = None
    windows: int = 0

"""What the user may choose about FLOW, and how it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ...isa.errors import UsageError, did_you_mean
from .budget import Budget

Update = Literal["none", "sparsegpt", "cg", "admm"]
Effort = Literal["quick", "full"]
Metric = Literal["auto", "kl", "output"]

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, steps done, steps in all) whenever a step ends."""


def no_progress(_what: str, _done: int, _steps: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class FlowOptions:
    """What FLOW is asked for.

    Attributes:
        sparsity: share of zeros over all linears open to pruning; used when there is no `budget`.
        budget: another limit, see :class:`~.budget.Budget`.
        m_set: block lengths to choose from.
        update: what becomes of the weights that stay: left alone; SparseGPT; SparseGPT and conjugate gradients on its
            mask; masks and weights together by ADMM, the most accurate.
        effort: how many windows costs are measured on, and how many rounds a search on the joint divergence takes.
        metric: ``kl`` of the outputs' softmax, ``output`` relative error, ``auto`` by what the output is.
        samples: calibration windows for input statistics and weight updates.
        include_tied: prune a head tied to the embedding, too.
        state: file that an interrupted selection leaves and that a later one goes on from; None: none.
    """

    sparsity: float = 0.5
    budget: Budget | None = None
    m_set: tuple[int, ...] = (4, 8)
    update: Update = "none"
    effort: Effort = "quick"
    metric: Metric = "auto"
    samples: int = 128
    include_tied: bool = False
    state: Path | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("update", self.update, get_args(Update)),
            ("effort", self.effort, get_args(Effort)),
            ("metric", self.metric, get_args(Metric)),
        ):
            if value not in known:
                remedy = did_you_mean(value, known) or f"one of {', '.join(known)}"
                raise UsageError(f"unknown {name} '{value}'", remedy=remedy)

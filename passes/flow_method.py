"""FLOW as a pruning method: its selection among the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from .baselines import check_reachable
from .flow.options import FlowOptions
from .flow.select import select
from .prune import Choice

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..frontend.linears import Linear
    from .flow.options import Update
    from .prune import Request


def select_patterns(model: ir.Model, linears: Sequence[Linear], request: Request) -> Choice:
    """Choose a pattern for every linear by measured divergence."""
    assert request.feeds is not None, "prune_by refuses a method without its data"
    if request.budget is None:
        check_reachable(linears, request.sparsity or 0.0, max(request.m_set))
    options = FlowOptions(
        sparsity=request.sparsity or 0.0,
        budget=request.budget,
        m_set=request.m_set,
        update=cast("Update", request.update or "none"),
        effort=request.effort,
        metric=request.metric,
        samples=request.samples,
        include_tied=request.include_tied,
        state=request.state,
    )
    found = select(model, request.feeds, options, request.progress, request.statistics)
    facts = {"metric": found.metric, "divergence": found.divergence, "cost_windows": found.windows}
    return Choice({linear.name: found.patterns[linear.name] for linear in linears}, facts=facts, costs=found.costs)

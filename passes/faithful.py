"""The published FLOW selection, quirks and all: arXiv 2504.14365 as its released code computes it.

For each transformer block an integer program picks N:M of five patterns by outlier density O and distribution D, under
an average sparsity that must be met exactly. Where no selection meets it, the released code goes on with the solver's
relaxation: blocks without a whole choice are skipped, later ones take their place, and the tail becomes 4:8. The first
and the last block are left dense afterwards, so the sparsity reached is lower than the one asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..isa.errors import FlexcError
from .pattern import NM
from .prune import Choice

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from ..frontend.linears import Linear
    from .prune import Request

    Floats = NDArray[np.float64]

OPTIONS = (NM(4, 8), NM(4, 4), NM(2, 8), NM(2, 4), NM(8, 8))
"""The patterns of the integer program, in the order of its variables."""

PADDING = NM(4, 8)
"""What blocks at the end get when the solver chose too few."""

ALPHA, BETA = 1.0, 4.0
_WHOLE = 1e-9


@dataclass(frozen=True)
class Problem:
    """Choose one of :data:`OPTIONS` for each block: cost [blocks, options] is least, mean sparsity equals `target`."""

    costs: Floats
    target: float

    @property
    def sparsities(self) -> Floats:
        """Share of zeros of every option."""
        return np.array([1 - nm.density for nm in OPTIONS])


Solver = Callable[[Problem], "Floats"]
"""Return how much of each option every block takes [blocks, options]: whole, or a relaxation where none is feasible."""


@dataclass(frozen=True)
class Chosen:
    """What the published selection gives, before the first and the last block are left dense."""

    patterns: tuple[NM, ...]
    cost: float
    skipped: int

    @property
    def sparsity(self) -> float:
        """Mean share of zeros over blocks, each counted once as the released code does."""
        return sum(1 - nm.density for nm in self.patterns) / max(1, len(self.patterns))


def problem(density: Sequence[float], distribution: Sequence[float], target: float) -> Problem:
    """Set the integer program up from O and D of every block.

    Raises:
        FlexcError: all blocks have the same O or D, which the published normalisation divides by zero.
    """
    o, d = _normalised(density, "density"), _normalised(distribution, "distribution")
    costs = [
        [ALPHA * abs(nm.n - 8 * o[i]) + BETA * abs(nm.m - 8 * (1 - d[i])) for nm in OPTIONS] for i in range(len(o))
    ]
    return Problem(np.array(costs, np.float64), target)


def _normalised(values: Sequence[float], what: str) -> Floats:
    """Min-max normalise, by way of the centring that the released code undoes (so its lambda has no effect)."""
    array = np.asarray(values, np.float64)
    spread = array.max() - array.min()
    if not spread > 0:
        raise FlexcError(
            f"the outlier {what} is equal in all {len(array)} blocks, and the published method divides by its spread",
            remedy="choose another --hyper-m, or --method flow",
        )
    scaled = (array - array.min()) / spread
    centred = scaled - scaled.mean()
    again: Floats = (centred - centred.min()) / (centred.max() - centred.min())
    return again


def select(chosen: Problem, solve: Solver) -> Chosen:
    """Solve the program and read it as the released code does: whole options only, shifted forward, padded with 4:8."""
    taken = np.abs(solve(chosen) - 1) < _WHOLE
    patterns = [nm for row in taken for nm, whole in zip(OPTIONS, row, strict=True) if whole]
    missing = len(taken) - len(patterns)
    return Chosen((*patterns, *[PADDING] * missing), float(chosen.costs[taken].sum()), missing)


def solve_with_highs(chosen: Problem) -> Floats:
    """Solve with HiGHS (scipy): the integer program, or its relaxation where that is infeasible."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    blocks, options = chosen.costs.shape
    one_each = np.kron(np.eye(blocks), np.ones(options))
    mean = np.tile(chosen.sparsities, blocks)[np.newaxis] / blocks
    limits = [LinearConstraint(one_each, 1, 1), LinearConstraint(mean, chosen.target, chosen.target)]
    for whole in (1, 0):
        found = milp(
            chosen.costs.ravel(), integrality=np.full(blocks * options, whole), bounds=Bounds(0, 1), constraints=limits
        )
        if found.x is not None:
            solution: Floats = np.asarray(found.x, np.float64).reshape(blocks, options)
            return np.round(solution) if whole else solution
    raise FlexcError(
        f"no mixture of {', '.join(map(str, OPTIONS))} has sparsity {chosen.target:g}",
        remedy="the published method reaches 0 to 75 %",
    )


def dense_ends(patterns: Sequence[NM]) -> list[NM]:
    """Leave the first and the last block dense, as the released pruning does whatever was selected for them."""
    return [NM(8, 8) if place in (0, len(patterns) - 1) else nm for place, nm in enumerate(patterns)]


def select_patterns(_model: ir.Model, linears: Sequence[Linear], request: Request) -> Choice:
    """Choose one pattern for each block of a model as published; linears outside all blocks stay dense.

    Raises:
        FlexcError: fewer than three blocks, statistics that are equal in all, or a sparsity beyond its patterns.
    """
    from .baselines import sparsity_of
    from .blocks import blocks_of
    from .outliers import published_statistics, wanda_metric

    blocks, sparsity = blocks_of(linears), request.sparsity or 0.0
    if len(blocks) < 3:
        raise FlexcError(
            f"the published method leaves the first and the last of a model's blocks dense: {len(blocks)} are too few",
            remedy="choose --method flow",
        )
    found = [
        published_statistics([wanda_metric(linear, request.statistics) for linear in block], request.hyper_m)
        for block in blocks
    ]
    chosen = select(problem([o for o, _ in found], [d for _, d in found], sparsity), solve_with_highs)
    by_block = dense_ends(chosen.patterns)
    patterns = {linear.name: NM(1, 1) for linear in linears}
    patterns |= {linear.name: nm for block, nm in zip(blocks, by_block, strict=True) for linear in block}
    reached = sparsity_of(linears, patterns)
    return Choice(
        {linear.name: patterns[linear.name] for linear in linears},
        warnings=(_shortfall(chosen, sparsity, reached),),
        facts={
            "blocks": len(blocks),
            "selected_by_block": [str(nm) for nm in chosen.patterns],
            "outlier_density_by_block": [o for o, _ in found],
            "outlier_distribution_by_block": [d for _, d in found],
            "skipped_blocks": chosen.skipped,
        },
    )


def _shortfall(chosen: Chosen, asked: float, reached: float) -> str:
    """Say what the published method really comes to."""
    text = f"the published method reaches {100 * reached:.1f} % of the {100 * asked:.1f} % asked for"
    if chosen.skipped:
        text += (
            f": no selection meets the target, so {chosen.skipped} of {len(chosen.patterns)} blocks were skipped, "
            f"later ones moved forward and the tail padded with {PADDING} ({100 * chosen.sparsity:.1f} %)"
        )
    return f"{text}; its first and last block stay dense"


def write_masks(model: ir.Model, patterns: Mapping[str, NM], request: Request) -> None:
    """Mask by Wanda's metric block by block, each block seeing its pruned predecessors."""
    from ..frontend.linears import find_linears, replace_weight
    from . import prune
    from .blocks import blocks_of
    from .calibrate import calibrate

    if request.feeds is None or request.update not in (None, "none"):
        prune.write_masks(model, patterns, request)
        return
    blocks = blocks_of([linear for linear in find_linears(model) if linear.name in patterns])
    for done, block in enumerate(blocks):
        request.progress("blocks", done, len(blocks))
        pruned = {linear.name for linear in block if not patterns[linear.name].is_dense}
        if not pruned:
            continue
        statistics = calibrate(model, request.feeds, request.samples, sorted(pruned))
        for linear in find_linears(model):
            if linear.name in pruned:
                matrix = prune.masked(linear, patterns[linear.name], statistics.norms(linear.name))
                replace_weight(model, linear, matrix)

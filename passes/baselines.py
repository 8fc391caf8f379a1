"""Patterns by simple rules: one for all, densities by outliers, what is there, none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..frontend.linears import sharing
from ..isa.errors import FlexcError, UsageError
from .blocks import blocks_of
from .outliers import published_statistics, wanda_metric
from .pattern import BLOCKS, DENSE, NM
from .prune import Choice, kept_pattern

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..frontend.linears import Linear
    from .prune import Request

OWL_SPREAD = 0.08
"""How far a block's sparsity may lie from the mean, as OWL's authors recommend (lambda, arXiv 2310.05175)."""


def keep(_model: ir.Model, linears: Sequence[Linear], request: Request) -> Choice:
    """Take the pattern that each weight has."""
    return Choice({linear.name: kept_pattern(linear, request) for linear in linears})


def dense(_model: ir.Model, linears: Sequence[Linear], _request: Request) -> Choice:
    """Leave all linears dense."""
    return Choice({linear.name: DENSE for linear in linears})


def uniform(_model: ir.Model, linears: Sequence[Linear], request: Request) -> Choice:
    """One pattern for all; under a sparsity that no pattern has, the two nearest take turns through the model."""
    if request.nm is not None:
        return Choice({linear.name: request.nm for linear in linears})
    sparsity, m = request.sparsity or 0.0, max(request.m_set)
    check_reachable(linears, sparsity, m)
    low = max(1, int(np.floor(m * (1 - sparsity) + 1e-9)))
    units, kept, wanted, got = sharing(linears), list[int](), 0.0, 0
    for unit in units:
        wanted += sparsity * sum(linear.n * linear.k for linear in unit)
        kept.append(low + 1 if low < m and got + _zeros_of([unit], [low + 1], m) >= wanted else low)
        got += _zeros_of([unit], kept[-1:], m)
    kept = _down_to(units, kept, m, wanted)
    patterns = {linear.name: NM(n, m) for unit, n in zip(units, kept, strict=True) for linear in unit}
    return Choice({linear.name: patterns[linear.name] for linear in linears})


def _down_to(units: Sequence[Sequence[Linear]], kept: Sequence[int], m: int, wanted: float) -> list[int]:
    """Keep fewer, the densest and last first, until so many weights are zero: short last blocks lose less."""
    kept = list(kept)
    removed = _zeros_of(units, kept, m)
    while removed < wanted:
        place = max(range(len(kept)), key=lambda index: (kept[index], index))
        removed -= _zeros_of([units[place]], [kept[place]], m)
        kept[place] -= 1
        removed += _zeros_of([units[place]], [kept[place]], m)
    return kept


def owl(_model: ir.Model, linears: Sequence[Linear], request: Request) -> Choice:
    """Densities by block: more where more weights are outliers (Yin et al., arXiv 2310.05175), rounded to N:M.

    Rounded down first; then the blocks that lost most are rounded up while the sparsity asked for still holds.
    """
    sparsity, m = request.sparsity or 0.0, max(request.m_set)
    check_reachable(linears, sparsity, m)
    units = _units(linears)
    shares = [
        published_statistics([wanda_metric(linear, request.statistics) for linear in unit], request.hyper_m)[0]
        for unit in units
    ]
    exact = owl_densities(np.array(shares), [len(unit) > 1 for unit in units], sparsity) * m
    kept = [int(min(m, max(1, np.floor(value + 1e-9)))) for value in exact]
    total = sum(linear.n * linear.k for linear in linears)
    for place in np.argsort(-(exact - kept), kind="stable"):
        trial = [*kept[:place], min(m, kept[place] + 1), *kept[place + 1 :]]
        if _zeros_of(units, trial, m) >= sparsity * total:
            kept = trial
    while _zeros_of(units, kept, m) < sparsity * total:  # short last blocks lose less, and N is at least 1
        kept[int(np.argmax(kept))] -= 1
    patterns = {linear.name: NM(n, m) for unit, n in zip(units, kept, strict=True) for linear in unit}
    return Choice({linear.name: patterns[linear.name] for linear in linears}, facts={"blocks": len(units)})


def owl_densities(
    shares: np.ndarray[tuple[int], np.dtype[np.float64]], in_block: Sequence[bool], sparsity: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the density of each unit: the mean for a lone linear, up to `OWL_SPREAD` off it for blocks."""
    densities = np.full(len(shares), 1 - sparsity)
    of_blocks = np.asarray(in_block, bool)
    if not of_blocks.any():
        of_blocks[:] = True
    low, high = shares[of_blocks].min(), shares[of_blocks].max()
    if high > low:
        scaled = (shares[of_blocks] - low) / (high - low) * 2 * OWL_SPREAD
        densities[of_blocks] += scaled - scaled.mean()
    return densities


def _units(linears: Sequence[Linear]) -> list[list[Linear]]:
    """Return the blocks, and each linear outside them by itself; what shares a weight is one."""
    blocks = blocks_of(linears)
    units: list[list[Linear]] = []
    inside = {linear.name for block in blocks for linear in block}
    groups = {linear.name: group for group in sharing(linears) for linear in group}
    for unit in [*blocks, *([linear] for linear in linears if linear.name not in inside)]:
        whole = {each.name: each for linear in unit for each in groups[linear.name]}
        for other in [other for other in units if not whole.keys().isdisjoint(each.name for each in other)]:
            units.remove(other)
            whole = {each.name: each for each in other} | whole
        units.append(list(whole.values()))
    return units


def _zeros_of(units: Sequence[Sequence[Linear]], kept: Sequence[int], m: int) -> int:
    return sum(zeros(linear, NM(n, m)) for unit, n in zip(units, kept, strict=True) for linear in unit)


def zeros(linear: Linear, nm: NM) -> int:
    """Weights that a pattern takes from a linear."""
    return linear.n * (linear.k - nm.kept(linear.k))


def sparsity_of(linears: Sequence[Linear], patterns: Mapping[str, NM]) -> float:
    """Share of zeros that patterns give over linears."""
    removed = sum(zeros(linear, patterns[linear.name]) for linear in linears)
    return removed / max(1, sum(linear.n * linear.k for linear in linears))


def check_reachable(linears: Sequence[Linear], sparsity: float, m: int) -> None:
    """Refuse a sparsity that is no share of 1, or that not even 1:M of every linear reaches.

    Raises:
        UsageError: no share.
        FlexcError: out of reach; the message names the most that can be reached.
    """
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity {sparsity:g}: it is a share from 0 to below 1", remedy="0.5 prunes half")
    most = sparsity_of(linears, {linear.name: NM(1, m) for linear in linears})
    if sparsity > most:
        text = f"sparsity {sparsity:g} cannot be reached: 1:{m} in every linear is {most:.4f}"
        raise FlexcError(text, remedy=_reachable(linears, sparsity, m, most))


def _reachable(linears: Sequence[Linear], sparsity: float, m: int, most: float) -> str:
    """Say what to ask for instead: the most that M, and the largest M, can give."""
    largest = max(BLOCKS)
    more = sparsity_of(linears, {linear.name: NM(1, largest) for linear in linears})
    remedy = f"ask for {_down(most)} at most"
    if m == largest or more <= most:
        return remedy
    limit = "" if sparsity <= more else f", which gives {_down(more)} at most"
    return f"{remedy}, or allow a larger M, --m-set 4,8,16{limit}"


def _down(share: float) -> str:
    """Write a share with four digits, rounded down so that it can be asked for."""
    return f"{np.floor(share * 1e4) / 1e4:g}"

"""Budgets of a machine's cycles, energy or stored bits: what linears take of them, and choices that keep to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from flexc.budget_words import Amount
from flexc.emulation import Cost
from flexc.hardware import PatternCosts, time_patterns
from flexc.isa.errors import FlexcError
from flexc.passes.flow.budget import Budget
from flexc.passes.flow.candidates import candidates
from flexc.passes.flow.options import Progress
from flexc.passes.methods import Method
from flexc.passes.pattern import DENSE, NM
from flexc.passes.prune import Choice, Request, check_any_open, choose_patterns, open_linears

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.frontend.linears import Linear
    from flexc.isa.machine import Machine

_TRIES = 6
"""How often patterns are chosen at most until the timed program keeps to the budget, and uses it."""

_ERROR = 0.02
"""By how much an estimate may be too high: a share of what the budget saves."""

_NO_MIXTURE = (
    "no choice by accuracy keeps to the budget: the patterns are the densest that do throughout, or the lightest"
)


class Meter:
    """What a program takes of one quantity, by linear and in all."""

    def __init__(self, model: ir.Model, linears: list[Linear], quantity: str, machine: Machine, attention: str) -> None:
        self._quantity, self._linears = quantity, linears
        self._model, self._machine, self._attention = model, machine, attention
        self._costs = PatternCosts(model, linears, machine, attention)

    def linear(self, linear: Linear, nm: NM) -> float:
        """Return what a linear takes in a pattern."""
        if self._quantity == "bits":
            return stored_bits(linear, nm)
        return self._costs.cycles(linear, nm) if self._quantity == "cycles" else self._costs.energy(linear, nm)

    def measure(self, patterns: Sequence[NM], progress: Progress) -> None:
        """Time the programs that have one of these patterns throughout, showing how far that is."""
        if self._quantity == "bits":
            return
        for done, nm in enumerate(patterns):
            progress("timing patterns", done, len(patterns))
            self._costs.program(nm)

    def sum(self, patterns: Mapping[str, NM]) -> float:
        """Return the sum of what all linears take."""
        return sum(self.linear(linear, patterns[linear.name]) for linear in self._linears)

    def lightest(self, patterns: Sequence[NM]) -> dict[str, NM]:
        """Return for each linear the pattern in which it takes least."""
        return {each.name: min(patterns, key=partial(self.linear, each)) for each in self._linears}

    def program(self, patterns: Mapping[str, NM]) -> float:
        """Return what the whole program takes with these patterns; of bits, those of the weights."""
        if self._quantity == "bits":
            return self.sum(patterns)
        return self._of(time_patterns(self._model, patterns, self._machine, self._attention))

    def throughout(self, nm: NM) -> tuple[dict[str, NM], float]:
        """Return all linears in one pattern, and what that program takes."""
        patterns = self._costs.throughout(nm)
        return patterns, self.sum(patterns) if self._quantity == "bits" else self._of(self._costs.program(nm))

    def _of(self, cost: Cost) -> float:
        return float(cost.cycles) if self._quantity == "cycles" else cost.energy.total_pj


def stored_bits(linear: Linear, nm: NM) -> float:
    """Return the bits that a linear's INT8 weights and their in-block indices take."""
    return float(linear.n * nm.stored_bits(linear.k))


class _Found(NamedTuple):
    """A choice, what its linears take together, and what the timed program takes."""

    choice: Choice
    taken: float
    real: float

    @property
    def rank(self) -> tuple[float, float]:
        """What is least of the best choice that keeps to a budget."""
        return self.choice.facts.get("divergence", 0.0), -self.real


def within(
    model: ir.Model, method: Method, request: Request, amount: Amount, machine: Machine, attention: str
) -> tuple[Choice, dict[str, Any]]:
    """Choose patterns whose timed program keeps to a budget.

    Patterns are chosen by a sum over linears. Where the timed program takes more than the budget, or the sum is so much
    too high that accuracy is given away, the limit of the sum is moved by the difference and patterns are chosen again.

    Raises:
        FlexcError: not even the least of every linear keeps to it; the message names the nearest that can be reached.
    """
    linears, known = open_linears(model, include_tied=request.include_tied), candidates(request.m_set)
    check_any_open(model, linears)
    meter = Meter(model, linears, amount.quantity, machine, attention)
    meter.measure(known, request.progress)
    dense, total = meter.throughout(DENSE)
    limit = amount.of(total)
    fallback, reached = _fallback(meter, known, limit)
    _check_reachable(reached, limit, total, amount)

    def choose(allowed: float) -> _Found:
        budget = Budget(amount.quantity, allowed, meter.linear, amount.unit)
        choice = choose_patterns(model, method.name, replace(request, budget=budget))
        return _Found(choice, meter.sum(choice.patterns), meter.program(choice.patterns))

    offset, least = total - meter.sum(dense), meter.sum(meter.lightest(known))
    best = _keep_to(limit, choose, least, limit - offset, _ERROR * (total - limit))
    best = best or _Found(Choice(fallback, warnings=(_NO_MIXTURE,)), meter.sum(fallback), reached)
    spent = {"quantity": amount.quantity, "unit": amount.unit, "limit": limit, "dense": total, "not_linear": offset}
    return best.choice, spent | {"estimate": best.taken + offset, "measured": best.real}


def _keep_to(
    limit: float, choose: Callable[[float], _Found], least: float, allowed: float, error: float
) -> _Found | None:
    """Return the best choice found whose program keeps to the limit, None where none does.

    Args:
        limit: of what the program takes.
        choose: from what linears may take together to a choice.
        least: the least that they take.
        allowed: what to begin with.
        error: by how much a sum may be too high; the search ends where it knows the right limit as exactly.
    """
    best: _Found | None = None
    fits, too_much, allowed = least, math.inf, max(least, allowed)
    for _ in range(_TRIES):
        found = choose(allowed)
        if found.real > limit:
            too_much = min(allowed, found.taken)
            allowed = too_much - 1.05 * (found.real - limit)
        else:
            best = found if best is None else min(best, found, key=lambda each: each.rank)
            unused = (limit - found.real) - (allowed - found.taken)
            if unused <= error:
                break
            fits, allowed = max(fits, allowed), allowed + unused
        if too_much - fits <= error:
            break
        allowed = allowed if fits <= allowed < too_much else (fits + too_much) / 2
    return best


def _fallback(meter: Meter, known: Sequence[NM], limit: float) -> tuple[dict[str, NM], float]:
    """Return patterns that keep to the limit if any do, and what the program takes with them.

    The densest pattern that does so throughout; else what takes least of one pattern throughout and the lightest of
    each linear: a program of several patterns may take more than their sum, since like layers are alike no more.
    """
    throughout = [meter.throughout(nm) for nm in known]
    if fitting := [each for each in throughout if each[1] <= limit]:
        return fitting[-1]  # the sparsest is known first
    lightest = meter.lightest(known)
    return min((*throughout, (lightest, meter.program(lightest))), key=lambda each: each[1])


def _check_reachable(least: float, limit: float, total: float, amount: Amount) -> None:
    """Refuse a budget that even the lightest patterns exceed."""
    if least > limit:
        raise FlexcError(
            f"a budget of {limit:.6g} {amount.unit} cannot be kept: with every linear in the pattern that takes least, "
            f"the program takes {least:.6g}",
            remedy=f"the nearest that can be reached is {amount.quantity}={least:.0f}, x{least / total:.4f} of dense",
        )

"""Budgets of a machine's cycles, energy or stored bits: what linears take of them, and choices that keep to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from flexc.budget_words import Amount
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


_ONLY_LIGHTEST = "only the lightest patterns keep to the budget: accuracy had no say in them"


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
        """Find out what linears take in these patterns, showing how far that is."""
        for done, nm in enumerate(patterns):
            progress("timing patterns", done, len(patterns))
            self.sum(dict.fromkeys((linear.name for linear in self._linears), nm))

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
        cost = time_patterns(self._model, patterns, self._machine, self._attention)
        return float(cost.cycles) if self._quantity == "cycles" else cost.energy.total_pj


def stored_bits(linear: Linear, nm: NM) -> float:
    """Return the bits that a linear's INT8 weights and their in-block indices take."""
    kept = DENSE if nm.is_dense else nm
    return float(linear.n * kept.kept(linear.k) * (8 + kept.index_bits))


class _Found(NamedTuple):
    """A choice, and what the program takes with it: by the sum over linears, and timed."""

    choice: Choice
    estimate: float
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
    dense = {linear.name: DENSE for linear in linears}
    total = meter.program(dense)
    limit = amount.of(total)
    meter.measure(known, request.progress)
    lightest, reached = _reach(meter, known, limit)
    _check_reachable(reached, limit, total, amount)
    offset, least = total - meter.sum(dense), meter.sum(lightest)
    best: _Found | None = None
    allowed, too_much, real = max(least, limit - offset), math.inf, total
    for _ in range(_TRIES):
        budget = Budget(amount.quantity, allowed, meter.linear, amount.unit)
        choice = choose_patterns(model, method.name, replace(request, budget=budget))
        estimate, real = meter.sum(choice.patterns), meter.program(choice.patterns)
        if real > limit:
            too_much = min(too_much, allowed)
            allowed = max(least, allowed - 1.05 * (real - limit))
            continue
        found = _Found(choice, estimate + offset, real)
        best = found if best is None else min(best, found, key=lambda each: each.rank)
        unused = (limit - real) - (allowed - estimate)
        allowed += unused
        if unused <= _ERROR * (total - limit) or allowed >= too_much:
            break
    best = best or _Found(Choice(lightest, warnings=(_ONLY_LIGHTEST,)), least + offset, reached)
    spent = {"quantity": amount.quantity, "unit": amount.unit, "limit": limit, "dense": total, "not_linear": offset}
    return best.choice, spent | {"estimate": best.estimate, "measured": best.real}


def _reach(meter: Meter, known: Sequence[NM], limit: float) -> tuple[dict[str, NM], float]:
    """Return the patterns with which the program takes least, and what it takes.

    Each linear in its own lightest pattern, or, where that exceeds the limit, all in one: to change patterns between
    linears takes a few cycles, too.
    """
    lightest = meter.lightest(known)
    reached = meter.program(lightest)
    if reached <= limit:
        return lightest, reached
    uniform = min((dict.fromkeys(lightest, nm) for nm in known), key=meter.sum)
    return min(((lightest, reached), (uniform, meter.program(uniform))), key=lambda each: each[1])


def _check_reachable(least: float, limit: float, total: float, amount: Amount) -> None:
    """Refuse a budget that even the lightest patterns exceed."""
    if least > limit:
        raise FlexcError(
            f"a budget of {limit:.6g} {amount.unit} cannot be kept: with every linear in the pattern that takes least, "
            f"the program takes {least:.6g}",
            remedy=f"the nearest that can be reached is {amount.quantity}={least:.0f}, x{least / total:.4f} of dense",
        )

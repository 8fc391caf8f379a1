"""Budgets: what linears are weighed by is what programs take, and a budget is kept and used up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexc.budget_words import parse_budget
from flexc.budgets import _Found, _keep_to
from flexc.compiler import machine_of
from flexc.frontend.linears import Linear
from flexc.hardware import PatternCosts, time_patterns
from flexc.passes.pattern import DENSE, NM
from flexc.passes.prune import Choice, open_linears
from flexc.prune_options import PruneOptions
from flexc.pruned_file import open_model
from flexc.pruning import Pruned, prune_model
from flexc.stages import Stages

ROOT = Path(__file__).parents[2]
DECODER = ROOT / "tests" / "models" / "decoder.onnx"
TINY_LM = ROOT / "examples" / "tiny_lm" / "model.onnx"
EDGE = machine_of("edge")


def pruned(**options: Any) -> Pruned:
    """Prune the decoder by flow on made-up tokens."""
    tokens = np.random.default_rng(5).integers(0, 48, 8 * 40)
    path = Path(options.pop("folder")) / "tokens.npy"
    np.save(path, tokens)
    words = PruneOptions(prune="flow", calib=str(path), permute="none", m_set=(8,), **options)
    return prune_model(open_model(str(DECODER)).dense, words, EDGE, Stages())


def patterns_of(found: Pruned) -> dict[str, NM]:
    return {row.name: row.nm for row in found.report.linears}


def test_linears_take_in_mixed_programs_what_they_take_in_uniform_ones() -> None:
    model = open_model(str(TINY_LM)).dense
    linears, known = open_linears(model), [NM.parse(text) for text in ("dense", "4:8", "2:8")]
    costs = PatternCosts(model, linears, EDGE)
    dense = time_patterns(model, {linear.name: DENSE for linear in linears}, EDGE)
    turns = (0, 0, 2, 0, 1, 1, 2)  # of q, k, v, o, gate, up, down: q and k share a kernel, gate and up, too
    mixed = {linear.name: known[(at // 7 + turns[at % 7]) % 3] for at, linear in enumerate(linears)}
    real = time_patterns(model, mixed, EDGE)
    cycles = sum(costs.cycles(linear, DENSE) - costs.cycles(linear, mixed[linear.name]) for linear in linears)
    energy = sum(costs.energy(linear, DENSE) - costs.energy(linear, mixed[linear.name]) for linear in linears)
    assert cycles == pytest.approx(dense.cycles - real.cycles, rel=0.05)
    assert energy == pytest.approx(dense.energy.total_pj - real.energy.total_pj, rel=0.05)


def test_equal_cycles_buy_no_less_accuracy_than_a_sparsity_does(tmp_path: Path) -> None:
    by_zeros = pruned(sparsity=0.6, folder=tmp_path)
    model = open_model(str(DECODER)).dense
    cycles = time_patterns(model, patterns_of(by_zeros), EDGE).cycles
    by_cycles = pruned(budget=parse_budget(f"cycles={cycles}"), folder=tmp_path)
    assert by_cycles.spent["measured"] <= cycles
    assert by_cycles.report.choice.facts["divergence"] < 0.7 * by_zeros.report.choice.facts["divergence"]


@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_wrong_estimates_neither_break_a_budget_nor_waste_it(
    factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder has six linears, so that patterns are few: the nearest choice may save a third too much."""
    right: Callable[..., float] = PatternCosts.cycles

    def wrong(self: PatternCosts, linear: Linear, nm: NM) -> float:
        dense = right(self, linear, DENSE)
        return dense - factor * (dense - right(self, linear, nm))

    monkeypatch.setattr(PatternCosts, "cycles", wrong)
    spent = pruned(budget=parse_budget("cycles=x0.985"), folder=tmp_path).spent
    assert spent["limit"] - 0.3 * (spent["dense"] - spent["limit"]) <= spent["measured"] <= spent["limit"]


def stepped(takes: Callable[[float], float]) -> Callable[[float], _Found]:
    """Choices in steps of ten of what is allowed; the program takes `takes` of that, and accuracy wants it all."""

    def choose(allowed: float) -> _Found:
        taken = allowed // 10 * 10
        return _Found(Choice({}, facts={"divergence": -taken}), taken, takes(taken))

    return choose


def test_a_limit_missed_by_less_than_a_step_is_tightened_by_one() -> None:
    found = _keep_to(1000, stepped(lambda taken: taken + 1), least=0, allowed=1009, error=2)
    assert found is not None
    assert found.taken == 990


def test_a_jump_of_what_programs_take_is_found_from_either_side() -> None:
    for allowed in (900, 400):
        found = _keep_to(1000, stepped(lambda taken: taken + 600 * (taken > 500)), least=100, allowed=allowed, error=2)
        assert found is not None
        assert 400 <= found.taken <= 500


def test_where_no_choice_keeps_to_a_budget_one_pattern_throughout_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexc.budgets._keep_to", lambda *_given: None)
    found = pruned(budget=parse_budget("cycles=x0.995"), folder=tmp_path)
    (nm,) = set(patterns_of(found).values())
    assert found.spent["measured"] <= found.spent["limit"]
    assert "no choice by accuracy keeps to the budget" in found.warnings[-1]
    model, machine = open_model(str(DECODER)).dense, EDGE
    denser = dict.fromkeys((row.name for row in found.report.linears), NM(nm.n + 1, nm.m))
    assert time_patterns(model, denser, machine).cycles > found.spent["limit"]

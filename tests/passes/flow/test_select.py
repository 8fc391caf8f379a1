"""Selection by measured divergence on a small language model, and the weights it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.linears import Linear, find_linears
from flexc.isa.errors import FlexcError
from flexc.passes.feeds import Feeds
from flexc.passes.flow import measurements
from flexc.passes.flow import select as module
from flexc.passes.flow.apply import apply_patterns
from flexc.passes.flow.budget import Budget
from flexc.passes.flow.divergence import divergence_of
from flexc.passes.flow.options import FlowOptions, Update
from flexc.passes.flow.problem import Problem
from flexc.passes.flow.select import select
from flexc.passes.flow.selection import Selection
from flexc.passes.pattern import NM
from flexc.passes.session import Session


def run_flow(model: ir.Model, feeds: Feeds, options: FlowOptions) -> Selection:
    """Choose patterns for `model` and bring it to them."""
    selection = select(model, feeds, options)
    apply_patterns(model, selection.patterns, feeds, options.update, options.samples)
    return selection


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.75])
def test_the_sparsity_asked_for_is_reached(decoder: ir.Model, feeds: Feeds, sparsity: float) -> None:
    selection = run_flow(decoder, feeds, FlowOptions(sparsity=sparsity))
    linears = [linear for linear in find_linears(decoder) if linear.name in selection.patterns]
    zeros = sum(int(np.sum(linear.matrix() == 0)) for linear in linears)
    assert zeros / sum(linear.n * linear.k for linear in linears) >= sparsity
    assert {linear.node.metadata_props["flexc.nm"] for linear in linears} == set(map(str, selection.patterns.values()))


def test_an_unreachable_sparsity_is_refused_before_anything_is_measured(decoder: ir.Model, feeds: Feeds) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("measured in vain")

    with pytest.raises(FlexcError, match="no choice of patterns keeps to"):
        select(decoder, feeds, FlowOptions(sparsity=0.9, m_set=(4,)), nothing)


def test_it_beats_one_pattern_for_all(decoder: ir.Model, feeds: Feeds) -> None:
    uniform = {linear.name: NM(3, 8) for linear in find_linears(decoder) if not linear.tied}
    selection = select(decoder, feeds, FlowOptions(sparsity=0.625, effort="full"))
    assert divergence(decoder, feeds, selection.patterns) < divergence(decoder, feeds, uniform)


@pytest.mark.parametrize("update", ["none", "admm"])
def test_a_choice_worse_than_giving_up_alike_is_not_taken(
    decoder: ir.Model, feeds: Feeds, monkeypatch: pytest.MonkeyPatch, update: Update
) -> None:
    """Costs that do not add up to what happens (here: made up) mislead the knapsack."""

    def misleading(problem: Problem, *_: object) -> dict[str, np.ndarray]:
        return {name: np.arange(len(patterns)) % 7.0 for name, patterns in problem.patterns.items()}

    monkeypatch.setattr(module, "measure_costs", misleading)
    monkeypatch.setattr(module, "ROUNDS", {"quick": 0})
    options = FlowOptions(sparsity=0.5, update=update)
    found = select(decoder, feeds, options)
    assert set(found.patterns.values()) == {NM(4, 8)}


def divergence(model: ir.Model, feeds: Feeds, patterns: Mapping[str, NM], update: Update = "none") -> float:
    """The mean divergence over all windows when the model is pruned to patterns."""
    pruned, measure = model.clone(), divergence_of(model, "auto")
    apply_patterns(pruned, patterns, feeds, update)
    dense, changed = Session(model), Session(pruned)
    values = [measure(measure.reference(dense.run(feed)), changed.run(feed)) for feed in feeds]
    return float(np.mean(values))


def test_the_joint_divergence_is_that_of_the_pruned_model(decoder: ir.Model, feeds: Feeds) -> None:
    few = feeds.first(8)
    selection = select(decoder, few, FlowOptions(sparsity=0.5))
    assert selection.divergence == pytest.approx(divergence(decoder, few, selection.patterns), rel=1e-4)


@pytest.mark.parametrize("update", ["sparsegpt", "cg", "admm"])
def test_updates_keep_the_patterns_and_come_closer_than_masks(decoder: ir.Model, feeds: Feeds, update: Update) -> None:
    patterns = {linear.name: NM(3, 8) for linear in find_linears(decoder) if not linear.tied}
    assert divergence(decoder, feeds, patterns, update) < 0.8 * divergence(decoder, feeds, patterns)
    apply_patterns(decoder, patterns, feeds, update)
    for linear in find_linears(decoder):
        if linear.name in patterns:
            blocks = np.pad(linear.matrix(), [(0, 0), (0, -linear.k % 8)]).reshape(linear.n, -1, 8)
            assert np.count_nonzero(blocks, axis=-1).max() <= 3


@pytest.mark.parametrize("update", ["none", "cg", "admm"])
def test_convolutions_are_chosen_for_and_updated_too(branches: ir.Model, images: Feeds, update: Update) -> None:
    selection = run_flow(branches, images, FlowOptions(sparsity=0.5, update=update))
    assert selection.metric == "output"
    linears = find_linears(branches)
    assert [linear.name for linear in linears] == list(selection.patterns)
    zeros = sum(int(np.sum(linear.matrix() == 0)) for linear in linears)
    assert zeros / sum(linear.n * linear.k for linear in linears) >= 0.5


def test_a_budget_of_bits_may_take_any_m(decoder: ir.Model, feeds: Feeds) -> None:
    def bits(linear: Linear, nm: NM) -> float:
        return linear.n * nm.kept(linear.k) * (8.0 + nm.index_bits)

    linears = [linear for linear in find_linears(decoder) if not linear.tied]
    dense = sum(bits(linear, NM(1, 1)) for linear in linears)
    budget = Budget("bits", 0.6 * dense, bits, "bits")
    selection = select(decoder, feeds, FlowOptions(budget=budget, m_set=(2, 4, 8, 16)))
    assert selection.reached == sum(bits(linear, selection.patterns[linear.name]) for linear in linears)
    assert 0.57 * dense < selection.reached <= 0.6 * dense


def test_a_stopped_selection_goes_on_where_it_was(decoder: ir.Model, feeds: Feeds, tmp_path: Path) -> None:
    options = FlowOptions(sparsity=0.5, state=tmp_path / "state")
    stopped = KeyboardInterrupt()

    def stop(_what: str, done: int, steps: int) -> None:
        if done > steps // 2 > 0:
            raise stopped

    with pytest.raises(KeyboardInterrupt):
        select(decoder, feeds, options, stop)
    first = (tmp_path / "state").read_text()
    assert len(first.splitlines()) > 10
    (tmp_path / "state").write_text(first + '["cut sh')
    measurements.forget()
    found = select(decoder, feeds, options)
    assert all(line.startswith("[") and line.endswith("]") for line in (tmp_path / "state").read_text().splitlines())
    assert (tmp_path / "state").read_text().startswith(first)
    measurements.forget()
    assert found == select(decoder, feeds, FlowOptions(sparsity=0.5))


def test_a_state_of_another_selection_begins_anew_and_no_other_file_is_touched(
    decoder: ir.Model, feeds: Feeds, tmp_path: Path
) -> None:
    options = FlowOptions(sparsity=0.5, state=tmp_path / "state")
    select(decoder, feeds, options)
    first = (tmp_path / "state").read_text().splitlines()
    select(decoder, feeds.first(9), options)
    assert (tmp_path / "state").read_text().splitlines()[0] != first[0]
    (tmp_path / "state").write_text("my notes")
    with pytest.raises(FlexcError, match="holds something else"):
        select(decoder, feeds, options)
    assert (tmp_path / "state").read_text() == "my notes"


def test_short_windows_are_many_and_large_ones_few(
    decoder: ir.Model, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = FlowOptions(sparsity=0.5)
    assert select(decoder, feeds, options).windows == len(feeds) == 16
    monkeypatch.setattr(module, "ROWS", {"quick": 8 * 9})
    assert select(decoder, feeds, options).windows == 9
    monkeypatch.setattr(module, "_BYTES", 30_000)
    assert 1 <= select(decoder, feeds, options).windows < 9

"""Cut and replayed models against the whole model run from start to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.linears import Linear, find_linears, replace_weight
from flexc.passes.feeds import Feeds
from flexc.passes.flow import divergence
from flexc.passes.flow.cuts import Cutter
from flexc.passes.flow.divergence import Divergence, divergence_of
from flexc.passes.flow.grams import gram, input_rows
from flexc.passes.flow.replay import Replay
from flexc.passes.flow.segments import Stage
from flexc.passes.flow.stream import Route, Stream, sum_grams
from flexc.passes.session import Session


def whole(model: ir.Model, feeds: Feeds, matrices: Mapping[str, np.ndarray]) -> float:
    """The divergence of the whole model with other weights."""
    changed, measure = model.clone(), divergence_of(model, "auto")
    for linear in find_linears(changed):
        if linear.name in matrices:
            replace_weight(changed, linear, matrices[linear.name])
    before, after = Session(model), Session(changed)
    return float(np.mean([measure(measure.reference(before.run(feed)), after.run(feed)) for feed in feeds]))


def halved(linear: Linear, every: int) -> np.ndarray:
    matrix = linear.matrix().copy()
    matrix[:, ::every] = 0
    return matrix


@pytest.mark.parametrize("name", ["decoder", "branches"])
def test_replayed_changes_are_those_of_the_whole_model(name: str, request: pytest.FixtureRequest) -> None:
    model: ir.Model = request.getfixturevalue(name)
    feeds: Feeds = request.getfixturevalue({"decoder": "feeds", "branches": "images"}[name])
    linears = find_linears(model)
    replay = Replay(model, linears, list(feeds), divergence_of(model, "auto"))
    settled = {linear.name: halved(linear, 5) for linear in linears[::2]}
    assert replay.settle(settled) == pytest.approx(whole(model, feeds, settled), rel=1e-4)
    for first in linears:
        for second in (first, linears[-1]):
            change = {first.name: halved(first, 3), second.name: halved(second, 2)}
            expected = whole(model, feeds, {**settled, **change})
            assert replay.measure(change) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_only_what_follows_a_change_runs_again(
    decoder: ir.Model, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    linears = find_linears(decoder)
    replay = Replay(decoder, linears, list(feeds)[:1], divergence_of(decoder, "auto"))
    runs: list[Stage] = []
    run = Stage.run

    def counted(stage: Stage, *arguments: Any) -> Any:
        runs.append(stage)
        return run(stage, *arguments)

    monkeypatch.setattr(Stage, "run", counted)
    counts = []
    for linear in linears:
        runs.clear()
        replay.measure({linear.name: halved(linear, 2)})
        assert len(runs) == replay.work([linear.name])
        counts.append(len(runs))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    assert counts[0] >= len(linears) / 4


def test_a_transformer_narrows_to_one_tensor_and_branches_to_few(decoder: ir.Model, branches: ir.Model) -> None:
    cutting = Cutter(decoder, find_linears(decoder), ["logits"]).narrow()
    assert {len(segment.outputs) for segment in cutting.segments} <= {1, 2, 3}
    linears = find_linears(branches)
    cutting = Cutter(branches, linears, ["y", "z"]).narrow()
    assert sorted(name for segment in cutting.segments for name in segment.linears) == sorted(
        linear.name for linear in linears
    )


def test_rows_times_the_matrix_are_the_outputs(branches: ir.Model, images: Feeds) -> None:
    """What Gram matrices are made of, in the lowered order of K: groups, strides, dilations and uneven padding."""
    linears = find_linears(branches)
    route = Route(branches, linears)
    stream = Stream(route, images)
    probe = branches.clone()
    probe.graph.outputs.extend(node.outputs[0] for node in probe.graph if node.op_type == "Conv")
    expected = Session(probe, optimise=False).run(images[2])
    for group in route.groups:
        stream.advance({})
        for linear in group:
            rows = input_rows(linear, stream.source(linear, 2))
            weights = linear.matrix().reshape(linear.groups, -1, linear.k)
            found = np.einsum("gpk,gnk->gnp", rows, weights)
            wanted = expected[str(linear.node.outputs[0].name)]
            np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
            total = sum(gram(each, each) for each in (input_rows(linear, stream.source(linear, at)) for at in range(4)))
            np.testing.assert_allclose(sum_grams(linear, stream)[0], total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 0.1, 3.0])
def test_kl_is_exact_where_cross_entropy_minus_entropy_is_not(size: float) -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((2, 16, 512)).astype(np.float32) * 3
    changed = dense + (rng.standard_normal(dense.shape) * size).astype(np.float32)

    def log_softmax(logits: np.ndarray) -> np.ndarray:
        shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))

    log_p, log_q = log_softmax(dense), log_softmax(changed)
    expected = np.sum(np.exp(log_p) * (log_p - log_q)) / 32
    measure = Divergence("kl", ("logits",))
    found = measure(measure.reference({"logits": dense}), {"logits": changed})
    assert found == pytest.approx(expected, rel=1e-3 if size < 0.01 else 1e-6)
    assert measure(measure.reference({"logits": dense}), {"logits": dense}) == 0
    changed[0, 0, 0] = np.nan
    assert measure(measure.reference({"logits": dense}), {"logits": changed}) == np.inf


@pytest.mark.parametrize("metric", ["kl", "output"])
def test_of_long_outputs_the_same_rows_are_compared(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = np.random.default_rng(0).standard_normal((1, 10, 4)).astype(np.float32)
    monkeypatch.setattr(divergence, "_REFERENCE_BYTES", 8 * 4 * 2)  # two of ten rows: the first and the sixth
    measure = Divergence(metric, ("y",))
    reference = measure.reference({"y": dense})
    for row in range(10):
        changed = dense.copy()
        changed[0, row] *= 2
        assert (measure(reference, {"y": changed}) > 0) == (row in (0, 5))

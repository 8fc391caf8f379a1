"""Pruning by each method: the zeros, the notes on the nodes, the report, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.io import save
from flexc.frontend.linears import find_linears, replace_weight
from flexc.frontend.load import load
from flexc.isa.errors import FlexcError, UsageError
from flexc.passes.calibrate import Statistics, calibrate, input_specs
from flexc.passes.feeds import windows
from flexc.passes.masks import top_mask
from flexc.passes.methods import METHODS, find_method
from flexc.passes.pattern import DENSE, NM
from flexc.passes.prune import NM_KEY, default_method, prune
from flexc.passes.session import Session

ModelMaker = Callable[..., ir.Model]
TOKENS = np.arange(12, dtype=np.int64)[np.newaxis]


def patterns(model: ir.Model) -> dict[str, str]:
    return {linear.name: linear.node.metadata_props[NM_KEY] for linear in find_linears(model)}


def test_magnitude_keeps_the_largest_weights(language_model: ModelMaker) -> None:
    model = language_model()
    before = {linear.name: linear.matrix() for linear in find_linears(model)}
    report = prune(model, "magnitude", NM(4, 8))
    for linear in find_linears(model):
        old = before[linear.name]
        kept = old if linear.tied else old * top_mask(np.abs(old), NM(4, 8))
        np.testing.assert_array_equal(linear.matrix(), kept)
    assert patterns(model) == {"up": "4:8", "gate": "4:8", "down": "4:8", "logits": "dense"}
    rows = {row.name: row for row in report.linears}
    assert rows["up"].requested == 1 - NM(4, 8).kept(37) / 37  # the last block is short
    assert rows["up"].nonzero == rows["up"].kept == 24 * NM(4, 8).kept(37)
    assert rows["down"].reached == 0.5
    assert rows["logits"].requested is None
    assert report.requested == pytest.approx(report.reached_of_open)
    assert 0 < report.reached < report.reached_of_open < 0.5


def test_a_tied_head_is_pruned_on_request_and_the_embedding_is_not(language_model: ModelMaker) -> None:
    model = language_model()
    prune(model, "magnitude", NM(1, 4), include_tied=True)
    assert patterns(model)["logits"] == "1:4"
    table = next(node for node in model.graph if node.op_type == "Gather").inputs[0]
    assert table is not None
    assert table.const_value is not None
    assert np.count_nonzero(table.const_value.numpy()) == 50 * 37


def test_wanda_ranks_by_weight_times_input_norm(language_model: ModelMaker, tmp_path: Path) -> None:
    model = language_model()
    np.save(tmp_path / "t.npy", np.random.default_rng(0).integers(0, 50, 60))
    statistics = calibrate(model, windows(input_specs(model), tmp_path / "t.npy"))
    before = {linear.name: linear.matrix() for linear in find_linears(model)}
    prune(model, "wanda", NM(3, 8), statistics)
    for linear in find_linears(model):
        if not linear.tied:
            scores = np.abs(before[linear.name]) * statistics.norms(linear.name)
            np.testing.assert_array_equal(linear.matrix() != 0, top_mask(scores, NM(3, 8)))


def test_wanda_gives_every_group_its_own_norms(conv_model: ModelMaker) -> None:
    model = conv_model(group=2)
    (linear,) = find_linears(model)
    norms = np.abs(np.random.default_rng(0).standard_normal((2, linear.k)))
    before = linear.matrix()
    prune(model, "wanda", NM(1, 4), Statistics(1, {"conv": norms**2}))
    after = find_linears(model)[0].matrix()
    for row in range(8):
        scores = np.abs(before[row]) * norms[row // 4].astype(np.float32)
        np.testing.assert_array_equal(after[row] != 0, top_mask(scores[np.newaxis], NM(1, 4))[0])


def test_keep_reads_back_what_was_pruned_even_from_a_file(language_model: ModelMaker, tmp_path: Path) -> None:
    model = language_model()
    assert default_method(model) == "none"
    for linear, nm in zip(find_linears(model), (NM(2, 4), NM(1, 8), NM(5, 16)), strict=False):
        matrix = linear.matrix()
        replace_weight(model, linear, matrix * top_mask(np.abs(matrix), nm))
    save(model, tmp_path / "pruned.onnx")
    again = load(tmp_path / "pruned.onnx")
    assert default_method(again) == "keep"
    before = {linear.name: linear.matrix() for linear in find_linears(again)}
    report = prune(again, "keep")
    assert patterns(again) == {"up": "2:4", "gate": "1:8", "down": "5:16", "logits": "dense"}
    assert report.requested is None
    for linear in find_linears(again):
        np.testing.assert_array_equal(linear.matrix(), before[linear.name])


def test_keep_believes_a_note_that_the_weight_fits(language_model: ModelMaker) -> None:
    model = language_model()
    prune(model, "magnitude", NM(7, 8))  # as bits and cycles go, a dense weight is better
    prune(model, "keep")
    assert patterns(model)["up"] == "7:8"
    for linear in find_linears(model):
        linear.node.metadata_props[NM_KEY] = "1:8" if linear.name == "up" else "half"
    prune(model, "keep")
    assert patterns(model)["up"] == patterns(model)["gate"] == "dense"


def test_depthwise_convolutions_are_left_alone(conv1d_model: ModelMaker) -> None:
    with pytest.raises(FlexcError, match="no linear that is open to pruning"):
        prune(conv1d_model(), "magnitude", NM(1, 4))


def test_none_leaves_everything_dense(language_model: ModelMaker) -> None:
    model = language_model()
    prune(model, "magnitude", NM(2, 4))
    report = prune(model, "none")
    assert set(patterns(model).values()) == {"dense"}
    assert all(row.nm == DENSE for row in report.linears)


@pytest.mark.parametrize("nm", [DENSE, NM(8, 8)])
def test_a_full_pattern_is_dense(language_model: ModelMaker, nm: NM) -> None:
    model = language_model()
    report = prune(model, "magnitude", nm)
    assert set(patterns(model).values()) == {"dense"}
    assert report.reached == 0


def test_a_pruned_model_runs_in_onnxruntime(language_model: ModelMaker, tmp_path: Path) -> None:
    import onnx
    import onnxruntime as ort

    model = language_model()
    prune(model, "magnitude", NM(2, 4))
    save(model, tmp_path / "pruned.onnx")
    onnx.checker.check_model(tmp_path / "pruned.onnx", full_check=True)
    (expected,) = ort.InferenceSession(tmp_path / "pruned.onnx").run(None, {"tokens": TOKENS})
    np.testing.assert_array_equal(Session(model).run({"tokens": TOKENS})["y"], expected)


def test_requests_that_cannot_be_met(language_model: ModelMaker) -> None:
    model = language_model()
    with pytest.raises(UsageError, match="unknown pruning method 'wander'\nhelp: did you mean 'wanda'"):
        find_method("wander")
    with pytest.raises(UsageError, match="--prune magnitude needs a pattern"):
        prune(model, "magnitude")
    with pytest.raises(UsageError, match="--prune wanda needs calibration data"):
        prune(model, "wanda", NM(2, 4))
    with pytest.raises(FlexcError, match="linear 'up': no calibration statistics"):
        prune(model, "wanda", NM(2, 4), Statistics(1, {}))
    assert list(METHODS) == ["flow", "faithful", "owl", "wanda", "sparsegpt", "magnitude", "keep", "none"]


def test_a_weight_that_is_nan_is_named(language_model: ModelMaker) -> None:
    model = language_model()
    linear = find_linears(model)[1]
    matrix = linear.matrix().copy()
    matrix[3, 5] = np.nan
    replace_weight(model, linear, matrix)
    with pytest.raises(FlexcError, match=f"linear '{linear.name}': a weight is infinite or NaN"):
        prune(model, "magnitude", NM(2, 4))

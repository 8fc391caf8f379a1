"""``flexc compile``: the report, the dump, and what contradicts itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import flexc as flexc_api

from .conftest import Call

LOADED, PRUNED, QUANTISED = "00-loaded.onnx", "10-pruned.onnx", "20-quantised.onnx"


def test_report_has_all_numbers(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.fxc"
    done = flexc("compile", mlp, "-o", target, "--prune", "magnitude", "--nm", "1:4", "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert report["schema_version"] == 1
    assert report["prune"]["method"] == "magnitude"
    assert report["prune"]["requested_sparsity"] == pytest.approx(1 - (10 * 40 * 1 + 10 * 5) / (37 * 40 + 40 * 5))
    assert report["prune"]["reached_sparsity"] == pytest.approx(report["prune"]["requested_sparsity"])
    assert report["host_segments"] == []
    assert sum(report["nodes_by_engine"].values()) > 10
    first = report["layers"][0]
    assert (first["rows"], first["k"], first["n"], first["nm"]) == (3, 37, 40, "1:4")
    assert 0 < first["padding"] < 1
    assert report["bytes"]["file_bytes"] == target.stat().st_size
    assert report["cycles"] > 0
    assert {"load", "prune", "quantise", "lower"} <= set(report["stages_s"])


def test_summary_is_plain_text(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    done = flexc("compile", mlp, "-o", tmp_path / "out.fxc", "--per-node", "--per-layer")
    assert done.err == ""
    assert "\x1b" not in done.out
    assert "host segments  none" in done.out
    assert "none: 0.0 % of weights are zero (2 x dense)" in done.out
    softmax = next(line for line in done.out.splitlines() if line.startswith("  softmax"))
    assert "vector" in softmax


def test_keep_is_the_default_where_there_is_a_pattern(flexc: Call, tmp_path: Path, mlp: Path) -> None:
    folder = tmp_path / "dump"
    words = ("--prune", "magnitude", "--nm", "2:8", "--dump-dir", folder)
    assert flexc("compile", mlp, "-o", tmp_path / "a.fxc", *words).code == 0
    done = flexc("compile", folder / PRUNED, "-o", tmp_path / "b.fxc", "--json")
    prune = json.loads(done.out)["prune"]
    assert prune["method"] == "keep"
    assert prune["patterns"] == {"2:8": 2}
    assert prune["requested_sparsity"] is None


def test_dump_holds_every_stage(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    assert flexc("compile", mlp, "-o", tmp_path / "out.fxc", "--dump-dir", folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        LOADED,
        PRUNED,
        QUANTISED,
        "30-partition.json",
        "30-partition.txt",
        "40-program.s",
    ]
    x = np.random.default_rng(0).standard_normal((1, 3, 37)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for name in (LOADED, QUANTISED)
    ]
    assert np.abs(results[0] - results[1]).max() < 0.05
    assert "softmax" in (folder / "30-partition.txt").read_text(encoding="utf-8")
    assert "mac " in (folder / "40-program.s").read_text(encoding="utf-8")


def test_same_model_gives_the_same_bytes(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    for name in ("a.fxc", "b.fxc"):
        assert flexc("compile", mlp, "-o", tmp_path / name, "--prune", "magnitude", "--nm", "3:8").code == 0
    assert (tmp_path / "a.fxc").read_bytes() == (tmp_path / "b.fxc").read_bytes()


def test_wanda_takes_calibration_data(flexc: Call, mlp: Path, data: Path, tmp_path: Path) -> None:
    words = ("--prune", "wanda", "--nm", "4:8", "--calib", data, "--samples", "3", "--json")
    done = flexc("compile", mlp, "-o", tmp_path / "out.fxc", *words)
    assert done.code == 0
    assert json.loads(done.out)["prune"]["patterns"] == {"4:8": 2}


def test_without_calibration_data_random_inputs_stand_in_and_the_report_says_so(
    flexc: Call, mlp: Path, tmp_path: Path
) -> None:
    done = flexc("compile", mlp, "-o", tmp_path / "out.fxc", "--prune", "wanda", "--nm", "4:8")
    assert done.code == 0
    assert "warning: no calibration data: 128 windows of random inputs stand in for them" in done.out


def test_a_dynamic_shape_is_bound(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    proto = onnx.load(mlp)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "length"
    path = tmp_path / "dynamic.onnx"
    onnx.save(proto, path)
    refused = flexc("compile", path, "-o", tmp_path / "out.fxc")
    assert refused.code == 1
    assert "'x' [1, length, 37]" in refused.err
    assert "help: add, with your sizes, --dim length=16" in refused.err
    for words in (["--shape", "x=1x7x37"], ["--dim", "length=7"]):
        done = flexc("compile", path, "-o", tmp_path / "out.fxc", *words, "--json")
        assert json.loads(done.out)["layers"][0]["rows"] == 7


def test_one_file_is_right_at_two_sizes(mlp: Path) -> None:
    proto = onnx.load(mlp)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "length"
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for length in (2, 9):
        x = np.random.default_rng(length).standard_normal((1, length, 37)).astype(np.float32)
        got = flexc_api.compile(proto, dims={"length": length}).run({"x": x}).outputs["y"]
        np.testing.assert_allclose(got, session.run(["y"], {"x": x})[0], atol=0.05)


USAGE = [
    (["--nm", "5:4", "--prune", "magnitude"], "--nm 5:4: N must not exceed M"),
    (["--nm", "four"], "--nm four: not an N:M pattern"),
    (["--nm", "2:4"], "--nm says how to prune, but not by which method"),
    (["--nm", "2:4", "--prune", "none"], "--prune none takes no --nm"),
    (["--prune", "magnitude"], "--prune magnitude needs a pattern"),
    (["--prune", "wanda"], "--prune wanda needs a pattern"),
    (["--prune", "flow"], "--prune flow needs a sparsity or a budget"),
    (["--prune", "owl", "--nm", "2:4"], "--prune owl takes no --nm"),
    (["--prune", "wanda", "--nm", "2:4", "--sparsity", "0.5"], "--nm and --sparsity exclude each other"),
    (["--prune", "flow", "--sparsity", "1.5"], "--sparsity 1.5: a share from 0 to below 1"),
    (["--prune", "flow", "--budget", "time=3"], "--budget time=3: 'time' is nothing that a budget can limit"),
    (["--prune", "flow", "--budget", "cycles=soon"], "--budget cycles=soon: not an amount"),
    (["--prune", "flow", "--sparsity", "0.5", "--m-set", "4,5"], "--m-set 4,5: '5' is no block length"),
    (["--prune", "flow", "--sparsity", "0.5", "--update", "gptq"], "--update gptq: no such choice"),
    (["--prune", "magnitud", "--nm", "2:4"], "unknown pruning method 'magnitud'"),
    (["--target", "edgy"], "unknown machine 'edgy'"),
    (["--shape", "x"], "--shape x: not a shape"),
    (["--dim", "length"], "--dim length: not a size of a dim"),
    (["--dim", "length=3", "--dim", "length=4"], "--dim length=4: 'length' is 3 already"),
    (["--selection", "nowhere.json"], "--selection says how to prune, but not by which method"),
    (["--calib", "nowhere.npy"], "--calib says how to prune, but not by which method"),
    (["--prune", "keep", "--selection", "nowhere.json"], "--prune keep takes no --selection"),
    (["--prune", "magnitude", "--nm", "2:4", "--update", "cg"], "--prune magnitude takes no --update"),
    (["--prune", "wanda", "--nm", "2:4", "--effort", "full"], "--prune wanda takes no --effort"),
    (["--prune", "wanda", "--nm", "2:4", "--m-set", "16"], "--nm and --m-set exclude each other"),
    (["--prune", "wanda", "--nm", "2:4", "--samples", "0"], "--samples 0: at least one calibration window is needed"),
]


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_wrong_usage_is_one_clear_line(words: list[str], message: str, flexc: Call, mlp: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = flexc("compile", mlp, "-o", tmp_path / "out.fxc", *words)
    assert done.code == 2
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith(f"error: {message}")
    assert all(line.startswith("help: ") for line in rest)
    assert sorted(tmp_path.iterdir()) == before

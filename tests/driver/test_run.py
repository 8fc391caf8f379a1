"""``flexc run``: inputs, outputs, cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import Call

FIELDS = [
    "schema_version",
    "target",
    "cycles",
    "time_s",
    "energy_pj",
    "energy_by_event",
    "macs",
    "utilisation",
    "layers",
    "windows",
]
LAYER_FIELDS = {"name", "op", "engine", "nm", "cycles", "energy_pj", "macs"}


def test_json_has_every_field(flexc: Call, compiled: Path, data: Path) -> None:
    done = flexc("run", compiled, "--input", data, "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert set(FIELDS) <= set(report)
    assert report["windows"] == 5
    assert set(report["layers"][0]) == LAYER_FIELDS
    assert sum(layer["cycles"] for layer in report["layers"]) == report["cycles"]
    assert sum(report["energy_by_event"].values()) == pytest.approx(report["energy_pj"])
    assert report["time_s"] == report["cycles"] / 500e6
    assert report["macs"] == sum(layer["macs"] for layer in report["layers"])
    assert 0 < report["utilisation"] < 1


def test_summary_says_how_precise_joules_are(flexc: Call, compiled: Path, data: Path) -> None:
    done = flexc("run", compiled, "--input", f"x={data}", "--per-layer", "--windows", "2")
    assert "absolute joules carry about a factor 2" in done.out
    assert "leakage" in done.out
    assert "windows  2;" in done.out
    assert "second" in done.out


def test_outputs_are_saved_for_every_window(flexc: Call, compiled: Path, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "y.npz"
    assert flexc("run", compiled, "--input", data, "--output", target).code == 0
    with np.load(target) as saved:
        y = saved["y"]
    assert y.shape == (5, 1, 3, 5)
    assert np.allclose(y.sum(-1), 1, atol=1e-5)
    assert len({row.tobytes() for row in y}) == 5
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_batches_give_what_single_windows_give(flexc: Call, compiled: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((19, 1, 3, 37)).astype(np.float32)
    np.save(tmp_path / "all.npy", x)
    np.save(tmp_path / "last.npy", x[18])
    for name in ("all", "last"):
        words = ("--input", tmp_path / f"{name}.npy", "--output", tmp_path / f"{name}.npz")
        assert flexc("run", compiled, *words).code == 0
    with np.load(tmp_path / "all.npz") as every, np.load(tmp_path / "last.npz") as last:
        assert every["y"][18].tobytes() == last["y"][0].tobytes()


def test_random_inputs_repeat(flexc: Call, compiled: Path, tmp_path: Path) -> None:
    names = []
    for place, seed in enumerate((7, 7, 8)):
        names.append(tmp_path / f"{place}.npz")
        assert flexc("run", compiled, "--random-inputs", seed, "--output", names[-1]).code == 0
    first, again, other = (name.read_bytes() for name in names)
    assert first == again != other


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokens int64 [1,4] -> Gather from a table 11 x 8 -> linear: a program."""
    from flexc.cli import main

    folder = tmp_path_factory.mktemp("embedding")
    rng = np.random.default_rng(0)
    constants = {"table": rng.standard_normal((11, 8)), "w": rng.standard_normal((8, 6))}
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "tokens"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])],
        "embedding",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "m.onnx")
    assert main(["compile", str(folder / "m.onnx"), "-o", str(folder / "m.fxc")]) == 0
    return folder / "m.fxc"


def test_a_token_stream_is_cut_into_windows(flexc: Call, embedding: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(26, dtype=np.uint16) % 11)
    done = flexc("run", embedding, "--input", tmp_path / "tokens.npy", "--json")
    assert json.loads(done.out)["windows"] == 6


def test_a_token_outside_the_vocabulary_is_refused(flexc: Call, embedding: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.array([1, 2, 3, 11]))
    done = flexc("run", embedding, "--input", tmp_path / "tokens.npy")
    assert done.code == 1
    assert "token 11 is outside the vocabulary of 11 of input 'tokens'" in done.err


def test_inputs_by_name_from_an_archive(flexc: Call, compiled: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones((1, 3, 37), np.float32))
    assert flexc("run", compiled, "--input", tmp_path / "in.npz").code == 0


REFUSED = [
    ([], 2, "no input data"),
    (["--input", "x.npy", "--random-inputs", "1"], 2, "--input and --random-inputs exclude each other"),
    (["--input", "z=x.npy"], 2, "the model has no input 'z'"),
    (["--input", "missing.npy"], 1, "missing.npy: no such file"),
    (["--input", "short.npy"], 1, "shape [1, 3, 36] does not fit input 'x'"),
    (["--input", "whole.npy"], 1, "dtype int64 does not fit input 'x'"),
    (["--input", "text.npy"], 1, "text.npy: not a readable .npy or .npz file"),
    (["--random-inputs", "-1"], 2, "--random-inputs -1: a seed is 0 or more"),
    (["--random-inputs", "1", "--check-windows", "3"], 2, "--check-windows says something about --check only"),
    (["--random-inputs", "1", "--limit", "3"], 2, "--limit says something about --trace-instructions only"),
    (["--input", "x.npy", "--windows", "0"], 2, "--windows 0: at least one window is needed"),
    (["--input", "x.npy", "--output", "no/such/y.npz"], 1, "no/such/y.npz: cannot be written"),
    (["--input", "x.npy", "--input", "x.npy"], 2, "--input x.npy: for which input?"),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED)
def test_wrong_inputs_are_refused(
    words: list[str], code: int, message: str, flexc: Call, compiled: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    np.save("short.npy", np.zeros((1, 3, 36), np.float32))
    np.save("whole.npy", np.zeros((1, 3, 37), np.int64))
    Path("text.npy").write_text("hello", encoding="utf-8")
    before = sorted(data.parent.iterdir())
    done = flexc("run", compiled, *words)
    assert done.code == code
    assert message in done.err.splitlines()[0]
    assert "Traceback" not in done.err
    assert sorted(data.parent.iterdir()) == before


def test_figures_of_an_idealised_machine_say_so(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    target = tmp_path / "ideal.fxc"
    for words in (("compile", mlp, "-o", target, "--target", "resident"), ("run", target, "--random-inputs", "1")):
        assert "resident (idealised: every weight is in its cell from the start)" in flexc(*words).out
    flexc("compile", mlp, "-o", target)
    assert "idealised" not in flexc("run", target, "--random-inputs", "1").out


def test_host_segments_are_named_where_their_time_is_left_out(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    target = tmp_path / "host.fxc"
    assert flexc("compile", mlp, "-o", target, "--pin", "first=host").code == 0
    report = flexc("run", target, "--random-inputs", "1")
    assert "1 segment; their time is not in the figures" in report.out

"""``flexc prune``: the file it writes, the report, selections, budgets, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.linears import find_linears
from flexc.frontend.load import load

from .conftest import Call, report_of

DECODER = Path(__file__).parents[1] / "models" / "decoder.onnx"


def nonzero_share(path: Path) -> float:
    matrices = [linear.matrix() for linear in find_linears(load(path)) if not linear.tied]
    return sum(map(np.count_nonzero, matrices)) / sum(matrix.size for matrix in matrices)


def run(path: Path, feed: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result: np.ndarray[Any, Any] = session.run(None, feed)[0]
    return result


def test_the_file_is_the_users_graph_with_zeros(flexc: Call, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned.onnx"
    report = report_of(flexc, DECODER, "-o", pruned, "--method", "magnitude", "--nm", "2:4")
    before, after = onnx.load(DECODER), onnx.load(pruned)
    onnx.checker.check_model(after, full_check=True)
    assert [node.name for node in after.graph.node] == [node.name for node in before.graph.node]
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    assert list(after.graph.input) == list(before.graph.input)
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    assert {item.name for item in after.graph.initializer} == {item.name for item in before.graph.initializer}
    assert report["reached_sparsity"] == pytest.approx(1 - nonzero_share(pruned), abs=1e-9)
    assert report["reached_sparsity"] >= 0.5
    tokens = {before.graph.input[0].name: np.arange(8, dtype=np.int64)[np.newaxis]}
    assert not np.array_equal(run(pruned, tokens), run(DECODER, tokens))


def test_a_permuted_file_is_the_users_graph_in_another_order(flexc: Call, tmp_path: Path) -> None:
    """With every linear left dense the outputs stay, biases included, which take the order up, too."""
    selection, permuted = tmp_path / "s.json", tmp_path / "permuted.onnx"
    selection.write_text(json.dumps({"format": "flexc selection", "linears": {}}))
    words = ("--method", "wanda", "--selection", selection, "--samples", "4", "--permute", "free")
    report = report_of(flexc, DECODER, "-o", permuted, *words)
    assert report["permuted"] == 2
    before, after = onnx.load(DECODER), onnx.load(permuted)
    assert list(after.graph.input) == list(before.graph.input)
    assert [node.input for node in after.graph.node] == [node.input for node in before.graph.node]
    changed = {
        old.name for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True) if old != new
    }
    assert {"gate.bias", "up.bias"} <= {name.removeprefix("block.") for name in changed}
    tokens = {before.graph.input[0].name: np.arange(8, dtype=np.int64)[np.newaxis]}
    np.testing.assert_allclose(run(permuted, tokens), run(DECODER, tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("words", "permuted"), [((), 2), (("--permute", "none"), 0)])
def test_flow_permutes_unless_told_not_to(flexc: Call, tmp_path: Path, words: tuple[str, ...], permuted: int) -> None:
    limits = ("--method", "flow", "--sparsity", "0.5", "--samples", "2")
    assert report_of(flexc, DECODER, "-o", tmp_path / "p.onnx", *limits, *words)["permuted"] == permuted


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_file_keeps_its_precision(kind: type, flexc: Call, tmp_path: Path) -> None:
    """Permuted and otherwise left alone, a float16 file computes what it did, in float16."""
    rng = np.random.default_rng(4)
    shapes = {"up": (16, 32), "bias": (32,), "gate": (16, 32), "down": (32, 16), "last": (16,)}
    nodes = [
        helper.make_node("Gemm", ["x", "up", "bias"], ["u"], name="u"),
        helper.make_node("MatMul", ["x", "gate"], ["v"], name="v"),
        helper.make_node("Mul", ["u", "v"], ["m"], name="m"),
        helper.make_node("Gemm", ["m", "down", "last"], ["y"], name="y"),
    ]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, [4, 16])],
        [helper.make_tensor_value_info("y", dtype, [4, 16])],
        [
            numpy_helper.from_array((rng.standard_normal(shape) / 4).astype(kind), name)
            for name, shape in shapes.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    (tmp_path / "s.json").write_text(json.dumps({"format": "flexc selection", "linears": {}}))
    words = ("--method", "wanda", "--selection", tmp_path / "s.json", "--permute", "free", "--samples", "8")
    assert report_of(flexc, tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", *words)["permuted"] == 1
    feed: dict[str, np.ndarray[Any, Any]] = {"x": rng.standard_normal((4, 16)).astype(kind)}
    permuted = run(tmp_path / "p.onnx", feed)
    assert permuted.dtype == kind
    np.testing.assert_allclose(permuted, run(tmp_path / "m.onnx", feed), atol=0.01 if kind is np.float16 else 1e-5)


def test_keep_finds_the_same_patterns(flexc: Call, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned.onnx"
    words = ("--method", "wanda", "--sparsity", "0.4", "--m-set", "8", "--samples", "2")
    report = report_of(flexc, DECODER, "-o", pruned, *words)
    assert len(report["patterns"]) > 1
    done = flexc("compile", pruned, "-o", tmp_path / "p.fxc", "--prune", "keep", "--json")
    kept = json.loads(done.out)
    assert {row["nm"] for row in kept["layers"]} == {row["nm"] for row in report["linears"]}
    assert kept["prune"]["patterns"] == report["patterns"]
    assert kept["prune"]["reached_sparsity"] == pytest.approx(report["reached_sparsity"])


def test_the_report_says_what_was_done(flexc: Call, tmp_path: Path) -> None:
    words = ("--method", "wanda", "--nm", "1:4", "--samples", "3")
    done = flexc("prune", DECODER, "-o", tmp_path / "p.onnx", *words)
    assert done.code == 0
    for part in ("75.0 % asked, ", "1:4", "a window on edge", "outliers", "clustering", "warning: no calibration data"):
        assert part in done.out
    report = report_of(flexc, DECODER, "-o", tmp_path / "p.onnx", *words, "--hyper-m", "2")
    assert report["calibration_windows"] == 3
    assert report["cost"]["pruned"]["cycles"] < report["cost"]["dense"]["cycles"]
    assert report["stored_bits"]["pruned"] < 0.4 * report["stored_bits"]["dense"]
    row = report["linears"][0]
    assert row["nm"] == "1:4"
    assert row["outlier_density"] > 0
    assert 0.5 < row["outlier_distribution"] < 2


def gemm_model(folder: Path, batch: int | str = "batch", external: bool = False) -> Path:
    """x [batch,16] -> Gemm (transB, alpha 2) -> Relu -> MatMul(weight through a Transpose), weight read twice -> y."""
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal(shape) for name, shape in (("w1", (24, 16)), ("b1", (24,)), ("w2", (8, 24)))}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], name="first", transB=1, alpha=2.0),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Transpose", ["w2"], ["w2t"], perm=[1, 0]),
        helper.make_node("MatMul", ["r", "w2t"], ["c"], name="second"),
        helper.make_node("Neg", ["r"], ["n"]),
        helper.make_node("MatMul", ["n", "w2t"], ["d"], name="third"),
        helper.make_node("Sub", ["c", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    path = folder / "gemm.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path, save_as_external_data=external, size_threshold=0)
    return path


def test_weights_go_back_through_gemm_transpose_and_sharing(flexc: Call, tmp_path: Path) -> None:
    source, pruned = gemm_model(tmp_path), tmp_path / "p.onnx"
    selection = tmp_path / "s.json"
    linears = {"first": "2:4", "second": "1:4", "third": "2:8"}
    selection.write_text(json.dumps({"format": "flexc selection", "linears": linears}), encoding="utf-8")
    words = ("--method", "magnitude", "--selection", selection, "--shape", "x=2x16")
    report = report_of(flexc, source, "-o", pruned, *words)
    assert report["warnings"] == []
    after = onnx.load(pruned)
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"  # not bound to what was asked for
    found = {linear.name: linear for linear in find_linears(load(pruned, {"x": (3, 16)}))}
    before = {linear.name: linear for linear in find_linears(load(source, {"x": (3, 16)}))}
    for name, nm in linears.items():
        n, m = map(int, nm.split(":"))
        matrix, old = found[name].matrix(), before[name].matrix()
        assert np.count_nonzero(matrix) == n * matrix.size // m
        np.testing.assert_array_equal(matrix[matrix != 0], old[matrix != 0])
    noted = {node.name: {item.key: item.value for item in node.metadata_props} for node in after.graph.node}
    assert {name: noted[name]["flexc.nm"] for name in linears} == linears
    assert not any("origin" in key for notes in noted.values() for key in notes)


def test_external_data_stay_external(flexc: Call, tmp_path: Path) -> None:
    source = gemm_model(tmp_path, batch=2, external=True)
    report_of(flexc, source, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "2:4")
    assert (tmp_path / "p.onnx.data").exists()
    assert nonzero_share(tmp_path / "p.onnx") == 0.5


def test_a_batch_normalised_convolution_keeps_its_own_numbers(flexc: Call, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, 4, 3, 3)).astype(np.float32)
    scales = {name: (rng.random(6) + 0.5).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", *scales], ["y"], name="norm"),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 5, 5])],
        [numpy_helper.from_array(array, name) for name, array in {"w": weight, **scales}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    report_of(flexc, tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "1:4")
    after = onnx.load(tmp_path / "p.onnx")
    assert [node.op_type for node in after.graph.node] == ["Conv", "BatchNormalization"]
    pruned = numpy_helper.to_array(next(item for item in after.graph.initializer if item.name == "w"))
    assert np.count_nonzero(pruned) == weight.size // 4
    np.testing.assert_array_equal(pruned[pruned != 0], weight[pruned != 0])


def test_a_weight_that_cannot_go_back_gives_the_simplified_graph_and_a_warning(flexc: Call, tmp_path: Path) -> None:
    stored = np.random.default_rng(2).integers(-127, 127, (16, 8)).astype(np.int8)
    constants: dict[str, np.ndarray[Any, Any]] = {
        "q": stored,
        "s": np.array(0.01, np.float32),
        "z": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], name="dequantise"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "stored",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 8])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    report = report_of(flexc, tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "2:4")
    assert "the simplified graph with static shapes is written instead" in report["warnings"][0]
    assert nonzero_share(tmp_path / "p.onnx") == 0.5
    assert run(tmp_path / "p.onnx", {"x": np.ones((3, 16), np.float32)}).shape == (3, 8)


def test_a_missing_folder_is_refused_before_the_work(flexc: Call, tmp_path: Path) -> None:
    done = flexc(
        "prune", tmp_path / "none.onnx", "-o", tmp_path / "no" / "p.onnx", "--method", "magnitude", "--nm", "2:4"
    )
    assert done.code == 1
    assert "p.onnx: cannot be written: No such file or directory" in done.err


def test_a_selection_can_be_saved_edited_and_used_again(flexc: Call, tmp_path: Path) -> None:
    saved = tmp_path / "s.json"
    report_of(
        flexc, DECODER, "-o", tmp_path / "a.onnx", "--method", "magnitude", "--nm", "4:8", "--save-selection", saved
    )
    content = json.loads(saved.read_text(encoding="utf-8"))
    first, second, *_ = content["linears"]
    content["linears"][first] = "1:8"
    content["linears"][second] = "dense"
    saved.write_text(json.dumps(content), encoding="utf-8")
    report = report_of(flexc, DECODER, "-o", tmp_path / "b.onnx", "--method", "magnitude", "--selection", saved)
    assert {row["name"]: row["nm"] for row in report["linears"]} == content["linears"]


def test_a_wrong_selection_is_refused_with_all_its_mistakes(flexc: Call, tmp_path: Path) -> None:
    names = [linear.name for linear in find_linears(load(DECODER))]
    wrong = {names[0]: "5:4", names[1]: 3, names[2]: "1:3", f"{names[3]}x": "2:4"}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"format": "flexc selection", "linears": wrong}), encoding="utf-8")
    done = flexc("prune", DECODER, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--selection", path)
    assert done.code == 1
    assert done.err.count("error: ") == 4
    for part in (f"linear '{names[0]}': '5:4': N must not exceed M", "3: not an N:M pattern", "did you mean"):
        assert part in done.err
    assert not (tmp_path / "p.onnx").exists()
    for text in ("not json", "[]", '{"format": "flexc selection"}'):
        path.write_text(text, encoding="utf-8")
        done = flexc("prune", DECODER, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--selection", path)
        assert done.code == 1
        assert "not a selection" in done.err


@pytest.mark.parametrize("quantity", ["cycles", "energy", "bits"])
def test_a_budget_holds_for_the_timed_program(quantity: str, flexc: Call, tmp_path: Path) -> None:
    words = ("--method", "flow", "--samples", "2", "--budget")
    loose = report_of(flexc, DECODER, "-o", tmp_path / "a.onnx", *words, f"{quantity}=x0.99")["budget"]
    limit = loose["dense"] - 0.5 * (loose["dense"] - loose["measured"])
    report = report_of(flexc, DECODER, "-o", tmp_path / "b.onnx", *words, f"{quantity}={limit:.0f}")
    spent = report["budget"]
    assert report["requested_sparsity"] is None
    assert spent["measured"] <= spent["limit"] <= spent["dense"]
    assert spent["estimate"] == pytest.approx(spent["measured"], rel=0.01)
    if quantity != "bits":
        field = {"cycles": "cycles", "energy": "energy_pj"}[quantity]
        assert report["cost"]["pruned"][field] == pytest.approx(spent["measured"])
    else:
        assert report["stored_bits"]["pruned"] == spent["measured"]


def test_what_cannot_be_reached_names_the_nearest(flexc: Call, tmp_path: Path) -> None:
    for words, message, remedy in (
        (("--budget", "cycles=x0.1"), "a budget of ", "the nearest that can be reached is cycles="),
        (("--budget", "bits=x0.01"), "a budget of ", "the nearest that can be reached is bits="),
        (("--sparsity", "0.99"), "cannot be", "87"),
    ):
        done = flexc("prune", DECODER, "-o", tmp_path / "p.onnx", "--method", "flow", "--samples", "1", *words)
        assert done.code in (1, 2)
        assert message in done.err
        assert remedy in done.err
    assert list(tmp_path.iterdir()) == []


def test_bad_data_are_refused(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    before = {mlp}
    for array, message in (
        (np.full((2, 1, 3, 37), np.nan, np.float32), "NaN or infinity"),
        (np.zeros((2, 1, 3, 36), np.float32), "does not fit input 'x'"),
    ):
        np.save(tmp_path / "bad.npy", array)
        before.add(tmp_path / "bad.npy")
        words = ("--method", "wanda", "--nm", "2:4", "--calib", tmp_path / "bad.npy")
        done = flexc("prune", mlp, "-o", tmp_path / "p.onnx", *words)
        assert done.code == 1
        assert message in done.err.splitlines()[0]
        assert set(tmp_path.iterdir()) == before


def test_data_that_tell_nothing_are_refused_or_said(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "zeros.npy", np.zeros((4, 1, 3, 37), np.float32))
    words = ["prune", mlp, "-o", tmp_path / "p.onnx", "--method", "wanda", "--nm", "2:4"]
    done = flexc(*words, "--calib", tmp_path / "zeros.npy")
    assert done.code == 1
    assert "the calibration data are all zeros" in done.err
    assert not (tmp_path / "p.onnx").exists()
    dead = mlp_of(mlp, bias=-1e6)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((4, 1, 3, 37)).astype(np.float32))
    done = flexc(*["prune", dead, *words[2:]], "--calib", tmp_path / "x.npy")
    assert done.code == 0
    assert "1 linear of 2 read only zeros in the calibration data, first 'second'" in done.out


def mlp_of(mlp: Path, bias: float) -> Path:
    """Return the small MLP with another first bias: far below 0, nothing gets through its Relu."""
    proto = onnx.load(mlp)
    for tensor in proto.graph.initializer:
        if tensor.name == "b1":
            tensor.CopyFrom(numpy_helper.from_array(np.full(40, bias, np.float32), "b1"))
    path = mlp.with_name("dead.onnx")
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("words", [["--effort", "full"], ["--m-set", "4"], ["--metric", "output"]])
def test_what_would_choose_patterns_is_refused_beside_a_selection(
    words: list[str], flexc: Call, mlp: Path, tmp_path: Path
) -> None:
    selection = tmp_path / "s.json"
    selection.write_text(json.dumps({"format": "flexc selection", "linears": {}}))
    done = flexc("prune", mlp, "-o", tmp_path / "p.onnx", "--selection", selection, *words)
    assert done.code == 2
    assert f"{words[0]} changes nothing: --selection holds the patterns" in done.err


def test_a_model_without_linears_is_refused(flexc: Call, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "none", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    for words in (("--method", "magnitude", "--nm", "2:4"), ("--sparsity", "0.5")):
        done = flexc("prune", tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", *words)
        assert done.code == 1
        assert "the model has no linear that could be pruned" in done.err
    assert not (tmp_path / "p.onnx").exists()


def test_a_model_may_be_pruned_over_itself(flexc: Call, tmp_path: Path) -> None:
    source = gemm_model(tmp_path, batch=2, external=True)
    report_of(flexc, source, "-o", source, "--method", "magnitude", "--nm", "1:4")
    assert nonzero_share(source) == 0.25
    report = report_of(flexc, source, "-o", source, "--method", "keep")
    assert {row["nm"] for row in report["linears"]} == {"1:4"}
    assert report["requested_sparsity"] is None


def test_flow_counts_only_what_is_open(flexc: Call, tmp_path: Path) -> None:
    largest = max(find_linears(load(DECODER)), key=lambda linear: linear.n * linear.k).name
    words = ("--sparsity", "0.5", "--samples", "2", "--pin", f"{largest}=dense")
    report = report_of(flexc, DECODER, "-o", tmp_path / "p.onnx", *words)
    rows = {row["name"]: row for row in report["linears"]}
    assert rows[largest]["nm"] == "dense"
    assert not rows[largest]["open"]
    others = [row for row in rows.values() if row["name"] != largest]
    zeros = sum(row["sparsity"] * row["n"] * row["k"] for row in others)
    assert zeros >= 0.5 * sum(row["n"] * row["k"] for row in others)
    assert report["reached_sparsity"] >= 0.5


def test_the_published_method_needs_blocks(flexc: Call, tmp_path: Path) -> None:
    done = flexc("prune", DECODER, "-o", tmp_path / "p.onnx", "--method", "faithful", "--sparsity", "0.5")
    assert done.code == 1
    assert "leaves the first and the last of a model's blocks dense: 2 are too few" in done.err

"""``flexc eval``: the numbers against their definitions, the forms of a model side by side, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.cli import main
from flexc.frontend.load import load
from flexc.passes.quantise import quantise
from flexc.passes.session import Session

from .conftest import Call

DECODER = Path(__file__).parents[1] / "models" / "decoder.onnx"
LENGTH, VOCABULARY = 8, 48


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.npy"
    np.save(path, np.random.default_rng(0).integers(0, VOCABULARY, 5 * LENGTH + 3).astype(np.uint16))
    return path


def report_of(flexc: Call, *words: object) -> dict[str, Any]:
    done = flexc("eval", *words, "--json")
    assert (done.code, done.err) == (0, "")
    report: dict[str, Any] = json.loads(done.out)
    return report


def test_perplexity_is_exp_of_the_mean_loss_of_each_token_given_those_before(flexc: Call, tokens: Path) -> None:
    session = onnxruntime.InferenceSession(DECODER, providers=["CPUExecutionProvider"])
    name, losses = session.get_inputs()[0].name, []
    windows = np.load(tokens)[: 5 * LENGTH].reshape(5, LENGTH).astype(np.int64)
    for window in windows[[0, 1, 2, 3]]:  # four of five, evenly spread, the rest of a window left out
        logits = session.run(None, {name: window[np.newaxis]})[0][0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        losses += [-np.log(probabilities[place - 1, window[place]]) for place in range(1, LENGTH)]
    report = report_of(flexc, DECODER, "--data", tokens, "--windows", "4")
    assert report["windows"] == 4
    assert report["metric"] == "perplexity"
    row = report["rows"][0]
    assert (row["model"], row["form"]) == ("decoder.onnx", "fp32")
    assert row["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-6)
    assert row["relative_error"] is None


def test_forms_stand_side_by_side(flexc: Call, tokens: Path, tmp_path: Path) -> None:
    pruned, program = tmp_path / "p.onnx", tmp_path / "p.fxc"
    assert flexc("prune", DECODER, "-o", pruned, "--method", "magnitude", "--nm", "2:4").code == 0
    assert flexc("compile", pruned, "-o", program).code == 0
    report = report_of(flexc, DECODER, "--pruned", pruned, "--pruned", program, "--data", tokens)
    rows = {(row["model"], row["form"]): row for row in report["rows"]}
    assert list(rows) == [
        ("decoder.onnx", "fp32"),
        ("p.onnx", "fp32"),
        ("p.onnx", "quantised"),
        ("p.fxc", "fp32"),
        ("p.fxc", "quantised"),
        ("p.fxc", "emulator"),
    ]
    dense, fp32, quantised = (rows[key]["perplexity"] for key in list(rows)[:3])
    assert rows["p.fxc", "fp32"]["perplexity"] == pytest.approx(fp32, rel=1e-5)
    assert rows["p.fxc", "quantised"]["perplexity"] == pytest.approx(quantised, rel=1e-6)
    assert rows["p.fxc", "emulator"]["perplexity"] == pytest.approx(quantised, rel=5e-3)
    assert quantised == pytest.approx(fp32, rel=0.02)
    assert abs(dense - fp32) > abs(quantised - fp32)
    assert 0.05 < rows["p.onnx", "fp32"]["relative_error"] < 1
    assert rows["p.onnx", "fp32"]["cosine"] < 0.9999
    shown = flexc("eval", DECODER, "--data", tokens, "--on", "emulator", "--windows", "2")
    assert "perplexity on 2 windows" in shown.out
    assert "emulator" in shown.out


def classifier(folder: Path) -> Path:
    """x [2,4] -> MatMul by the identity: the class is the largest input."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"], name="linear")],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), folder / "c.onnx")
    return folder / "c.onnx"


def test_top1_counts_labels(flexc: Call, tmp_path: Path) -> None:
    model, classes = classifier(tmp_path), np.array([0, 1, 2, 3, 1, 1])
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32)[classes].reshape(3, 2, 4))
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2, 0, 1, 3]))
    words = (model, "--data", tmp_path / "x.npy", "--labels", tmp_path / "labels.npy")
    report = report_of(flexc, *words)
    assert report["metric"] == "top1"
    assert [row["top1"] for row in report["rows"]] == [pytest.approx(4 / 6)] * 2
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2]))
    done = flexc("eval", *words)
    assert done.code == 1
    assert "3 labels, window 1 needs 4" in done.err
    np.save(tmp_path / "labels.npy", classes)
    report = report_of(flexc, *words, "--windows", "2")  # the first and the second of three
    assert report["rows"][0]["top1"] == 1.0


def test_without_tokens_or_labels_outputs_are_compared(flexc: Call, mlp: Path, data: Path) -> None:
    report = report_of(flexc, mlp, "--data", data)
    assert report["metric"] == "output"
    quantised = report["rows"][1]
    assert quantised["perplexity"] is None
    session = onnxruntime.InferenceSession(mlp, providers=["CPUExecutionProvider"])
    integer = Session(quantise(load(mlp)))
    pairs = [(integer.run({"x": x})["y"], session.run(None, {"x": x})[0]) for x in np.load(data)]
    errors = [np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) for ours, theirs in pairs]
    cosines = [(ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs) for ours, theirs in pairs]
    assert quantised["relative_error"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert quantised["cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--metric", "perplexity"], 2, "no output of the model holds logits of its tokens"),
        (["--metric", "top1"], 2, "--metric top1 needs labels"),
        (["--metric", "loss"], 2, "--metric loss: no such choice"),
        (["--on", "fp16"], 2, "--on fp16: 'fp16' is no form"),
        (["--windows", "0"], 2, "--windows 0: at least one window is needed"),
        (["--pruned", "none.onnx"], 1, "none.onnx"),
        (["--labels", "none.npy"], 1, "none.npy: cannot be read as .npy"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: list[str], code: int, message: str, flexc: Call, mlp: Path, data: Path
) -> None:
    done = flexc("eval", mlp, "--data", data, *words)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err


def test_models_with_other_outputs_are_refused(flexc: Call, mlp: Path, data: Path, tmp_path: Path) -> None:
    other = onnx.load(mlp)
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    onnx.save(other, tmp_path / "other.onnx")
    done = flexc("eval", mlp, "--pruned", tmp_path / "other.onnx", "--data", data)
    assert done.code == 2
    assert "other.onnx: output 'y' is no such output" in done.err


def test_models_with_other_inputs_are_refused(flexc: Call, mlp: Path, data: Path, tmp_path: Path) -> None:
    proto = onnx.load(mlp)
    proto.graph.input[0].name = "other"
    for node in proto.graph.node:
        node.input[:] = ["other" if name == "x" else name for name in node.input]
    onnx.save(proto, tmp_path / "other.onnx")
    done = flexc("eval", mlp, "--data", data, "--pruned", tmp_path / "other.onnx")
    assert done.code == 2
    assert done.err.startswith("error: other.onnx: takes other; the first model takes x\n")


def translator(folder: Path, *, causal: bool) -> Path:
    """Logits from the running (or the whole) sum of a text's embeddings, and the mean of another text's."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "read"], ["a"], name="first_embed"),
        helper.make_node("ReduceMean", ["a", "axes"], ["b"], name="mean", keepdims=1),
        helper.make_node("Gather", ["table", "written"], ["c"], name="embed"),
        helper.make_node("CumSum", ["c", "axis"], ["s"], name="before")
        if causal
        else helper.make_node("ReduceSum", ["c", "axes"], ["s"], name="all", keepdims=1),
        helper.make_node("Add", ["c", "s"], ["t"], name="own"),
        helper.make_node("Add", ["t", "b"], ["d"], name="join"),
        helper.make_node("MatMul", ["d", "w"], ["logits"], name="head"),
    ]
    constants = {"table": rng.standard_normal((20, 8)), "w": rng.standard_normal((8, 20))}
    numbers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    numbers += [numpy_helper.from_array(np.array([1]), "axes"), numpy_helper.from_array(np.array(1), "axis")]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, 6]) for name in ("read", "written")]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 6, 20])
    graph = helper.make_graph(nodes, "translator", inputs, [output], numbers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), folder / "t.onnx")
    np.savez(folder / "t.npz", read=rng.integers(0, 20, (3, 1, 6)), written=rng.integers(0, 20, (3, 1, 6)))
    return folder / "t.onnx"


def test_perplexity_is_of_the_tokens_that_the_logits_foretell(flexc: Call, tmp_path: Path) -> None:
    """Of two texts of one length the logits know all of the one, and of the other what stands before."""
    model = translator(tmp_path, causal=True)
    report = report_of(flexc, model, "--data", tmp_path / "t.npz", "--on", "fp32")
    with np.load(tmp_path / "t.npz") as data:
        feeds = [{name: data[name][index] for name in data.files} for index in range(3)]
    session, losses = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]), []
    for feed in feeds:
        logits = session.run(None, feed)[0][0].astype(np.float64)
        chosen = np.exp(logits[:-1])[np.arange(5), feed["written"][0, 1:]] / np.exp(logits[:-1]).sum(axis=-1)
        losses += np.log(chosen).tolist()
    assert report["metric"] == "perplexity"
    assert report["rows"][0]["perplexity"] == pytest.approx(np.exp(-np.mean(losses)), rel=1e-6)


def test_a_model_that_sees_later_tokens_has_no_perplexity_unless_asked_for(flexc: Call, tmp_path: Path) -> None:
    words = (translator(tmp_path, causal=False), "--data", tmp_path / "t.npz", "--on", "fp32,quantised")
    assert report_of(flexc, *words)["metric"] == "output"
    assert report_of(flexc, *words, "--metric", "perplexity")["metric"] == "perplexity"
    done = flexc("eval", *words, "--metric", "perplexity")
    assert done.code == 0


def test_data_that_a_model_cannot_take_are_refused_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """onnxruntime's own log would stand in the way."""
    model = translator(tmp_path, causal=True)
    proto = onnx.load(model)
    proto.graph.node.insert(0, helper.make_node("Mul", ["written", "far"], ["placed"], name="far"))
    proto.graph.node[3].input[1] = "placed"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1000), "far"))
    onnx.save(proto, model)
    assert main(["eval", str(model), "--data", str(tmp_path / "t.npz")]) == 1
    printed = capfd.readouterr().err
    assert printed.startswith("error: ")
    assert "cannot run the data: " in printed

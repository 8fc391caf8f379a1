"""``flexc prune`` on models at the edge: tiny, dead, not finite, with weights that nodes share or make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from flexc.isa.errors import FlexcError

from .conftest import Call, report_of

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

SAMPLES = ("--samples", "3")


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def write(
    folder: Path,
    nodes: Sequence[NodeProto],
    constants: Arrays,
    shape: Sequence[int],
    kind: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    opset: int = 20,
) -> Path:
    """Write a model with one input x and one output y of these element types."""
    x, y = helper.make_tensor_value_info("x", kind[0], shape), helper.make_tensor_value_info("y", kind[1], None)
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "edge", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def two_linears(folder: Path, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], opset: int = 20) -> Path:
    """Write x [4, K] -> linear -> Relu -> linear -> y."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "v"], ["y"], name="second"),
    ]
    return write(folder, nodes, {"w": first, "v": second}, [4, len(first)], opset=opset)


def zeros_in(path: Path) -> float:
    """Share of zeros over all initializers of a file."""
    arrays = [numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
    return 1 - sum(map(np.count_nonzero, arrays)) / sum(array.size for array in arrays)


@pytest.mark.parametrize(("inner", "words"), [((3, 2), ()), ((5, 2), ("--m-set", "16"))])
def test_linears_smaller_than_a_block_are_chosen_for(
    inner: tuple[int, int], words: tuple[str, ...], flexc: Call, tmp_path: Path
) -> None:
    """Of three inputs 1:8 keeps a third, not an eighth: what is too sparse to be looked at goes by what is kept."""
    model = two_linears(tmp_path, drawn(*inner), drawn(inner[1], 1))
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--sparsity", "0.5", *SAMPLES, *words)
    assert report["reached_sparsity"] >= 0.5
    assert zeros_in(tmp_path / "p.onnx") == pytest.approx(report["zeros_of_all_linears"])


def test_what_costs_nothing_is_not_pruned_beyond_what_is_asked(flexc: Call, tmp_path: Path) -> None:
    """The second weight is zero, so the outputs say nothing of the first: within a budget it keeps what it can."""
    model = two_linears(tmp_path, drawn(16, 24), np.zeros((24, 8), np.float32))
    for sparsity, wanted in (("0", ["dense", "dense"]), ("0.5", ["5:8", "2:8"])):
        report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--sparsity", sparsity, *SAMPLES)
        assert report["selection"]["divergence"] == 0
        assert [row["nm"] for row in report["linears"]] == wanted


def test_a_pattern_asks_for_what_it_takes(flexc: Call, tmp_path: Path) -> None:
    """The last block of 19 or 37 positions is short: 2:4 takes less than half of the weights."""
    model = two_linears(tmp_path, drawn(19, 37), drawn(37, 11))
    words = ("--method", "magnitude", "--nm", "2:4")
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", *words)
    assert report["reached_sparsity"] < 0.5
    assert report["requested_sparsity"] == pytest.approx(report["reached_sparsity"])


def test_a_budget_asks_for_no_sparsity(flexc: Call, tmp_path: Path) -> None:
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8))
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--budget", "bits=x0.6", *SAMPLES)
    assert report["requested_sparsity"] is None


@pytest.mark.parametrize("method", [("--sparsity", "0.5"), ("--method", "sparsegpt", "--nm", "2:4")])
def test_weights_that_are_no_numbers_are_refused_all_at_once(
    method: tuple[str, ...], flexc: Call, tmp_path: Path
) -> None:
    first, second = drawn(16, 24), drawn(24, 8)
    first[3, 4], second[0, 0] = np.nan, np.inf
    model = two_linears(tmp_path, first, second)
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", *method, *SAMPLES)
    assert done.code == 1
    assert "linear 'first': a weight is infinite or NaN" in done.err
    assert "linear 'second': a weight is infinite or NaN" in done.err
    assert list(tmp_path.iterdir()) == [model]


def test_outputs_that_are_never_finite_are_refused(flexc: Call, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="linear"),
        helper.make_node("Div", ["h", "zero"], ["y"], name="divide"),
    ]
    model = write(tmp_path, nodes, {"w": drawn(16, 8), "zero": np.zeros((), np.float32)}, [4, 16])
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--sparsity", "0.5", *SAMPLES)
    assert done.code == 1
    assert "no number of output 'y' is finite" in done.err


@pytest.mark.parametrize("metric", ["kl", "output"])
def test_what_is_never_finite_of_an_output_is_left_out(metric: str, flexc: Call, tmp_path: Path) -> None:
    """A mask makes some logits minus infinity, as in sampling from allowed tokens."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="linear"),
        helper.make_node("Add", ["h", "mask"], ["y"], name="masked"),
    ]
    mask = np.array([0, 0, 0, -np.inf, 0, 0, -np.inf, 0], np.float32)
    model = write(tmp_path, nodes, {"w": drawn(16, 8), "mask": mask}, [4, 16])
    words = ("--sparsity", "0.5", "--metric", metric, *SAMPLES)
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", *words)
    assert 0 < report["selection"]["divergence"] < 1


def test_models_whose_linears_are_closed_are_told_why(flexc: Call, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], name="embed"),
        helper.make_node("Transpose", ["table"], ["t"], name="turned", perm=[1, 0]),
        helper.make_node("MatMul", ["e", "t"], ["y"], name="head"),
    ]
    model = write(tmp_path, nodes, {"table": drawn(50, 16)}, [1, 6], (TensorProto.INT64, TensorProto.FLOAT))
    for words in (("--sparsity", "0.5"), ("--budget", "cycles=x0.9"), ("--method", "magnitude", "--nm", "2:4")):
        done = flexc("prune", model, "-o", tmp_path / "p.onnx", *words)
        assert done.code == 1
        assert "the model has no linear that is open to pruning" in done.err
        assert "--prune-tied opens the head" in done.err


def test_every_node_stays_where_weights_are_made_by_nodes(flexc: Call, tmp_path: Path) -> None:
    """A weight in a Constant node, and one that an embedding and a transposed head share."""
    nodes = [
        helper.make_node("Constant", [], ["w"], name="made", value=numpy_helper.from_array(drawn(16, 16), "w")),
        helper.make_node("Gather", ["table", "x"], ["e"], name="embed"),
        helper.make_node("MatMul", ["e", "w"], ["h"], name="linear"),
        helper.make_node("Transpose", ["table"], ["t"], name="turned", perm=[1, 0]),
        helper.make_node("MatMul", ["h", "t"], ["y"], name="head"),
    ]
    model = write(tmp_path, nodes, {"table": drawn(50, 16)}, [1, 6], (TensorProto.INT64, TensorProto.FLOAT))
    words = ("--method", "magnitude", "--nm", "2:4", "--prune-tied")
    report_of(flexc, model, "-o", tmp_path / "p.onnx", *words)
    after = onnx.load(tmp_path / "p.onnx")
    assert [node.name for node in after.graph.node] == [node.name for node in nodes]
    made = numpy_helper.to_array(after.graph.node[0].attribute[0].t)
    assert np.count_nonzero(made) == 16 * 8
    held = {item.name: numpy_helper.to_array(item) for item in after.graph.initializer}
    np.testing.assert_array_equal(held["table"], drawn(50, 16))  # the embedding keeps its numbers
    turned = held[after.graph.node[3].input[0]]
    assert np.count_nonzero(turned.reshape(50, 4, 4), axis=2).max() == 2
    np.testing.assert_array_equal(turned[turned != 0], held["table"][turned != 0])


def test_a_model_of_an_old_opset_keeps_it(flexc: Call, tmp_path: Path) -> None:
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8), opset=11)
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "6:16")
    assert report["warnings"] == []
    after = onnx.load(tmp_path / "p.onnx")
    assert after.opset_import[0].version == 11
    assert [node.name for node in after.graph.node] == ["first", "relu", "second"]
    kept = report_of(flexc, tmp_path / "p.onnx", "-o", tmp_path / "k.onnx", "--method", "keep")
    assert [row["nm"] for row in kept["linears"]] == ["6:16", "6:16"]


@pytest.mark.parametrize("turned", [0, 1])
def test_a_weight_like_its_own_transpose_is_pruned_along_its_inputs(turned: int, flexc: Call, tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="linear", transB=turned)]
    model = write(tmp_path, nodes, {"w": np.full((16, 16), 0.5, np.float32)}, [4, 16])
    report_of(flexc, model, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "1:4")
    held = numpy_helper.to_array(onnx.load(tmp_path / "p.onnx").graph.initializer[0])
    rows = held if turned else held.T
    assert np.count_nonzero(rows.reshape(16, 4, 4), axis=2).tolist() == [[1] * 4] * 16


def test_weights_of_an_einsum_are_pruned_in_place(flexc: Call, tmp_path: Path) -> None:
    """As XLNet has them: a weight [inputs, heads, values]."""
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], name="heads", equation="bi,ihd->bhd")]
    model = write(tmp_path, nodes, {"w": drawn(16, 2, 4)}, [4, 16])
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "1:4")
    assert report["warnings"] == []
    held = numpy_helper.to_array(onnx.load(tmp_path / "p.onnx").graph.initializer[0])
    assert np.count_nonzero(held.reshape(4, 4, 8), axis=1).tolist() == [[1] * 8] * 4


def test_a_permuted_constant_goes_back_behind_an_expand(flexc: Call, tmp_path: Path) -> None:
    """As class tokens of vision transformers are exported: joined to what a linear makes, then read by another."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Expand", ["token", "shape"], ["t"], name="expand"),
        helper.make_node("Concat", ["t", "h"], ["c"], name="join", axis=1),
        helper.make_node("MatMul", ["c", "v"], ["y"], name="second"),
    ]
    constants = {"w": drawn(16, 32), "token": drawn(1, 1, 32), "shape": np.array([2, 1, 32]), "v": drawn(32, 8)}
    model = write(tmp_path, nodes, constants, [2, 3, 16])
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--sparsity", "0", *SAMPLES)
    assert report["permuted"] == 1
    assert all("simplified" not in text for text in report["warnings"])
    before, after = (
        {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
        for path in (model, tmp_path / "p.onnx")
    )
    assert not np.array_equal(after["token"], before["token"])
    assert after["token"].shape == (1, 1, 32)
    np.testing.assert_allclose(after["token"] @ after["v"], before["token"] @ before["v"], rtol=1e-5, atol=1e-6)


def test_a_sparsity_out_of_reach_of_every_m_says_so(flexc: Call, tmp_path: Path) -> None:
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8))
    for sparsity, remedy in (
        ("0.89", "ask for 0.875 at most, or allow a larger M, --m-set 4,8,16\n"),
        ("0.97", "ask for 0.875 at most, or allow a larger M, --m-set 4,8,16, which gives 0.9305 at most\n"),
    ):
        done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--sparsity", sparsity, *SAMPLES)
        assert done.code == 1
        assert done.err.endswith(remedy)


def test_a_refusal_after_the_measurements_says_what_their_state_is_for(
    flexc: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object) -> None:
        raise FlexcError("not these weights")

    monkeypatch.setattr("flexc.pruning.write_patterns", refuse)
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8))
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--sparsity", "0.5", *SAMPLES)
    assert done.code == 1
    assert "p.onnx.state holds what was measured; a command that asks for another amount goes on from there" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "flexc selection", "linears": {"first": "4:8", "first": "2:8"}}', "'first' stands in it twice"),
        ('{"format": "flexc selection", "version": 2, "linears": {}}', "a selection of version 2, this flexc knows 1"),
        ("[" * 100_000, "not a selection"),
    ],
)
def test_a_selection_that_says_no_one_thing_is_refused(text: str, message: str, flexc: Call, tmp_path: Path) -> None:
    model, selection = two_linears(tmp_path, drawn(16, 24), drawn(24, 8)), tmp_path / "s.json"
    selection.write_text(text)
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--selection", selection)
    assert done.code == 1
    assert message in done.err


@pytest.mark.parametrize("command", [("prune", "--method"), ("compile", "--prune")])
def test_what_cannot_be_written_is_refused_before_the_work(
    command: tuple[str, str], flexc: Call, tmp_path: Path
) -> None:
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8))
    words = (command[0], model, command[1], "flow", "--sparsity", "0.5", *SAMPLES)
    done = flexc(*words, "-o", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "is a folder" in done.err
    done = flexc(*words, "-o", tmp_path / "out", "--save-selection", tmp_path / "nowhere" / "s.json")
    assert (done.code, done.out) == (1, "")
    assert "make the folder first" in done.err
    assert list(tmp_path.iterdir()) == [model]


def test_a_model_that_cannot_take_random_inputs_asks_for_data(flexc: Call, tmp_path: Path) -> None:
    """Positions counted up from a random mask may lie outside their table."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["at"], name="count"),
        helper.make_node("Gather", ["table", "at"], ["e"], name="places"),
        helper.make_node("MatMul", ["e", "w"], ["y"], name="linear"),
    ]
    constants = {"axis": np.array(1), "table": drawn(2, 16), "w": drawn(16, 8)}
    model = write(tmp_path, nodes, constants, [1, 12], (TensorProto.INT64, TensorProto.FLOAT))
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--sparsity", "0.5", *SAMPLES)
    assert done.code == 1
    assert "the model cannot take random inputs; give real ones with --calib" in done.err


def normalised_convolutions(folder: Path) -> Path:
    """Conv -> norm -> Relu -> Conv with bias -> norm -> Relu -> norm that no Conv takes in -> Conv."""
    rng = np.random.default_rng(7)
    constants = {"w0": drawn(16, 4, 3, 3), "w1": drawn(16, 16, 1, 1), "w2": drawn(6, 16, 1, 1), "c1": drawn(16)}
    nodes, value = [], "x"
    for index in range(2):
        bias = ["c1"] if index else []
        nodes.append(helper.make_node("Conv", [value, f"w{index}", *bias], [f"a{index}"], name=f"conv{index}"))
        nodes.append(_norm(f"a{index}", str(index), constants, rng))
        nodes.append(helper.make_node("Relu", [f"n{index}"], [f"r{index}"], name=f"relu{index}"))
        value = f"r{index}"
    nodes.append(_norm(value, "2", constants, rng))
    nodes.append(helper.make_node("Conv", ["n2", "w2"], ["y"], name="conv2"))
    return write(folder, nodes, constants, [1, 4, 6, 6])


def _norm(value: str, name: str, constants: dict[str, np.ndarray[Any, Any]], rng: np.random.Generator) -> NodeProto:
    given = [f"{part}{name}" for part in ("scale", "shift", "mean", "variance")]
    constants |= {part: (rng.random(16) + 0.5).astype(np.float32) for part in given}
    return helper.make_node("BatchNormalization", [value, *given], [f"n{name}"], name=f"norm{name}", epsilon=1e-3)


@pytest.mark.parametrize("selection", [{}, {"conv1": "4:8", "conv2": "2:8"}])
def test_channels_of_batch_normalisations_are_permuted_in_the_file(
    selection: dict[str, str], flexc: Call, tmp_path: Path
) -> None:
    model, pruned, chosen = normalised_convolutions(tmp_path), tmp_path / "p.onnx", tmp_path / "s.json"
    chosen.write_text(json.dumps({"format": "flexc selection", "linears": selection}))
    words = ("--method", "wanda", "--permute", "free", "--selection", chosen, *SAMPLES)
    report = report_of(flexc, model, "-o", pruned, *words)
    assert report["permuted"] >= 1
    assert all("simplified" not in text for text in report["warnings"])
    assert [node.name for node in onnx.load(pruned).graph.node] == [node.name for node in onnx.load(model).graph.node]
    kept = report_of(flexc, pruned, "-o", tmp_path / "k.onnx", "--method", "keep")
    assert {row["name"]: row["nm"] for row in kept["linears"] if row["nm"] != "dense"} == selection
    if not selection:
        x = np.random.default_rng(1).standard_normal((1, 4, 6, 6)).astype(np.float32)
        before, after = (
            onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            for path in (model, pruned)
        )
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("words", [(), ("--method", "wanda"), ("--method", "owl"), ("--method", "magnitude")])
@pytest.mark.parametrize("copied", [False, True])
def test_layers_that_share_a_weight_go_on_doing_so(
    words: tuple[str, ...], copied: bool, flexc: Call, tmp_path: Path
) -> None:
    """As ALBERT's layers do; where loading makes copies (of a Gemm's transposed weight), too."""
    nodes, value = [], "x"
    for layer in range(3):
        turned = [helper.make_attribute("transB", 1)] if copied else []
        nodes.append(helper.make_node("Gemm" if copied else "MatMul", [value, "w"], [f"h{layer}"], name=f"up{layer}"))
        nodes[-1].attribute.extend(turned)
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [f"t{layer}"], name=f"act{layer}"))
        value = f"t{layer}"
    nodes.append(helper.make_node("MatMul", [value, "v"], ["y"], name="head"))
    model = write(tmp_path, nodes, {"w": drawn(16, 16), "v": drawn(16, 8)}, [4, 16])
    samples = () if "magnitude" in words else SAMPLES
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", "--sparsity", "0.55", *words, *samples)
    patterns = {row["name"]: row["nm"] for row in report["linears"]}
    assert len({patterns[f"up{layer}"] for layer in range(3)}) == 1
    after = onnx.load(tmp_path / "p.onnx").graph
    assert len(after.initializer) == 2
    assert len({node.input[1] for node in after.node if node.name.startswith("up")}) == 1
    assert report["reached_sparsity"] >= 0.55
    assert onnx.load(tmp_path / "p.onnx").ByteSize() < onnx.load(model).ByteSize() + 500


def test_a_model_without_linears_may_be_left_as_it_is(flexc: Call, tmp_path: Path) -> None:
    model = write(tmp_path, [helper.make_node("Relu", ["x"], ["y"], name="relu")], {}, [2, 3])
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--method", "none")
    assert done.code == 0
    assert "0.0 % reached" in done.out
    assert "Linears" not in done.out


def test_only_columns_that_say_something_are_shown(flexc: Call, tmp_path: Path) -> None:
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8))
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--method", "magnitude", "--nm", "2:4")
    assert "clustering" in done.out
    assert "divergence" not in done.out
    done = flexc("prune", model, "-o", tmp_path / "p.onnx", "--sparsity", "0.5", *SAMPLES)
    assert done.out.count("divergence") == 2
    assert "(output) on 3 calibration windows" in done.out


def test_pins_that_leave_nothing_to_choose_are_said(flexc: Call, tmp_path: Path) -> None:
    model = two_linears(tmp_path, drawn(16, 24), drawn(24, 8))
    words = ("--sparsity", "0.5", "--pin", "first=dense", "--pin", "second=2:4", *SAMPLES)
    report = report_of(flexc, model, "-o", tmp_path / "p.onnx", *words)
    assert "every linear that could be pruned is pinned: the method chose nothing" in report["warnings"]

"""``flexc generate``, and ``--cache`` and ``--state`` of ``flexc compile``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.frontend.test_grouped_query import FORMS
from tests.frontend.test_own_pasts import MASK, group_query
from tests.frontend.test_own_pasts import model as decoder

from .conftest import Call


@pytest.fixture
def model(root: Path) -> Path:
    return root / "tests/models/cache_dynamo.onnx"


def test_tokens_and_what_they_cost(flexc: Call, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "all.npy"
    words = ("generate", model, "--prompt", "3,7,11,2", "--new", "4", "--cache", "16")
    done = flexc(*words, "--output", target, "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    prefill, decode = report["phases"]["prefill"], report["phases"]["decode"]
    assert (prefill["runs"], prefill["tokens"], decode["runs"], decode["tokens"]) == (1, 4, 3, 3)
    assert decode["tokens_per_s"] == pytest.approx(decode["tokens"] / decode["time_s"])
    assert prefill["energy_pj"] > 0
    np.testing.assert_array_equal(np.load(target), [3, 7, 11, 2, *report["tokens"]])
    text = flexc(*words).out
    assert "of 16 positions, in the machine's DRAM from step to step" in text
    assert "tokens/s" in text


def test_room_is_made_for_a_prompt_as_long_as_the_cache(flexc: Call, model: Path) -> None:
    words = ("generate", model, "--prompt", "3,7,11,2", "--new", "3", "--json", "--cache")
    small, large = (json.loads(flexc(*words, size).out) for size in ("4", "16"))
    assert small["tokens"] == large["tokens"]
    assert small["capacity"] > 4


def test_a_past_of_one_length_is_no_cache(flexc: Call, tmp_path: Path) -> None:
    """A past of 3 positions that comes out with 4 cannot go in again."""
    shapes = {"past": [1, 3, 8], "x": [1, 1, 8], "present": [1, 4, 8]}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, 1])
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"]),
        helper.make_node("Concat", ["past", "x"], ["present"], axis=1),
        helper.make_node("ReduceSum", ["present", "axes"], ["logits"], keepdims=0),
    ]
    table = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32), "table")
    axes = numpy_helper.from_array(np.array([1]), "axes")
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 8])
    graph = helper.make_graph(nodes, "g", [tokens, ends["past"]], [logits, ends["present"]], [table, axes])
    path = tmp_path / "fixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    done = flexc("generate", path, "--prompt", "1,2", "--new", "2")
    assert done.code == 1
    assert "input 'past' is missing" in done.err
    assert "only states may be left out: there are none" in done.err


def test_a_model_without_a_cache_is_refused(flexc: Call, root: Path) -> None:
    done = flexc("generate", root / "tests/models/decoder.onnx", "--prompt", "3,7")
    assert done.code == 2
    assert done.err.startswith("error: no cache among the inputs: tokens")


def test_a_prompt_from_a_file(flexc: Call, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "prompt.npy", np.array([3, 7], np.uint16))
    done = flexc("generate", model, "--prompt", tmp_path / "prompt.npy", "--new", "1", "--cache", "16", "--json")
    assert json.loads(done.out)["prompt"] == [3, 7]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--prompt", "a,b"], 2, "--prompt a,b: no tokens"),
        (["--prompt", "none.npy"], 1, "none.npy: cannot be read"),
        (["--prompt", "1", "--new", "0"], 2, "--new 0: at least one token"),
        (["--prompt", "1", "--cache", "1"], 2, "at least two positions"),
        (["--prompt", "99999", "--cache", "8"], 1, "token 99999 is outside the vocabulary of"),
    ],
)
def test_wrong_usage(flexc: Call, model: Path, words: list[str], code: int, message: str) -> None:
    done = flexc("generate", model, *words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_cache_in_a_program_file(flexc: Call, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "step.fxc"
    done = flexc("compile", model, "-o", target, "--cache", "16", "--shape", "input_ids=1x1", "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(flexc("inspect", target, "--json").out)
    assert [state["input"] for state in report["states"]] == ["past_key_values.0.key", "past_key_values.0.value"]
    assert "past_length" in [each["name"] for each in report["tensors"]]
    assert flexc("verify", target).code == 0
    assert flexc("run", target, "--random-inputs", "1", "--check").code == 0
    words = []
    for name, data in (("input_ids", [[3]]), ("attention_mask", [[1] * 16]), ("past_length", [0])):
        np.save(tmp_path / f"{name}.npy", np.array(data))
        words += ["--input", f"{name}={tmp_path / name}.npy"]
    assert flexc("run", target, *words).code == 0  # the cache is empty


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cache", "1", "--shape", "input_ids=1x1"], "--cache 1: a step takes 1 positions"),
        (["--state", "x"], "--state x: not a state"),
        (["--cache", "16"], "--dim s41=16"),
    ],
)
def test_wrong_caches(flexc: Call, model: Path, tmp_path: Path, words: list[str], message: str) -> None:
    done = flexc("compile", model, "-o", tmp_path / "out.fxc", *words)
    assert done.code in (1, 2)
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_attention_of_onnxruntime_keeps_its_own_past(flexc: Call, tmp_path: Path) -> None:
    """A decoder as onnxruntime-genai writes it; its tokens are those of a loop around onnxruntime itself."""
    import onnxruntime as ort

    rng, path = np.random.default_rng(5), tmp_path / "decoder.onnx"
    attributes, tables = FORMS["rotated"]
    nodes = group_query(attributes, tables, packed=True)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x"]), *nodes]
    nodes.append(helper.make_node("MatMul", ["y", "head"], ["logits"]))
    constants = tables | {"one": np.array([1]), "index": np.array(1)}
    constants |= {"table": rng.standard_normal((40, 24)).astype(np.float32)}
    constants |= {"head": rng.standard_normal((128, 40)).astype(np.float32)}
    proto = decoder(nodes, {"input_ids": (TensorProto.INT64, [1, "step"])} | MASK, 21, **constants)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "step", 40]))
    onnx.save(proto, path)
    done = flexc("generate", path, "--prompt", "3,7,11,2", "--new", "6", "--cache", "16", "--json")
    assert (done.code, done.err) == (0, "")
    session, tokens, made = ort.InferenceSession(str(path)), [3, 7, 11, 2], list[int]()
    past = {name: np.zeros((1, 2, 0, 32), np.float32) for name in ("past_k", "past_v")}
    for length in range(4, 10):
        ids = np.array([tokens[-1:] if made else tokens], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones((1, length), np.int64), **past}
        logits, past["past_k"], past["past_v"] = session.run(None, feeds)
        made.append(int(np.argmax(np.asarray(logits)[0, -1])))
        tokens.append(made[-1])
    assert json.loads(done.out)["tokens"] == made

"""Sessions: loops written for onnxruntime, with caches that stay in the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import flexc
from flexc.isa.errors import FlexcError, UsageError
from flexc.step_costs import Step, phases

GROWING = ["cache_dynamo.onnx", "cache_legacy.onnx"]
PROMPT = [3, 7, 11, 2]


@pytest.fixture
def models(root: Path) -> Path:
    return root / "tests/models"


def feed_of(session: Any, step: list[int], total: int, past: dict[str, Any]) -> dict[str, Any]:
    """Return what a loop for any decoder feeds."""
    every = {
        "input_ids": np.array([step]),
        "attention_mask": np.ones((1, total), np.int64),
        "position_ids": np.arange(total - len(step), total)[None],
    }
    return {each.name: every[each.name] for each in session.get_inputs() if each.name in every} | past


def empty(session: Any) -> dict[str, Any]:
    return {each.name: np.zeros((1, 1, 0, 8), np.float32) for each in session.get_inputs() if "past" in each.name}


def loop(session: Any, count: int = 5) -> tuple[list[int], list[np.ndarray]]:
    """A generation loop as one writes it for onnxruntime; return tokens and the logits of every step."""
    names = [each.name for each in session.get_outputs()]
    past, step, total = empty(session), PROMPT, 0
    made: list[int] = []
    seen = []
    while len(made) < count:
        total += len(step)
        outputs = dict(zip(names, session.run(None, feed_of(session, step, total, past)), strict=True))
        past = {name: outputs[name.replace("past_key_values", "present")] for name in past}
        seen.append(outputs["logits"][0, -1])
        step = [int(seen[-1].argmax())]
        made += step
    return made, seen


@pytest.mark.parametrize("file", GROWING)
def test_a_loop_for_onnxruntime_runs_as_it_is(models: Path, file: str) -> None:
    reference, session = onnxruntime.InferenceSession(models / file), flexc.Session(models / file, cache=16)
    assert [(e.name, e.shape, e.type) for e in session.get_inputs()] == [
        (e.name, e.shape, e.type) for e in reference.get_inputs()
    ]
    assert [(e.name, e.type) for e in session.get_outputs()] == [(e.name, e.type) for e in reference.get_outputs()]
    theirs, expected = loop(reference)
    ours, logits = loop(session)
    assert ours == theirs
    np.testing.assert_allclose(logits, expected, atol=0.1)
    again, same = loop(session)
    assert (again, np.array(same).tobytes()) == (ours, np.array(logits).tobytes())
    assert [(step.kind, step.tokens, step.past) for step in session.steps[:3]] == [
        ("prefill", 4, 0),
        ("decode", 1, 4),
        ("decode", 1, 5),
    ]


def test_caches_are_handed_out_without_a_copy_and_never_change(models: Path) -> None:
    session = flexc.Session(models / GROWING[0], cache=16)
    first = session.run(None, feed_of(session, PROMPT, 4, empty(session)))
    kept = [array.copy() for array in first[1:]]
    past = dict(zip(empty(session), first[1:], strict=True))
    second = session.run(None, feed_of(session, [5], 5, past))
    for before, after in zip(first[1:], second[1:], strict=True):
        assert after.shape[2] == before.shape[2] + 1
        assert np.shares_memory(before, after)
        assert not after.flags.writeable
    session.run(None, feed_of(session, [9, 9, 9, 9], 4, empty(session)))  # another text, in the same session
    session.run(None, feed_of(session, [6], 5, past))  # and back to what the first run left
    for before, copy in zip(first[1:], kept, strict=True):
        np.testing.assert_array_equal(before, copy)


def test_a_run_can_go_back_or_take_a_past_from_elsewhere(models: Path) -> None:
    session = flexc.Session(models / GROWING[0], cache=16)
    start = session.run(None, feed_of(session, PROMPT, 4, empty(session)))
    past = dict(zip(empty(session), start[1:], strict=True))
    expected = session.run(["logits"], feed_of(session, [5], 5, past))[0]
    session.run(
        ["logits"],
        feed_of(session, [1], 6, dict(zip(past, session.run(None, feed_of(session, [5], 5, past))[1:], strict=True))),
    )
    np.testing.assert_array_equal(session.run(["logits"], feed_of(session, [5], 5, past))[0], expected)
    other = flexc.Session(models / GROWING[0], cache=16)
    copied = {name: np.array(array) for name, array in past.items()}
    np.testing.assert_array_equal(other.run(["logits"], feed_of(other, [5], 5, copied))[0], expected)


def test_a_run_without_a_past_goes_on_from_the_last(models: Path) -> None:
    session = flexc.Session(models / GROWING[0], cache=16)
    expected = loop(session)[1][1]
    session.run(["logits"], feed_of(session, PROMPT, 4, empty(session)))
    token = loop(flexc.Session(models / GROWING[0], cache=16), 1)[0]
    np.testing.assert_array_equal(session.run(["logits"], feed_of(session, token, 5, {}))[0][0, -1], expected)


def test_room_is_made_when_a_cache_is_full(models: Path) -> None:
    small, large = flexc.Session(models / GROWING[0], cache=5), flexc.Session(models / GROWING[0], cache=40)
    assert loop(small, 9)[0] == loop(large, 9)[0]
    assert (small.capacity, large.capacity) == (20, 40)


def test_generate_keeps_everything_in_the_machine(models: Path) -> None:
    session = flexc.Session(models / GROWING[0], cache=16)
    expected, _ = loop(session)
    assert list(session.generate(PROMPT, 5)) == expected
    assert list(session.generate(PROMPT, 5, stop=[expected[0]])) == expected[:1]
    assert next(session.generate(PROMPT, 2, pick=lambda logits: int(logits.argmin()))) != expected[0]


def test_a_cache_of_fixed_size_is_written_in_place(models: Path) -> None:
    def run(session: Any) -> list[np.ndarray]:
        past = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs() if "past" in each.name}
        seen = []
        for position, token in enumerate(PROMPT):
            feed = {"input_ids": np.array([[token]]), "cache_position": np.array([position]), **past}
            outputs = session.run(None, feed)
            past = dict(zip(past, outputs[1:], strict=True))
            seen.append(outputs[0])
        return seen

    session = flexc.Session(models / "cache_static.onnx")
    expected = run(onnxruntime.InferenceSession(models / "cache_static.onnx"))
    np.testing.assert_allclose(run(session), expected, atol=0.1)
    made = list(session.generate(PROMPT, 3))
    assert made[0] == int(expected[-1][0, -1].argmax())
    assert [step.kind for step in session.steps[-6:]] == ["prefill"] * 4 + ["decode"] * 2


def test_a_cache_of_an_encoder_stays_beside_one_that_grows() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[1,step,4] x, float[1,past,4] past_self,
        float[1,source,4] past_encoder) => (float[1,step,4] logits, float[1,total,4] present_self,
        float[1,source,4] present_encoder) {
        present_self = Concat<axis = 1>(past_self, x)
        present_encoder = Identity(past_encoder)
        a = Transpose<perm = [0,2,1]>(present_self)  r = MatMul(x, a)  b = Softmax(r)  c = MatMul(b, present_self)
        d = Transpose<perm = [0,2,1]>(past_encoder)  t = MatMul(x, d)  e = Softmax(t)  f = MatMul(e, past_encoder)
        logits = Add(c, f) }"""
    proto = onnx.parser.parse_model(text)
    reference, session = onnxruntime.InferenceSession(proto.SerializeToString()), flexc.Session(proto, cache=16)
    rng = np.random.default_rng(4)
    feeds = [{"past_self": np.zeros((1, 0, 4), np.float32), "past_encoder": rng.random((1, 6, 4), np.float32)}] * 2
    for step in (3, 1, 1):
        x = rng.standard_normal((1, step, 4)).astype(np.float32)
        found = [each.run(None, feed | {"x": x}) for each, feed in zip((reference, session), feeds, strict=True)]
        np.testing.assert_allclose(found[1][0], found[0][0], rtol=0.03, atol=0.03)
        feeds = [{"past_self": outputs[1], "past_encoder": outputs[2]} for outputs in found]


def test_a_model_without_a_cache_is_compiled_for_every_shape(mlp: Path) -> None:
    proto = onnx.load(mlp)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_param = "length"
    reference, session = onnxruntime.InferenceSession(proto.SerializeToString()), flexc.Session(proto)
    for length in (3, 5, 3):
        x = np.random.default_rng(length).standard_normal((1, length, 37)).astype(np.float32)
        np.testing.assert_allclose(session.run(["y"], {"x": x})[0], reference.run(["y"], {"x": x})[0], atol=0.1)
    with pytest.raises(UsageError, match="are not tokens, mask, positions and caches"):
        next(session.generate([1], 1))


WRONG = [
    ({"input_id": np.zeros((1, 1), np.int64)}, "no input 'input_id'"),
    ({"input_ids": np.zeros((1, 1), np.int32)}, "'input_ids' is int64, not int32"),
    ({"input_ids": np.zeros((2, 1), np.int64)}, r"is \[1, '\w+'\], not \[2, 1\]"),
    ({"attention_mask": np.ones((1, 9), np.int64)}, "has 9 positions; past and step together have 5"),
    ({"past_key_values.0.value": np.zeros((1, 1, 3, 8), np.float32)}, "different numbers of positions"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_feeds_are_refused(models: Path, change: dict[str, Any], message: str) -> None:
    session = flexc.Session(models / GROWING[0], cache=16)
    past = {name: np.zeros((1, 1, 4, 8), np.float32) for name in empty(session)}
    with pytest.raises(FlexcError, match=message):
        session.run(None, feed_of(session, [5], 5, past) | change)


def test_wrong_names_and_missing_caches_are_refused(models: Path) -> None:
    session = flexc.Session(models / GROWING[0], cache=16)
    feed = feed_of(session, PROMPT, 4, empty(session))
    with pytest.raises(FlexcError, match="no output 'logit'"):
        session.run(["logit"], feed)
    del feed["past_key_values.0.key"]
    with pytest.raises(FlexcError, match=r"'past_key_values.0.key' is missing"):
        session.run(None, feed)


def test_phases_are_counted_apart() -> None:
    steps = [
        Step("prefill", 4, 0, 100, 2e-6, 8.0),
        Step("decode", 1, 4, 30, 1e-6, 6.0),
        Step("decode", 1, 5, 50, 3e-6, 10.0),
    ]
    found = phases(steps)
    assert found["prefill"]["energy_a_token_pj"] == 2.0
    assert (found["decode"]["cycles"], found["decode"]["tokens_per_s"]) == (80, pytest.approx(5e5))

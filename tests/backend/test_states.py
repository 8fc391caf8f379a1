"""States and rows written in place: what stays in DRAM, where it lies, and when a copy is needed after all."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.frontend.load import load
from flexc.isa.errors import FlexcError
from flexc.isa.machine import load_machine
from flexc.isa.program import Program, State
from flexc.isa.verifier import verify
from tests.backend.models import check, engines, parsed

ROWS = "(float[2,6,4] past_k, float[2,3,4] new, int64[3,1] at) => (float[2,6,4] present_k"
WRITE = """{ t = Transpose<perm = [1,0,2]>(past_k)  u = Transpose<perm = [1,0,2]>(new)
           w = ScatterND(t, at, u)  present_k = Transpose<perm = [1,0,2]>(w) """


def compiled(text: str, states: dict[str, str] | None = None) -> tuple[onnx.ModelProto, Program]:
    proto = parsed(text)
    program = lower(load(proto, states=states), load_machine("edge"))
    assert verify(program) == []
    return proto, program


def follow(text: str, states: dict[str, str], steps: int = 3) -> Program:
    """Run a model step by step, states kept in the machine, beside onnxruntime, to which they are handed back."""
    proto, program = compiled(text, states)
    assert {state.input: state.output for state in program.states} == states
    session, executor, rng = (
        onnxruntime.InferenceSession(proto.SerializeToString()),
        Executor(program),
        np.random.default_rng(0),
    )
    names = [each.name for each in session.get_outputs()]
    kept = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs() if each.name in states}
    for step in range(steps):
        feeds = {}
        for each in session.get_inputs():
            if each.name not in states:
                at = rng.permutation(6)[:3].reshape(3, 1).astype(np.int64)
                feeds[each.name] = at if each.name == "at" else rng.integers(-8, 8, each.shape).astype(np.float32)
        expected = dict(zip(names, session.run(names, feeds | kept), strict=True))
        outputs = executor.run({name: array[np.newaxis] for name, array in feeds.items()}, resume=step > 0)
        for name in names:
            np.testing.assert_array_equal(outputs[name][0], expected[name], err_msg=name)
        kept = {name: expected[output] for name, output in states.items()}
    return program


def copies(program: Program) -> int:
    return sum(op.name == "states" for op in program.debug.ops)


def test_rows_are_written_where_the_state_lies() -> None:
    program = follow(ROWS + ")" + WRITE + "}", {"past_k": "present_k"})
    assert copies(program) == 0
    assert [instruction.mnemonic for instruction in program.code].count("copy") == 0


def test_rows_are_written_into_a_copy_where_the_old_value_is_needed() -> None:
    program = follow(ROWS + ", float[2,6,4] y)" + WRITE + "y = Sub(present_k, past_k) }", {"past_k": "present_k"})
    assert copies(program) == 1


def test_a_state_that_is_computed_is_brought_home() -> None:
    text = "(float[4] state_in, float[4] x) => (float[4] state_out, float[4] y) "
    text += "{ state_out = Add(state_in, x) y = Neg(state_out) }"
    assert copies(follow(text, {"state_in": "state_out"})) == 1


def test_states_that_change_places() -> None:
    text = "(float[4] a, float[4] b, float[4] x) => (float[4] c, float[4] d) { c = Identity(b) d = Identity(a) }"
    follow(text, {"a": "c", "b": "d"})


def test_an_output_that_was_a_view_of_an_old_state_keeps_its_value() -> None:
    text = (
        "(float[2,3] s, float[2,3] x) => (float[2,3] t, float[3,2] y) { t = Add(s, x) y = Transpose<perm = [1,0]>(s) }"
    )
    follow(text, {"s": "t"})


def test_programs_for_different_steps_have_their_states_in_one_place() -> None:
    def places(step: int) -> list[int]:
        text = f"(float[{step},4] x, float[4] s, float[90] past_k) => "
        text += f"(float[4] t, float[90] present_k, float[{step},4] y) "
        _, program = compiled(text + "{ t = Identity(s) present_k = Neg(past_k) y = Exp(x) }", {"s": "t"})
        return [each.address for each in program.inputs if each.name != "x"]

    assert places(1) == places(50) == [0, 64]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("past_key_values.3.value", "present.3.value"),
        ("past_0", "present_0"),
        ("cache_k", "new_cache_k"),
        ("conv_state_in", "conv_state_out"),
        ("ssm_state", "next_ssm_state"),
    ],
)
def test_names_tell_pairs(before: str, after: str) -> None:
    _, program = compiled(_named(before, after))
    assert program.states == (State(before, after),)


@pytest.mark.parametrize(
    ("before", "after"), [("x", "y"), ("past_1", "present_0"), ("past", "logits"), ("input", "output")]
)
def test_names_that_do_not_tell_are_no_states(before: str, after: str) -> None:
    assert compiled(_named(before, after))[1].states == ()


def _named(before: str, after: str) -> str:
    return f'(float[4] "{before}") => (float[4] "{after}") {{ "{after}" = Neg("{before}") }}'


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"z": "y"}, "--state z=y: no input 'z'"),
        ({"x": "z"}, "--state x=z: no output 'z'"),
        ({"x": "y"}, r"FLOAT\[4\] cannot become FLOAT\[5\]"),
    ],
)
def test_wrong_states_are_refused(pair: dict[str, str], message: str) -> None:
    with pytest.raises(FlexcError, match=message):
        compiled("(float[4] x, float[5] u) => (float[5] y) { y = Neg(u) }", pair)


SCATTERS = {
    "rows of a matrix": "(float[5,4] x, float[2,4] u) => (float[] y) <int64[2,1] i = {3,0}> { y = ScatterND(x, i, u) }",
    "from the end, one twice": "(float[5,4] x, float[3,4] u) => (float[] y) <int64[3,1] i = {-1,1,4}> "
    "{ y = ScatterND(x, i, u) }",
    "whole images": "(float[3,2,4] x, float[1,2,4] u) => (float[] y) <int64[1,1] i = {2}> { y = ScatterND(x, i, u) }",
    "single numbers": "(float[6] x, float[2] u) => (float[] y) <int64[2,1] i = {5,2}> { y = ScatterND(x, i, u) }",
    "of a view": "(float[4,5] x, float[4,2] u) => (float[] y) <int64[2,1] i = {4,1}> "
    "{ a = Transpose(x) b = Transpose(u) y = ScatterND(a, i, b) }",
    "of what was computed": "(float[5,4] x, float[2,4] u) => (float[] y) <int64[2,1] i = {3,0}> "
    "{ a = Neg(x) y = ScatterND(a, i, u) }",
    "of a constant": "(float[2,4] u) => (float[] y) <int64[2,1] i = {1,0}, float[2,4] x = {1,2,3,4,5,6,7,8}> "
    "{ y = ScatterND(x, i, u) }",
}  # fmt: skip


@pytest.mark.parametrize("form", SCATTERS)
def test_scatters(form: str) -> None:
    assert "host" not in engines(check(SCATTERS[form]))

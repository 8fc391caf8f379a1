"""Loops over nodes: unrolled recurrences become one hardware loop, and everything stays as onnxruntime has it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from flexc.isa.machine import load_machine
from flexc.isa.program import Program
from tests.backend.compare import compiled, small_machine
from tests.backend.models import check, parsed, reasons
from tests.backend.turn_makers import indices, stacked, unrolled

PICK = "x{t} = Gather<axis = 0>(x, i{t})  "


def loops(program: Program) -> list[str]:
    """Return the reasons of the ops that are loops."""
    return [op.reason for op in program.debug.ops if op.reason.startswith("a loop")]


def up(name: str) -> str:
    """Return the statement that makes a slice of one turn out of a value."""
    return f"  u{{t}} = Unsqueeze({name}{{t}}, zero)"


# Each: inputs and outputs, one turn, what the turns hand on, the statements after all turns.
FORMS = {
    "state in rows": (
        "(float[7,5,4] x, float[5,4] a, float[5,4] z) => (float[] y, float[] last)",
        PICK + "m{t} = Mul({h}, a)  h{t} = Add(m{t}, x{t})  r{t} = Relu(h{t})"
        "  s{t} = ReduceMax<keepdims = 0>(r{t}, one)" + up("s"),
        {"h": "z"},
        "y = {stack}  last = Neg(h6)",
    ),
    "every state leaves": (
        "(float[7,5,4] x, float[5,4] a, float[5,4] z) => (float[] y)",
        PICK + "m{t} = Mul({h}, a)  n{t} = Min(m{t}, a)  h{t} = Add(n{t}, x{t})" + up("h"),
        {"h": "z"},
        "y = {stack}",
    ),
    "only the last state leaves": (
        "(float[7,5,4] x, float[5,4] a, float[5,4] z) => (float[] y)",
        PICK + "m{t} = Mul({h}, a)  n{t} = Min(m{t}, a)  k{t} = Abs(n{t})  h{t} = Add(k{t}, x{t})",
        {"h": "z"},
        "y = Identity(h6)",
    ),
    "two states": (
        "(float[7,5,4] x, float[5,4] z) => (float[] y)",
        PICK + "c{t} = Max({c}, x{t})  n{t} = Min({h}, c{t})  h{t} = Sub(x{t}, n{t})" + up("h"),
        {"h": "z", "c": "z"},
        "y = {stack}",
    ),
    "the old state is read after the new one is made": (
        "(float[7,5,4] x, float[5,4] z) => (float[] y)",
        PICK + "h{t} = Sub(x{t}, {h})  n{t} = Min({h}, x{t})  k{t} = Max(n{t}, h{t})" + up("k"),
        {"h": "z"},
        "y = {stack}",
    ),
    "no state": (
        "(float[7,5,4] x, float[5,4] a) => (float[] y)",
        PICK + "m{t} = Mul(x{t}, a)  n{t} = Min(m{t}, a)  t{t} = Transpose(n{t})  k{t} = Abs(t{t})" + up("k"),
        {},
        "y = {stack}",
    ),
    "a state that is turned": (
        "(float[7,4,4] x, float[4,4] z) => (float[] y)",
        PICK + "v{t} = Transpose({h})  m{t} = Sub(v{t}, x{t})  n{t} = Abs(m{t})  h{t} = Min(n{t}, x{t})" + up("h"),
        {"h": "z"},
        "y = {stack}",
    ),
    "a state that is reshaped on its way": (
        "(float[7,2,4] x, float[8,1] z) => (float[] y) <int64[2] flat = {{8, 1}}, int64[2] wide = {{2, 4}}>",
        PICK + "w{t} = Reshape({h}, wide)  m{t} = Sub(w{t}, x{t})  n{t} = Abs(m{t})  k{t} = Min(n{t}, x{t})"
        "  h{t} = Reshape(k{t}, flat)" + up("h"),
        {"h": "z"},
        "y = {stack}",
    ),
    "reduced to one number": (
        "(float[7,5,4] x, float[1,1] z) => (float[] y)",
        PICK
        + "m{t} = Add({h}, x{t})  n{t} = Abs(m{t})  p{t} = ReduceMax<keepdims = 1>(n{t})  h{t} = Relu(p{t})"
        + up("h"),
        {"h": "z"},
        "y = {stack}",
    ),
    "stacked along the columns": (
        "(float[7,5,1] x, float[5,1] a, float[5,1] z) => (float[] y)",
        PICK + "m{t} = Mul({u}, a)  n{t} = Min(m{t}, a)  u{t} = Add(n{t}, x{t})",
        {"u": "z"},
        "y = {side}",
    ),
}


@pytest.mark.parametrize("size", [(256, 4, 1), (8, 1, 1)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_recurrences(form: str, size: tuple[int, int, int]) -> None:
    head, body, first, after = FORMS[form]
    after = after.format(stack=stacked(7, "u"), side=stacked(7, "u", 1))
    program = check(
        f"{head.format()} {{ {unrolled(7, body, first)} {after} }}", small_machine(*size), arrays=indices(7)
    )
    assert loops(program) == ["a loop of 7 turns"]
    assert not reasons(program)


def test_backwards() -> None:
    body = PICK + "m{t} = Mul({h}, a)  n{t} = Min(m{t}, a)  h{t} = Add(n{t}, x{t})" + up("h")
    text = f"{unrolled(7, body, {'h': 'z'})} y = {stacked(7, 'u', backwards=True)}"
    head = "(float[7,5,4] x, float[5,4] a, float[5,4] z) => (float[] y)"
    program = check(f"{head} {{ {text} }}", arrays=indices(7, backwards=True))
    assert loops(program) == ["a loop of 7 turns"]


def test_linears_in_a_loop() -> None:
    """A recurrent layer: the product of the state with a constant weight runs on the array in every turn."""
    rng = np.random.default_rng(0)
    body = PICK + "p{t} = MatMul({h}, w)  q{t} = Add(p{t}, x{t})  h{t} = Tanh(q{t})" + up("h")
    text = f"{unrolled(5, body, {'h': 'z'})} y = {stacked(5, 'u')}"
    weight = rng.normal(size=(16, 16)).astype(np.float32) / 4
    for machine in ("edge", "resident"):
        program = check(
            f"(float[5,2,16] x, float[2,16] z) => (float[] y) {{ {text} }}",
            machine,
            exact=False,
            w=weight,
            arrays=indices(5),
        )
        assert loops(program) == ["a loop of 5 turns"]
        assert sum(op.engine == "array" for op in program.debug.ops) == 1


def test_code_does_not_grow_with_the_turns() -> None:
    head, body, first, after = FORMS["state in rows"]
    sizes = []
    for turns in (8, 32):
        text = (
            f"{unrolled(turns, body, first)} {after.format(stack=stacked(turns, 'u')).replace('h6', f'h{turns - 1}')}"
        )
        program = check(f"{head.replace('float[7', f'float[{turns}')} {{ {text} }}", arrays=indices(turns))
        sizes.append(len(program.code))
    assert sizes[0] == sizes[1]


def test_what_lies_unevenly_stays_unrolled() -> None:
    """The slices are visited out of order, so no step leads from one to the next."""
    body = PICK + "m{t} = Mul({h}, a)  n{t} = Min(m{t}, a)  k{t} = Abs(n{t})  h{t} = Add(k{t}, x{t})"
    picks = {f"i{turn}": np.array(place) for turn, place in enumerate([0, 2, 1, 3, 6, 5, 4])}
    head = "(float[7,5,4] x, float[5,4] a, float[5,4] z) => (float[] y)"
    program = check(f"{head} {{ {unrolled(7, body, {'h': 'z'})} y = Neg(h6) }}", arrays=picks)
    assert not loops(program)


def test_compile_time_is_linear_in_the_turns() -> None:
    """Eight times the turns take about eight times as long; anything quadratic would take up to 64 times."""
    head, body, first, after = FORMS["state in rows"]
    seconds = []
    for turns in (24, 192):
        text = (
            f"{unrolled(turns, body, first)} {after.format(stack=stacked(turns, 'u')).replace('h6', f'h{turns - 1}')}"
        )
        model = parsed(f"{head.replace('float[7', f'float[{turns}')} {{ {text} }}", **indices(turns))
        start = time.process_time()
        compiled(model, load_machine("edge"))
        seconds.append(time.process_time() - start)
    assert seconds[1] < 20 * seconds[0]

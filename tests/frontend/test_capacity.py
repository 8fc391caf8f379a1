"""Experts with a declared capacity: the pairs that fit give what they did, those beyond nothing, and are counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import flexc
from flexc.frontend.load import load
from flexc.frontend.routing import ROUTING_KEY
from flexc.passes.session import Session
from tests.frontend.moe_models import EXPERTS, FORMS, PAIRS, ROWS, WIDTH, expected, graph

Array = npt.NDArray[Any]
Build = Callable[..., onnx.ModelProto]
Run = Callable[..., list[Any]]


def rows(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32)


def model_of(form: str, build: Build) -> onnx.ModelProto:
    text, constants = graph(form)
    return build(text, **constants)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_each_expert_takes_its_first_pairs(form: str, factor: float, build: Build) -> None:
    capacity, seen = math.ceil(factor * PAIRS / EXPERTS), set()
    loaded = load(model_of(form, build), expert_capacity=factor)
    session = Session(loaded)
    for seed in range(3):
        x = rows(seed)
        result, dropped = session.run({"x": x}).values()
        wanted, beyond = expected(form, x, capacity)
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
        assert dropped.tolist() == [beyond]
        seen.add(beyond > 0)
    assert True in seen or factor > 1
    known = json.loads(loaded.metadata_props[ROUTING_KEY])
    assert known["routings"] == [{"pairs": PAIRS, "experts": EXPERTS, "rows": min(capacity, ROWS), "may_drop": True}]


@pytest.mark.parametrize("form", FORMS)
def test_enough_room_gives_what_the_model_gives(form: str, build: Build, run: Run) -> None:
    model, factor = model_of(form, build), (ROWS - 0.5) * EXPERTS / PAIRS
    given = {"x": rows(0)}
    (wanted,) = run(model, given)
    result, *dropped = Session(load(model, expert_capacity=factor)).run(given).values()
    (exact,) = Session(load(model)).run(given).values()
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exact, wanted, rtol=1e-4, atol=1e-5)
    assert not any(count.any() for count in dropped)


@pytest.mark.parametrize("form", FORMS)
def test_linears_have_as_many_rows_as_an_expert_takes(form: str, build: Build) -> None:
    capacity = 6
    loaded = load(model_of(form, build), expert_capacity=capacity * EXPERTS / PAIRS)
    shapes = [tuple(node.outputs[0].shape or ()) for node in loaded.graph if node.op_type == "MatMul"]
    assert [shape[0] for shape in shapes] == [ROWS] + [capacity] * 2 * EXPERTS


def test_without_a_capacity_repeated_rows_are_multiplied_once(build: Build) -> None:
    for form in ("weights gathered", "weights first", "einsum"):
        loaded = load(model_of(form, build))
        shapes = [tuple(node.outputs[0].shape or ()) for node in loaded.graph if node.op_type == "MatMul"]
        assert [shape[0] for shape in shapes] == [ROWS, ROWS, PAIRS]


def test_without_a_capacity_an_expert_takes_each_row_once_at_most(build: Build) -> None:
    """TopK chooses no expert twice for a row, so there is nothing to drop, and no output that counts it."""
    loaded = load(model_of("loop with rows first", build))
    shapes = [tuple(node.outputs[0].shape or ()) for node in loaded.graph if node.op_type == "MatMul"]
    assert [shape[0] for shape in shapes] == [ROWS] * (1 + 2 * EXPERTS)
    assert len(loaded.graph.outputs) == 1
    assert ROUTING_KEY not in loaded.metadata_props


def test_what_no_top_k_chose_keeps_all_rows_and_is_reported(build: Build, run: Run) -> None:
    text = """g (float[5,6] x, int64[5] c, float[6,6] w) => (float[5,6] y) <int64 one = {1}> {
      m = Equal(c, one)  z = NonZero(m)  p = Transpose<perm = [1, 0]>(z)  h = GatherND(x, p)  u = MatMul(h, w)
      y = ScatterND<reduction = "add">(x, p, u) }"""
    model = build(text)
    given = {"x": rows(0)[:5], "c": np.array([1, 1, 1, 0, 1]), "w": np.eye(6, dtype=np.float32)}
    loaded = load(model, expert_capacity=0.1)
    (result,) = Session(loaded).run(given).values()
    np.testing.assert_allclose(result, run(model, given)[0], rtol=1e-5)
    assert json.loads(loaded.metadata_props[ROUTING_KEY])["open"] == 1


def test_on_the_machine(build: Build) -> None:
    """Every node is checked; the verdict says what was dropped, and judges the file by what was not."""
    for form in ("weights gathered", "loop over a one-hot mask"):
        model = model_of(form, build)
        program = flexc.compile(model, expert_capacity=1.0)
        assert not [op for op in program.image.debug.ops if op.engine == "host"]
        feeds = {"x": np.stack([rows(seed) for seed in range(2)])}
        verdict = program.check(feeds, model)
        assert verdict.first is None, verdict.line()
        assert verdict.read_well
        dropped = program.run(feeds).outputs["dropped_pairs"]
        assert dropped.shape == (2, 1)
        assert any(f"{dropped.sum()} of {2 * PAIRS} row-expert pairs" in note for note in verdict.notes)


def test_a_file_that_was_misread_is_not_excused_by_capacity(build: Build) -> None:
    """With room for all pairs nothing is dropped, so the capped graph itself is held against another file."""
    form = "weights gathered"
    text, constants = graph(form)
    program = flexc.compile(build(text, **constants), expert_capacity=(ROWS - 0.5) * EXPERTS / PAIRS)
    other = build(text, **(constants | {"B": -constants["B"], "b": -constants["b"]}))
    verdict = program.check({"x": rows(0)}, other)
    assert verdict.model is not None
    assert verdict.model.cosine < 0


def test_rows_that_an_expert_replaces_keep_what_was_there_where_it_has_no_slot(build: Build) -> None:
    turns = """ m# = Equal(i, e#)  z# = NonZero(m#)  n# = Transpose<perm = [1, 0]>(z#)  t# = Slice(n#, zero, one, one)
      h# = GatherND(x, t#)  u# = MatMul(h#, A#)  y# = ScatterND(y@, t#, u#) """
    body = "".join(turns.replace("#", str(e)).replace("y@", f"y{e - 1}" if e else "x") for e in range(EXPERTS))
    rng = np.random.default_rng(0)
    weights = {f"A{e}": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for e in range(EXPERTS)}
    numbers: dict[str, Array] = {f"e{e}": np.array(e) for e in range(EXPERTS)}
    numbers |= {"zero": np.array([0]), "one": np.array([1]), "R": rng.standard_normal((WIDTH, 3)).astype(np.float32)}
    text = f"g (float[8,6] x) => (float[8,6] y) {{ r = MatMul(x, R)  v, i = TopK(r, one) {body} y = Identity(y2) }}"
    session, x = Session(load(build(text, **weights, **numbers), expert_capacity=0.75)), rows(1)
    result, dropped = session.run({"x": x}).values()
    wanted, taken = x.copy(), [0] * EXPERTS
    for row, expert in enumerate(np.argmax(x @ numbers["R"], axis=1)):
        taken[expert] += 1
        if taken[expert] <= 2:
            wanted[row] = x[row] @ weights[f"A{expert}"]
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
    assert dropped.tolist() == [sum(max(0, count - 2) for count in taken)]

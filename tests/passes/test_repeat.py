"""Repetition: periods of sequences, and the turns that graphs of repeated nodes are cut into."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexc.frontend.load import load
from flexc.passes.periods import MIN_TURNS, Stretch, stretches
from flexc.passes.repeat import Repetition, repetitions
from tests.backend.models import parsed
from tests.backend.turn_makers import indices, stacked, unrolled


@given(
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(4, 6), min_size=1, max_size=7),
    st.integers(MIN_TURNS, 9),
    st.lists(st.integers(0, 3), max_size=6),
)
def test_a_repetition_is_found(before: list[int], period: list[int], turns: int, after: list[int]) -> None:
    """The part in the middle has numbers of its own, so nothing longer can repeat."""
    sequence = before + period * turns + after
    inside = [each for each in stretches(sequence) if len(before) <= each.start and each.stop <= len(sequence)]
    assert inside
    assert sum(each.stop - each.start for each in inside) >= len(period) * turns


@given(st.lists(st.integers(0, 2), max_size=60))
def test_stretches_repeat_and_do_not_overlap(sequence: list[int]) -> None:
    end = 0
    for each in stretches(sequence):
        assert end <= each.start
        assert each.turns >= MIN_TURNS
        assert all(sequence[i] == sequence[i + each.period] for i in range(each.start, each.stop - each.period))
        end = each.stop


def test_the_longest_stretch_comes_first() -> None:
    assert stretches([9, *[1, 2, 3] * 5, 7, *[4, 4, 1] * 6]) == [Stretch(1, 16, 3), Stretch(17, 35, 3)]
    assert stretches([1, 2] * (MIN_TURNS - 1)) == []


def found_in(text: str) -> list[Repetition]:
    model = load(parsed(text, **indices(8)))
    assert isinstance(model, ir.Model)
    return repetitions(model.graph, lambda _: True)


STEP = "x{t} = Gather<axis = 0>(x, i{t})  m{t} = Mul({h}, a)  h{t} = Add(m{t}, x{t})  r{t} = Relu(h{t})"
HEAD = "(float[8,1,4] x, float[1,4] a, float[1,4] z) => (float[] y)"


def test_turns_hand_on_what_the_next_one_reads() -> None:
    (found,) = found_in(f"{HEAD} {{ {unrolled(8, STEP, {'h': 'z'})} y = {stacked(8, 'r')} }}")
    assert [node.op_type for node in found.template] == ["Mul", "Add", "Relu"]
    assert len(found.turns) == 8
    assert {made: str(value.name) for made, value in found.carried.items()} == {(1, 0): "z"}
    assert [[str(value.name) for value in turns] for turns in found.outside().values()] == [
        ["a"] * 8,
        [f"x{turn}" for turn in range(8)],
    ]


def test_names_do_not_matter_and_constants_do() -> None:
    body = STEP.replace("Relu(h{t})", "LeakyRelu<alpha = 0.5>(h{t})")
    text = f"{HEAD} {{ {unrolled(8, body, {'h': 'z'})} y = {stacked(8, 'r')} }}"
    assert len(found_in(text)[0].turns) == 8
    assert len(found_in(text.replace("m3 ", "other ").replace("(m3,", "(other,"))[0].turns) == 8
    assert not found_in(text.replace("r3 = LeakyRelu<alpha = 0.5>", "r3 = LeakyRelu<alpha = 0.25>"))


@pytest.mark.parametrize(("reach", "turns"), [(2, 7), (3, 0)])
def test_how_far_turns_may_look_back(reach: int, turns: int) -> None:
    """Two turns back is one turn back where the first node is counted to the turn before; three are too far."""
    lines = [STEP.format(t=turn, h=f"h{turn - reach}" if turn >= reach else "z") for turn in range(8)]
    found = found_in(f"{HEAD} {{ {' '.join(lines)} y = {stacked(8, 'r')} }}")
    assert [len(each.turns) for each in found] == ([turns] if turns else [])

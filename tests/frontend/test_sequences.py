"""Sequences of known tensors leave the graph; others are refused in words."""

from __future__ import annotations

import pytest

from flexc.frontend.load import load
from flexc.isa.errors import FlexcError
from tests.frontend.conftest import Build, Same

HEAD = "g (float[3,4] x, float[3,4] z) => (float[] y)"
FORMS = {
    "stacked": "s = SequenceConstruct(x, z, x)  y = ConcatFromSequence<axis = 1, new_axis = 1>(s)",
    "joined": "s = SequenceConstruct(x, z)  y = ConcatFromSequence<axis = -1>(s)",
    "taken apart": "s = SplitToSequence<axis = 1, keepdims = 0>(x)  y = SequenceAt(s, i)",
    "by lengths": "s = SplitToSequence<axis = 1>(x, n)  y = SequenceAt(s, i)",
    "by one length": "s = SplitToSequence<axis = 1>(x, three)  y = SequenceAt(s, i)",
    "grown": "e = SequenceEmpty()  a = SequenceInsert(e, x)  b = SequenceInsert(a, z, none)"
    "  y = ConcatFromSequence<axis = 0>(b)",
    "shrunk": "s = SequenceConstruct(x, z, x)  t = SequenceErase(s, none)  u = Identity(t)  y = SequenceAt(u, i)",
    "counted": "s = SequenceConstruct(x, z)  l = SequenceLength(s)  f = Cast<to = 1>(l)  y = Mul(x, f)",
}
CONSTANTS = "<int64 i = {-1}, int64 none = {0}, int64 three = {3}, int64[2] n = {1, 3}>"


@pytest.mark.parametrize("form", FORMS)
def test_its_tensors_take_its_place(form: str, build: Build, same: Same) -> None:
    model = same(build(f"{HEAD} {CONSTANTS} {{ {FORMS[form]} }}"))
    assert not [node.op_type for node in model.graph if "Sequence" in node.op_type]


@pytest.mark.parametrize(
    "text",
    [
        "(float[3,4] x) => (seq(float[]) s) { s = SequenceConstruct(x, x) }",
        "(float[3,4] x, int64 i) => (float[] y) { s = SequenceConstruct(x, x)  y = SequenceAt(s, i) }",
        "(float[3,4] x, int64 n) => (float[] y) <int64 i = {0}> { s = SplitToSequence(x, n)  y = SequenceAt(s, i) }",
    ],
)
def test_others_are_refused(text: str, build: Build) -> None:
    with pytest.raises(FlexcError, match=r"is not a tensor|depends on run-time data"):
        load(build(f"g {text}"))

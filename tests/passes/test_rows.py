"""Forms of values as rows and columns."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from flexc.frontend.load import load
from flexc.frontend.operators import OPERATORS
from flexc.passes.rows import Form, is_elementwise, output_form, plain, row_length, squeezed
from tests.backend.models import parsed


def last_node(text: str) -> ir.Node:
    """Return the last node of a graph."""
    return list(load(parsed(text)).graph)[-1]


def form(text: str, *inside: Form | None) -> Form | None:
    """Return the form of the last node's output where its inputs have these forms inside the kernel."""
    node = last_node(text)
    own = {value: each for value, each in zip(node.inputs, inside, strict=False) if value is not None and each}
    return output_form(node, OPERATORS[node.op_type].kind, own)


@pytest.mark.parametrize(
    ("shape", "rows", "cols"),
    [((), (), 1), ((5,), (), 5), ((1, 5), (), 5), ((4, 1, 5), (4,), 5), ((4, 3, 1), (4, 3), 1), ((1, 1), (), 1)],
)
def test_the_last_dimension_is_the_columns(shape: tuple[int, ...], rows: tuple[int, ...], cols: int) -> None:
    assert plain(shape) == Form(rows, cols)


def test_dimensions_of_1_are_no_rows() -> None:
    assert squeezed((1, 4, 1, 3)) == (4, 3)


BARE = Form((4,), 1, bare=True)
CASES = {
    "as it is": ("(float[4,6] x) => (float[] y) { y = Neg(x) }", (Form((4,), 6),), Form((4,), 6)),
    "by one number a row": (
        "(float[4,6] x, float[4,1] u) => (float[] y) { y = Mul(x, u) }",
        (Form((4,), 6), Form((4,), 1)),
        Form((4,), 6),
    ),
    "more rows than inside": ("(float[6] x, float[4,6] u) => (float[] y) { y = Mul(x, u) }", (Form((), 6),), None),
    "bare": ("(float[4] x) => (float[] y) { y = Neg(x) }", (BARE,), BARE),
    "bare and plain": ("(float[4] x, float[4] u) => (float[] y) { y = Mul(x, u) }", (BARE, Form((), 4)), None),
    "softmax of bare": ("(float[4] x) => (float[] y) { y = Softmax(x) }", (BARE,), None),
    "reduced, kept": ("(float[4,6] x) => (float[] y) <int64[1] a = {1}> { y = ReduceMax(x, a) }", (), Form((4,), 1)),
    "reduced, dropped": (
        "(float[4,6] x) => (float[] y) <int64[1] a = {1}> { y = ReduceMax<keepdims = 0>(x, a) }",
        (Form((4,), 6),),
        BARE,
    ),
    "reduced over rows inside": (
        "(float[4,6] x) => (float[] y) <int64[2] a = {0,1}> { y = ReduceMax<keepdims = 0>(x, a) }",
        (Form((4,), 6),),
        None,
    ),
    "unit put behind bare": (
        "(float[4] x) => (float[] y) <int64[1] a = {1}> { y = Unsqueeze(x, a) }",
        (BARE,),
        Form((4,), 1),
    ),
    "rows joined": ("(float[4,6] x) => (float[] y) <int64[1] s = {-1}> { y = Reshape(x, s) }", (Form((4,), 6),), None),
    "columns joined": (
        "(float[4,6] x, float[4,2] u) => (float[] y) { y = Concat<axis = 1>(x, u) }",
        (Form((4,), 6), Form((4,), 2)),
        Form((4,), 8),
    ),
    "rows put below": ("(float[4,6] x) => (float[] y) { y = Concat<axis = 0>(x, x) }", (Form((4,), 6),), None),
    "scales a row": (
        "(float[4,6] x, float[4] s) => (int8[] y) <int8[4] z = {0,0,0,0}> { y = QuantizeLinear<axis = 0>(x, s, z) }",
        (Form((4,), 6), BARE),
        Form((4,), 6),
    ),
    "scales a column, which loading takes apart": (
        "(float[4,6] x, float[6] s) => (int8[] y) <int8[6] z = {0,0,0,0,0,0}>{ y = QuantizeLinear<axis = 1>(x, s, z) }",
        (),
        Form((4,), 6),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_forms(case: str) -> None:
    text, inside, wanted = CASES[case]
    assert form(text, *inside) == wanted


def test_a_reduction_takes_all_it_runs_over_at_once() -> None:
    node = last_node("(float[2,3,5] x) => (float[] y) <int64[2] a = {1,2}> { y = ReduceMax(x, a) }")
    assert node.inputs[0] is not None
    assert row_length(node, node.inputs[0]) == 15


def test_only_chains_of_one_form_may_be_cut_within_rows() -> None:
    graph = load(parsed("(float[4,6] x) => (float[] z) { y = Neg(x)  z = Softmax(y) }")).graph
    neg, softmax = graph
    forms = {neg.outputs[0]: Form((4,), 6)}
    assert is_elementwise([neg], forms)
    assert not is_elementwise([neg, softmax], forms | {softmax.outputs[0]: Form((4,), 6)})
    assert not is_elementwise([neg], forms | {softmax.outputs[0]: Form((4,), 1)})


def test_a_view_that_leaves_the_rows_may_stand_in_a_chain() -> None:
    text = "(float[4,6] x) => (float[] y) <int64[3] s = {1,4,6}> { a = Neg(x)  b = Reshape(a, s)  y = Abs(b) }"
    nodes = list(load(parsed(text)).graph)
    forms: dict[ir.Value, Form] = {}
    for node in nodes:
        form = output_form(node, OPERATORS[node.op_type].kind, forms)
        assert form is not None
        forms[node.outputs[0]] = form
    assert [node.op_type for node in nodes] == ["Neg", "Reshape", "Abs"]
    assert is_elementwise(nodes, forms, views=True)
    assert not is_elementwise(nodes, forms), "what follows a view is mostly work on whole rows, which cannot be cut"

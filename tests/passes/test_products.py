"""Products of two activations: their integer form, and the choice between array and vector unit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.edit import shape_of
from flexc.frontend.load import load
from flexc.isa.machine import load_machine
from flexc.passes.product_cost import WHY_KEY, place_products, product_cost
from flexc.passes.products import find_products, quantise_products, trail_of
from flexc.passes.session import Session
from tests.backend.models import parsed

ATTENTION = """(float[1,4,{rows},64] q, float[1,4,{keys},64] k, float[1,4,{keys},64] v) => (float[] y) {{
    t = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)
}}"""


def attention(rows: int = 128, keys: int = 128) -> ir.Model:
    """Return attention of four heads."""
    return load(parsed(ATTENTION.format(rows=rows, keys=keys)))


def operators(model: ir.Model) -> Counter[str]:
    """Return how often each operator is there."""
    return Counter(node.op_type for node in model.graph)


def test_the_integer_form_is_standard_and_close() -> None:
    model = attention()
    before = Session(model.clone())
    quantise_products(model, lambda _node: True)
    after = Session(model)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((1, 4, 128, 64)).astype(np.float32) for name in "qkv"}
    feeds["q"] /= 8
    exact, close = (session.run(feeds)["y"].ravel().astype(np.float64) for session in (before, after))
    cosine = exact @ close / np.sqrt((exact @ exact) * (close @ close))
    assert 0.9995 < cosine < 1
    assert operators(model)["MatMulInteger"] == 2
    assert operators(model)["MatMul"] == 0


def test_probabilities_need_no_magnitudes_and_keys_no_transposition() -> None:
    model = attention()
    quantise_products(model, lambda _node: True)
    assert operators(model)["Abs"] == 3  # of q, k and v, not of the probabilities
    transposed = [node.inputs[0] for node in model.graph if node.op_type == "Transpose"]
    floats = [value for value in transposed if value is not None and value.dtype == ir.DataType.FLOAT]
    assert [str(value.name) for value in floats if shape_of(value)[-1] > 1] == ["v"]


def test_an_operand_of_two_products_is_quantised_once() -> None:
    text = """(float[2,9,16] a, float[2,16,8] b, float[2,16,5] c) => (float[] y, float[] z) {
        y = MatMul(a, b) z = MatMul(a, c)
    }"""
    model = load(parsed(text))
    quantise_products(model, lambda _node: True)
    assert operators(model)["Round"] == 3


def test_only_what_is_picked_changes() -> None:
    model = attention()
    first = next(iter(find_products(model)))
    quantise_products(model, lambda node: node is first)
    assert operators(model)["MatMul"] == 1


def test_a_constant_makes_no_product() -> None:
    text = "(float[2,9,16] a) => (float[] y) { y = MatMul(a, w) }"
    assert not list(find_products(load(parsed(text, w=np.ones((2, 16, 8), np.float32)))))


def test_a_vector_counts_as_one_column() -> None:
    (product,) = find_products(load(parsed("(float[2,9,16] a, float[16] b) => (float[] z) { z = MatMul(a, b) }")))
    assert [tuple(value.shape or ()) for value in product.inputs if value is not None] == [(2, 9, 16), (16, 1)]


def test_the_trail_ends_where_rows_change() -> None:
    text = """(float[2,12,16] a) => (float[] y) {
        h = Reshape(a, heads) t = Transpose <perm = [0, 2, 1, 3]> (h) s = Mul(t, factor)
        u = Transpose <perm = [0, 1, 3, 2]> (s) y = Identity(u)
    }"""
    model = load(parsed(text, heads=np.array([2, 12, 4, 4], np.int64), factor=np.array(2.0, np.float32)))
    trail = trail_of(model.graph.outputs[0])
    assert trail.swapped
    assert len(trail.factors) == 1
    assert [use.op_type for use in [trail.base.producer()] if use] == ["Transpose"]
    assert shape_of(trail.base) == (2, 4, 12, 4)


@pytest.mark.parametrize("target", ["edge", "resident", "server"])
def test_long_windows_go_to_the_array_and_single_tokens_to_the_vector_unit(target: str) -> None:
    machine = load_machine(target)
    long, single = attention(256, 256), attention(1, 256)
    place_products(long, machine)
    place_products(single, machine)
    assert operators(long)["MatMulInteger"] == 2
    assert operators(single)["MatMul"] == 2


@pytest.mark.parametrize("wish", ["array", "vector"])
def test_wishes_are_followed_and_noted(wish: str) -> None:
    model = attention(8, 8)
    place_products(model, load_machine("edge"), lambda _node: wish)
    assert operators(model)["MatMulInteger"] == (2 if wish == "array" else 0)
    notes = [node.metadata_props[WHY_KEY] for node in model.graph if WHY_KEY in node.metadata_props]
    assert len(notes) == 2
    assert all(f"asked for {wish}" in note for note in notes)


def test_what_does_not_fit_the_array_stays_on_the_vector_unit() -> None:
    model = load(parsed("(float[1,4,40000] a, float[1,40000,32] b) => (float[] y) { y = MatMul(a, b) }"))
    node = next(iter(find_products(model)))
    cost = product_cost(node, load_machine("edge"))
    assert cost.array is None
    assert cost.faster == "vector"
    place_products(model, load_machine("edge"), lambda _node: "array")
    assert operators(model)["MatMul"] == 1

"""Operators along other axes than the last: turned round, they mean the same and run on the machine."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.frontend.load import load
from flexc.isa.machine import load_machine
from flexc.passes.session import Session
from tests.frontend.test_functions import feeds_of, operators, parsed

CASES = {
    "softmax": "(float[2,5,3,4] x) => (float[] y) { y = Softmax <axis = 1> (x) }",
    "softmax from the end": "(float[2,5,4] x) => (float[] y) { y = Softmax <axis = -2> (x) }",
    "reduction": "(float[2,5,3,4] x) => (float[] y) <int64[1] a = {1}> { y = ReduceMean(x, a) }",
    "two axes apart": "(float[2,5,3,4] x) => (float[] y) <int64[2] a = {0, 2}> { y = ReduceMax <keepdims = 0> (x, a) }",
    "first axes": "(float[2,5,3,4] x) => (float[] y) <int64[2] a = {1, 0}> { y = ReduceSum(x, a) }",
    "layer": "(float[2,5,3,4] x, float[3,4] s, float[3,4] b) => (float[] y) "
    "{ y = LayerNormalization <axis = 2> (x, s, b) }",
    "layer with statistics": "(float[2,5,4] x, float[4] s) => (float[] y, float[] m, float[] d) "
    "{ y, m, d = LayerNormalization(x, s) }",
    "layer with one scale for many": "(float[2,5,4] x, float[4] s) => (float[] y) "
    "{ y = LayerNormalization <axis = 1> (x, s) }",
    "rms": "(float[2,5,3,4] x, float[5,3,4] s) => (float[] y) { y = RMSNormalization <axis = 1> (x, s) }",
    "instance": "(float[2,6,3,4] x, float[6] s, float[6] b) => (float[] y) { y = InstanceNormalization(x, s, b) }",
    "group": "(float[2,6,3,4] x, float[6] s, float[6] b) => (float[] y) "
    "{ y = GroupNormalization <num_groups = 3> (x, s, b) }",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_turned_operators_mean_the_same_and_run_on_the_machine(text: str) -> None:
    model = parsed(text)
    feeds, loaded = feeds_of(model), load(model)
    expected = ReferenceEvaluator(model).run(None, feeds)
    again = Session(loaded).run(feeds)
    program = lower(loaded, load_machine("edge"))
    run = Executor(program).run({name: array[np.newaxis] for name, array in feeds.items()})
    assert "host" not in [op.engine for op in program.debug.ops]
    for output, value in zip(model.graph.output, expected, strict=True):
        assert again[output.name].shape == value.shape
        np.testing.assert_allclose(again[output.name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run[output.name][0], value, rtol=1e-4, atol=1e-5)


def test_normalisations_stay_what_they_are() -> None:
    found = operators(load(parsed(CASES["group"])))
    assert found["LayerNormalization"] == 1
    assert found["GroupNormalization"] == 0


def test_channels_are_normalised_before_layer_normalisation_was_an_operator() -> None:
    model = parsed(CASES["instance"], 14)
    feeds = feeds_of(model)
    expected = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(Session(load(model)).run(feeds)["y"], next(iter(expected)), rtol=1e-4, atol=1e-5)


def test_no_axes_and_nothing_to_do() -> None:
    text = (
        "(float[2,5] x) => (float[] y) <int64[0] a = {}> { z = ReduceSum <noop_with_empty_axes = 1> (x, a) y = Abs(z) }"
    )
    assert operators(load(parsed(text)))["ReduceSum"] == 0

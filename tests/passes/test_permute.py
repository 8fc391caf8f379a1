"""Permuting channels: which may be permuted, that the model then computes what it did, and that more is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.frontend.linears import find_linears
from flexc.frontend.load import load
from flexc.passes.calibrate import calibrate, input_specs
from flexc.passes.emit import PIN_NM_KEY
from flexc.passes.feeds import random_feeds
from flexc.passes.pattern import NM
from flexc.passes.permute import apply
from flexc.passes.permute.arrange import arrange, kept
from flexc.passes.permute.carry import Bound, Place, reshaped
from flexc.passes.permute.classes import channel_classes
from flexc.passes.prune import open_linears
from flexc.passes.session import Session

DECODER = Path(__file__).parents[1] / "models" / "decoder.onnx"
RNG = np.random.default_rng(11)


def graph(shape: list[int], nodes: list[onnx.NodeProto], outputs: str, **constants: Any) -> ir.Model:
    """Build a model of one input x and load it."""
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return load(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), name=output.split()[0], **attributes)


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) / 3


def decoder() -> ir.Model:
    return load(DECODER)


def mobile() -> ir.Model:
    """Two inverted residual blocks: 1x1, depthwise, 1x1, joined by a residual; pooled and classified."""
    nodes = [
        node("Conv", "x stem", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a wide0 same", "b"),
        node("Clip", "b low high", "b1"),
        node("Conv", "b1 deep0 same", "c", group=16, pads=[1, 1, 1, 1]),
        node("Conv", "c thin0", "d"),
        node("Add", "a d", "e"),
        node("Conv", "e wide1", "f"),
        node("Relu", "f", "g"),
        node("MaxPool", "g", "h", kernel_shape=[2, 2]),
        node("Conv", "h thin1", "i"),
        node("GlobalAveragePool", "i", "j"),
        node("Flatten", "j", "k"),
        node("Gemm", "k head bias", "y"),
    ]
    return graph(
        [1, 3, 6, 6], nodes, "y", stem=weight(8, 3, 3, 3), wide0=weight(16, 8, 1, 1), deep0=weight(16, 1, 3, 3),
        thin0=weight(8, 16, 1, 1), wide1=weight(24, 8, 1, 1), thin1=weight(16, 24, 3, 3)[:, :, 1:2, 1:2],
        head=weight(16, 5), bias=weight(5), same=np.full(16, 0.5, np.float32), low=np.float32(0), high=np.float32(6),
    )  # fmt: skip


def gated() -> ir.Model:
    """One product makes two halves that meet again, normalised and scaled on the way; turned and turned back."""
    nodes = [
        node("MatMul", "x both", "a"),
        node("Add", "a bias", "b"),
        node("Split", "b", "c d", axis=-1, num_outputs=2),
        node("Slice", "b start end axis", "s"),
        node("Mul", "c d", "e"),
        node("LayerNormalization", "e scale shift", "f", axis=-1),
        node("Transpose", "f", "g", perm=[0, 2, 1]),
        node("Mul", "g column", "h"),
        node("Transpose", "h", "i", perm=[0, 2, 1]),
        node("Unsqueeze", "i axis", "j"),
        node("Squeeze", "j axis", "k"),
        node("Add", "k s", "l"),
        node("ReduceMean", "l last", "m", keepdims=1),
        node("Sub", "l m", "n"),
        node("MatMul", "n down", "y"),
    ]
    return graph(
        [1, 4, 8], nodes, "y", both=weight(8, 32), bias=weight(32), scale=weight(16), shift=weight(16),
        column=weight(1, 16, 1), down=weight(16, 6), start=[16], end=[32], axis=[2], last=[-1],
    )  # fmt: skip


def heads() -> ir.Model:
    """Attention as exporters write it: values by head, mixed, joined, multiplied."""
    nodes = [
        node("MatMul", "x wv", "a"),
        node("Add", "a bias", "b"),
        node("Reshape", "b apart", "c"),
        node("Transpose", "c", "v", perm=[0, 2, 1, 3]),
        node("Mul", "v gain", "w"),
        node("MatMul", "x wm", "m"),
        node("Reshape", "m square", "m1"),
        node("Transpose", "m1", "m2", perm=[0, 2, 1, 3]),
        node("Softmax", "m2", "mix", axis=-1),
        node("MatMul", "mix w", "d"),
        node("Transpose", "d", "e", perm=[0, 2, 1, 3]),
        node("Reshape", "e joined", "f"),
        node("MatMul", "f wo", "y"),
    ]
    return graph(
        [1, 4, 8], nodes, "y", wv=weight(8, 16), bias=weight(16), apart=[1, 4, 2, 8], joined=[1, 4, 16],
        gain=weight(1, 2, 1, 8), wm=weight(8, 8), square=[1, 4, 2, 4], wo=weight(16, 6),
    )  # fmt: skip


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every class of channels be turned round, whether that is better or not."""

    def reverse(scores: np.ndarray, _nm: NM) -> np.ndarray:
        return np.arange(scores.shape[1])[::-1] if scores.shape[1] % 3 else np.roll(np.arange(scores.shape[1]), 5)

    monkeypatch.setattr(apply, "arrange", reverse)


@pytest.mark.usefixtures("turned")
@pytest.mark.parametrize(
    ("make", "sizes"),
    [(decoder, {(24, 2), (40, 1)}), (mobile, {(8, 1), (16, 1), (24, 1)}), (gated, {(16, 1)}), (heads, {(16, 2)})],
)
def test_a_permuted_model_computes_the_same(make: Callable[[], ir.Model], sizes: set[tuple[int, int]]) -> None:
    model = make()
    feeds = random_feeds(input_specs(model), 3, seed=2)
    before, statistics = Session(model).run(feeds[0]), calibrate(model, feeds)
    old = {linear.name: linear.matrix() for linear in find_linears(model)}
    assert {(each.size, each.heads) for each in channel_classes(open_linears(model))} == sizes
    statistics, count = apply.permute(model, open_linears(model), statistics, 0.5, (4,))
    assert count >= len(sizes)
    changed = [linear.name for linear in find_linears(model) if not np.array_equal(linear.matrix(), old[linear.name])]
    assert len(changed) > count
    for name, value in Session(model).run(feeds[0]).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-4, atol=1e-5)
    for name, sums in calibrate(model, feeds).square_sums.items():
        np.testing.assert_allclose(statistics.square_sums[name], sums, rtol=1e-4, atol=1e-5)


BOUND = {
    "an output": ([node("MatMul", "x up", "h"), node("MatMul", "h down", "y")], "h y"),
    "softmax": ([node("MatMul", "x up", "h"), node("Softmax", "h", "s"), node("MatMul", "s down", "y")], "y"),
    "a running sum": (
        [node("MatMul", "x up", "h"), node("CumSum", "h axis", "s"), node("MatMul", "s down", "y")],
        "y",
    ),
    "the greatest": (
        [node("MatMul", "x up", "h"), node("ArgMax", "h", "m", axis=-1), node("Cast", "m", "z", to=1),
         node("MatMul", "h down", "y")],
        "y z",
    ),
    "added to what is turned": (
        [node("MatMul", "x up", "h"), node("Transpose", "h", "t", perm=[0, 2, 1]), node("Add", "h t", "s"),
         node("MatMul", "s down", "y")],
        "y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BOUND)
def test_channels_whose_order_matters_stay(case: str) -> None:
    nodes, outputs = BOUND[case]
    model = graph([1, 8, 6], nodes, outputs, up=weight(6, 8), down=weight(8, 5), axis=np.int64(2))
    assert channel_classes(open_linears(model)) == []


def test_a_linear_that_stays_keeps_its_columns() -> None:
    nodes = [node("MatMul", "x up", "h"), node("MatMul", "h down", "y"), node("MatMul", "h side", "z")]
    model = graph([1, 4, 6], nodes, "y z", up=weight(6, 8), down=weight(8, 5), side=weight(8, 3))
    assert len(channel_classes(open_linears(model))) == 1
    pinned = next(linear for linear in find_linears(model) if linear.name == "z")
    pinned.node.metadata_props[PIN_NM_KEY] = "2:4"
    assert channel_classes(open_linears(model)) == []


def test_constants_that_others_read_stay() -> None:
    """Both branches have the same bias, which loading makes one constant; only one of them can be permuted."""
    nodes = [
        node("MatMul", "x up", "h"), node("Add", "h bias", "a"), node("MatMul", "a down", "y"),
        node("MatMul", "x other", "o"), node("Add", "o bias", "z"),
    ]  # fmt: skip
    ramp = np.arange(8, dtype=np.float32)
    model = graph([1, 4, 6], nodes, "y z", up=weight(6, 8), down=weight(8, 5), other=weight(6, 8), bias=ramp)
    feeds = random_feeds(input_specs(model), 2, seed=2)
    before = Session(model).run(feeds[0])
    apply.permute(model, open_linears(model), calibrate(model, feeds), 0.5, (4,))
    for name, value in Session(model).run(feeds[0]).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-4, atol=1e-5)


def test_what_matters_is_spread_evenly() -> None:
    scores = np.repeat([[9, 8, 7, 6, 0, 0, 0, 0]], 3, axis=0).astype(np.float32)
    order = arrange(scores, NM(2, 4))
    assert sorted(order) == list(range(8))
    assert kept(scores, order, NM(2, 4)) == 90
    assert kept(scores, np.arange(8), NM(2, 4)) == 51


@pytest.mark.parametrize("nm", [NM(1, 4), NM(4, 8), NM(5, 8), NM(3, 16)])
def test_an_order_never_keeps_less(nm: NM) -> None:
    scores = np.square(RNG.standard_normal((40, 64)) * RNG.lognormal(0, 1, 64)).astype(np.float32)
    found = arrange(scores, nm)
    assert sorted(found) == list(range(64))
    assert kept(scores, found, nm) > kept(scores, np.arange(64), nm)
    best = arrange(scores[:, found], nm)
    assert kept(scores, found[best], nm) >= kept(scores, found, nm)


def test_reshapes_split_and_join_heads() -> None:
    assert reshaped((1, 4, 24), (1, 4, 2, 12), Place(2), 24) == Place(3, 0, 2)
    assert reshaped((1, 4, 2, 12), (4, 24), Place(3, 0, 2), 24) == Place(1)
    assert reshaped((1, 4, 24), (4, 24), Place(2, 8), 16) == Place(1, 8)
    with pytest.raises(Bound):
        reshaped((1, 4, 24), (1, 96), Place(2), 24)
    with pytest.raises(Bound):
        reshaped((1, 2, 4, 12), (1, 2, 48), Place(3, 0, 1), 24)

"""Operators written in others: the same numbers as the original in onnxruntime, and nothing left for the host."""

from __future__ import annotations

import numpy as np
import pytest

from flexc.frontend.edit import shape_of
from flexc.frontend.operators import native
from tests.frontend.conftest import Build, Same

#: Name -> (graph, weights by shape).
FORMS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "sum over the first axis": ("(float[3,4,5] x) => (float[] y) <int64[1] a = {0}> { y = ReduceSum(x, a) }", {}),
    "mean over the middle": (
        "(float[3,4,5] x) => (float[] y) <int64[1] a = {1}> { y = ReduceMean<keepdims = 0>(x, a) }",
        {},
    ),
    "long mean over two axes": (
        "(float[2,3,96,128] x) => (float[] y) <int64[2] a = {2, 3}> { y = ReduceMean(x, a) }",
        {},
    ),
    "long maximum": ("(float[2,20000] x) => (float[] y) <int64[1] a = {1}> { y = ReduceMax(x, a) }", {}),
    "norms": (
        ("(float[3,4,5] x) => (float[] y) <int64[2] a = {0, 2}> { b = ReduceL1(x, a)  c = ReduceL2(x, a)"
        "  d = ReduceSumSquare(x, a)  e = ReduceLogSumExp(x, a)  y = Sum(b, c, d, e) }"),
        {},
    ),
    "activations": (
        ("(float[4,6] x) => (float[] y) { a = Elu<alpha = 1.5>(x)  b = Selu(x)  c = Celu<alpha = 2.0>(x)"
        "  d = Mish(x)  e = ThresholdedRelu(x)  f = Softsign(x)  g = Shrink<bias = 0.1>(x)  y = Sum(a,b,c,d,e,f,g) }"),
        {},
    ),
    "a slope for each channel": ("(float[2,4,3] x) => (float[] y) { y = PRelu(x, w) }", {"w": (4, 1)}),
    "logarithm of a softmax": ("(float[3,4,5] x) => (float[] y) { y = LogSoftmax<axis = 1>(x) }", {}),
    "a hard maximum": ("(float[3,4,5] x) => (float[] y) { y = Hardmax<axis = 1>(x) }", {}),
    "greatest and least": (
        ("(float[3,4,5] x) => (int64[] y, int64[] z) { y = ArgMax<axis = 1, keepdims = 0>(x)"
        "  z = ArgMin<axis = 0, select_last_index = 1>(x) }"),
        {},
    ),
    "the three greatest": (
        "(float[3,7,5] x) => (float[] y, int64[] z) <int64[1] k = {3}> { y, z = TopK<axis = 1>(x, k) }",
        {},
    ),
    "the sum of the three greatest, in any order": (
        ("(float[3,7] x) => (float[] y) <int64[1] k = {3}, int64[1] a = {1}> { v, p = TopK<sorted = 0>(x, k)"
        "  g = GatherElements<axis = 1>(x, p)  y = ReduceSum(g, a) }"),
        {},
    ),
    "products with a constant vector": (
        ("(float[2,3,8] x, float[8,3] z, float[8] q) => (float[] y, float[] u, float[] t)"
        " { y = MatMul(x, w)  u = MatMul(w, z)  t = MatMul(w, q) }"),
        {"w": (8,)},
    ),
    "running sums": (
        ("(float[3,4,5] x) => (float[] y) <int64 a = {1}> { b = CumSum<reverse = 1>(x, a)"
        "  c = CumSum<exclusive = 1>(x, a)  y = Add(b, c) }"),
        {},
    ),
    "edges repeated": (
        '(float[2,3,4,5] x) => (float[] y) <int64[8] p = {0,0,2,1,0,0,1,3}> { y = Pad<mode = "edge">(x, p) }',
        {},
    ),
    "edges reflected": (
        '(float[2,3,4,5] x) => (float[] y) <int64[8] p = {0,0,2,1,0,0,1,3}> { y = Pad<mode = "reflect">(x, p) }',
        {},
    ),
    "padded by axes, and cut": (
        ("(float[2,3,4] x) => (float[] y) <int64[4] p = {-1,2,1,0}, float v = {7}, int64[2] a = {2, 0}>"
        " { y = Pad(x, p, v, a) }"),
        {},
    ),
    "tiles": ("(float[2,3] x) => (float[] y) <int64[2] r = {3, 2}> { y = Tile(x, r) }", {}),
    "triangles": (
        "(float[2,4,5] x) => (float[] y) <int64 k = {1}> { a = Trilu(x, k)  b = Trilu<upper = 0>(x)  y = Add(a, b) }",
        {},
    ),
    "depth to space and back": (
        ('(float[1,8,2,3] x) => (float[] y) { a = DepthToSpace<blocksize = 2, mode = "CRD">(x)'
        "  y = SpaceToDepth<blocksize = 2>(a) }"),
        {},
    ),
    "columns at even distances": (
        "(float[3,9] x) => (float[] y) <int64[3] i = {7, 4, 1}> { y = Gather<axis = 1>(x, i) }",
        {},
    ),
    "columns in any order": (
        "(float[3,9,2] x) => (float[] y) <int64[2,2] i = {7, 4, 0, -1}> { y = Gather<axis = 1>(x, i) }",
        {},
    ),
    "an average with a border that does not count": (
        ("(float[2,3,7,8] x) => (float[] y)"
        " { y = AveragePool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1], ceil_mode = 1>(x) }"),
        {},
    ),
    "a large window": (
        ("(float[1,3,16,16] x) => (float[] y) { a = AveragePool<kernel_shape = [9,8]>(x)"
        "  b = MaxPool<kernel_shape = [9,8]>(x)  y = Add(a, b) }"),
        {},
    ),
    "windows of three dimensions": (
        "(float[1,2,4,6,6] x) => (float[] y) { y = MaxPool<kernel_shape = [2,3,2], strides = [1,2,2]>(x) }",
        {},
    ),
    "a norm of windows": ("(float[1,2,8] x) => (float[] y) { y = LpPool<kernel_shape = [3], p = 3>(x) }", {}),
    "local response": ("(float[1,7,3,3] x) => (float[] y) { y = LRN<size = 5, alpha = 0.5>(x) }", {}),
    "every image by itself": (
        "(float[2,4,3,3] x) => (float[] y) { y = InstanceNormalization(x, w, b) }",
        {"w": (4,), "b": (4,)},
    ),
    "three dimensions": (
        (
            "(float[2,3,5,6,7] x) => (float[] y) { y = Conv<pads = [1,0,1,1,1,0], strides = [2,1,2],"
            " dilations = [1,2,1]>(x, w, b) }"
        ),
        {"w": (4, 3, 3, 2, 3), "b": (4,)},
    ),
    "transposed": (
        ("(float[1,4,5,6] x) => (float[] y) { y = ConvTranspose<strides = [2,3], pads = [1,0,1,2], group = 2,"
        " output_padding = [1,2]>(x, w, b) }"),
        {"w": (4, 3, 3, 4), "b": (6,)},
    ),
    "transposed, dilated signal": (
        ("(float[2,4,7] x) => (float[] y)"
        " { y = ConvTranspose<strides = [2], dilations = [2], output_shape = [18]>(x, w) }"),
        {"w": (4, 3, 3)},
    ),
    "enlarged twice": (
        ('(float[1,2,3,4] x) => (float[] y) <float[4] s = {1,1,2,2}> { y = Resize<mode = "nearest",'
        ' coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(x, , s) }'),
        {},
    ),
    "to another size, linear": (
        "(float[1,2,5,7] x) => (float[] y) <int64[4] s = {1,2,8,3}> { y = Resize<mode = \"linear\">(x, , , s) }",
        {},
    ),
    "to another size, cubic": (
        '(float[1,2,5,7] x) => (float[] y) <int64[4] s = {1,2,8,11}> { y = Resize<mode = "cubic">(x, , , s) }',
        {},
    ),
    "a contraction of three": (
        ('(float[2,3,4] x, float[4,3] u, float[2,4] v) => (float[] y)'
        ' { y = Einsum<equation = "bij,jk,bj->bk">(x, u, v) }'),
        {},
    ),
    "the sum of a diagonal": ('(float[4,4] x) => (float[] y) { y = Einsum<equation = "ii">(x) }', {}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_same_numbers_and_nothing_for_the_host(build: Build, same: Same, form: str) -> None:
    graph, shapes = FORMS[form]
    rng = np.random.default_rng(3)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = same(build(f"g {graph}", opset=18, **weights))
    left = [node.op_type for node in model.graph if node.op_type != "Conv" and native(node)[0] is None]
    assert not left


def test_a_window_is_joined_place_by_place_only_while_it_is_small(build: Build, same: Same) -> None:
    model = same(build("g (float[1,2,16,16] x) => (float[1,2,8,9] y) { y = MaxPool<kernel_shape = [9,8]>(x) }"))
    assert [node.op_type for node in model.graph] == ["MaxPool", "MaxPool"]


def test_a_transposed_convolution_does_no_more_work_than_its_taps(build: Build, same: Same) -> None:
    weights = {"w": np.ones((4, 3, 4, 4), np.float32)}
    model = same(
        build("g (float[1,4,5,5] x) => (float[1,3,12,12] y) { y = ConvTranspose<strides=[2,2]>(x, w) }", **weights)
    )
    (conv,) = [node for node in model.graph if node.op_type == "Conv"]
    weight = conv.inputs[1]
    assert weight is not None
    assert shape_of(weight) == (12, 4, 2, 2)  # four phases of 2 x 2 taps: as many products as 4 x 4 taps

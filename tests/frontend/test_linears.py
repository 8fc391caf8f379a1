"""What counts as a linear, its lowered matrix, and giving it a new weight."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flexc.frontend.linears import find_linears, replace_weight
from flexc.frontend.load import load

Build = Callable[..., onnx.ModelProto]


@pytest.mark.parametrize("kind", ["float", "float16", "bfloat16"])
def test_matmul_matrix_is_one_row_an_output(build: Build, rng: np.random.Generator, kind: str) -> None:
    dtype = np.dtype({"float": np.float32, "float16": np.float16}.get(kind, ml_dtypes.bfloat16))
    weight: np.ndarray = rng.standard_normal((4, 5)).astype(dtype)
    model = load(build(f"g ({kind}[3,4] x) => ({kind}[3,5] y) {{ y = MatMul(x, w) }}", w=weight))
    (linear,) = find_linears(model)
    assert (linear.k, linear.n, linear.groups, linear.tied) == (4, 5, 1, False)
    assert linear.matrix().dtype == np.float32
    np.testing.assert_array_equal(linear.matrix(), weight.astype(np.float32).T)
    back = linear.to_weight(linear.matrix())
    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, weight)


@pytest.mark.parametrize(
    ("spatial", "kernel", "group"),
    [((9,), (3,), 1), ((6, 7), (3, 2), 2), ((5, 5), (3, 3), 4)],
)
def test_conv_matrix_times_patches_is_the_conv(
    build: Build,
    run: Callable[..., list[np.ndarray]],
    rng: np.random.Generator,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    group: int,
) -> None:
    weight = rng.standard_normal((8, 4 // group, *kernel)).astype(np.float32)
    x = rng.standard_normal((1, 4, *spatial)).astype(np.float32)
    sizes = ",".join(map(str, spatial))
    marks = ",".join("abc"[: len(spatial)])
    proto = build(f"g (float[1,4,{sizes}] x) => (float[1,8,{marks}] y) {{ y = Conv<group={group}>(x, w) }}", w=weight)
    (linear,) = find_linears(load(proto))
    assert (linear.n, linear.k, linear.groups) == (8, weight[0].size, group)
    windows = np.lib.stride_tricks.sliding_window_view(x[0], kernel, axis=tuple(range(1, 1 + len(kernel))))
    rank = len(kernel)
    parts = []
    for index, rows in enumerate(np.split(linear.matrix(), group)):
        own = windows[index * (4 // group) : (index + 1) * (4 // group)]
        patches = np.moveaxis(own, 0, -1)  # positions, kernel, channels
        parts.append(np.tensordot(rows, patches.reshape(*patches.shape[:rank], -1), axes=(1, rank)))
    np.testing.assert_allclose(np.concatenate(parts), run(proto, {"x": x})[0][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(linear.to_weight(linear.matrix()), weight)


TIED = """g (int64[3] t) => (float[3,6] y) {
    e = Gather(table, t)  h = Relu(e)  w = Transpose<perm=[1,0]>(table)  y = MatMul(h, w)
}"""


def test_a_head_tied_to_the_embedding_is_told(build: Build, rng: np.random.Generator) -> None:
    (linear,) = find_linears(load(build(TIED, table=rng.standard_normal((6, 4)).astype(np.float32))))
    assert linear.tied


def test_a_copied_table_is_tied_and_a_changed_one_is_not(build: Build, rng: np.random.Generator) -> None:
    table = rng.standard_normal((6, 4)).astype(np.float32)
    text = "g (int64[3] t) => (float[3,6] y) { e = Gather(table, t) h = Relu(e) y = MatMul(h, w) }"
    assert find_linears(load(build(text, table=table, w=table.T.copy())))[0].tied
    other = table.T.copy()
    other[2, 3] += 1
    assert not find_linears(load(build(text, table=table, w=other)))[0].tied


def test_replacing_a_tied_weight_leaves_the_embedding(build: Build, rng: np.random.Generator) -> None:
    table = rng.standard_normal((6, 4)).astype(np.float32)
    model = load(build(TIED, table=table))
    new = replace_weight(model, find_linears(model)[0], np.zeros((6, 4), np.float32))
    assert not new.tied
    gather = next(node for node in model.graph if node.op_type == "Gather")
    assert gather.inputs[0] is not None
    assert gather.inputs[0].const_value is not None
    np.testing.assert_array_equal(gather.inputs[0].const_value.numpy(), table)
    np.testing.assert_array_equal(find_linears(model)[0].matrix(), np.zeros((6, 4)))


def test_replacing_a_shared_weight_leaves_the_other_linear(build: Build, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((40, 40)).astype(np.float32)
    text = "g (float[3,40] x) => (float[3,40] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }"
    model = load(build(text, w=weight))
    first, second = find_linears(model)
    assert first.weight is second.weight
    new = replace_weight(model, first, np.zeros((40, 40), np.float32))
    assert new.weight.name == f"w.{first.name}"
    np.testing.assert_array_equal(find_linears(model)[1].matrix(), weight.T)
    alone = replace_weight(model, second, np.ones((40, 40), np.float32))
    assert alone.weight.name == "w"
    assert sorted(model.graph.initializers) == sorted(["w", f"w.{first.name}"])


def test_a_matrix_of_the_wrong_shape_is_refused(build: Build, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((4, 5)).astype(np.float32)
    (linear,) = find_linears(load(build("g (float[3,4] x) => (float[3,5] y) { y = MatMul(x, w) }", w=weight)))
    with pytest.raises(ValueError, match=r"takes a matrix \[5, 4\]"):
        linear.to_weight(weight)


def test_an_updated_weight_of_bytes_is_rounded_and_stays_within_the_type(build: Build) -> None:
    """What a pruning update makes of integers are no integers, and may lie beyond the type."""
    text = "g (int8[3,4] x) => (int32[3,2] y) { y = MatMulInteger(x, w, zx, zw) }"
    weight = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.int8)
    model = load(build(text, w=weight, zx=np.int8(0), zw=np.array(2, np.int8)))
    (linear,) = find_linears(model)
    matrix = np.array([[0.6, -0.4, 130, -150], [124.6, 125.4, -0.6, 0]], np.float32)
    assert linear.to_weight(matrix).T.tolist() == [[3, 2, 127, -128], [127, 127, 1, 2]]


def test_integer_matrices_are_no_linears(build: Build) -> None:
    text = "g (int32[3,4] x) => (int32[3,5] y) { y = MatMul(x, w) }"
    assert find_linears(load(build(text, w=np.ones((4, 5), np.int32)))) == []


def test_order_is_that_of_the_graph(build: Build, rng: np.random.Generator) -> None:
    text = "g (float[3,4] x) => (float[3,4] y) { a = MatMul(x, v) y = MatMul(a, w) }"
    weights = {name: rng.standard_normal((4, 4)).astype(np.float32) for name in "wv"}
    model: ir.Model = load(build(text, **weights))
    assert [linear.weight.name for linear in find_linears(model)] == ["v", "w"]

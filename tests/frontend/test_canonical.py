"""Every way exporters write a linear ends as MatMul(x, W) or Conv(x, W, b), with the same results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flexc.frontend.linears import find_linears

Build = Callable[..., onnx.ModelProto]
Same = Callable[..., ir.Model]
Ops = Callable[[ir.Model], list[str]]


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("attributes", ["", "<transB=1>", "<alpha=0.5, beta=2.0>", "<transB=1, alpha=-1.5>"])
def test_gemm(build: Build, same: Same, ops: Ops, rng: np.random.Generator, attributes: str) -> None:
    shape = (5, 4) if "transB" in attributes else (4, 5)
    proto = build(
        f"g (float[3,4] x) => (float[3,5] y) {{ y = Gemm{attributes}(x, w, c) }}",
        w=_normal(rng, *shape),
        c=_normal(rng, 5),
    )
    proto.graph.node[0].name = "fc"
    model = same(proto)
    assert ops(model) == ["MatMul", "Add"]
    assert [linear.name for linear in find_linears(model)] == ["fc"]


def test_gemm_of_a_transposed_input(build: Build, same: Same, ops: Ops, rng: np.random.Generator) -> None:
    model = same(build("g (float[4,3] x) => (float[3,5] y) { y = Gemm<transA=1>(x, w) }", w=_normal(rng, 4, 5)))
    assert ops(model) == ["Transpose", "MatMul"]


def test_gemm_of_two_inputs(build: Build, same: Same, ops: Ops) -> None:
    text = (
        "g (float[3,4] a, float[5,4] b, float[5] c) => (float[3,5] y) { y = Gemm<transB=1, alpha=2., beta=3.>(a,b,c) }"
    )
    assert ops(same(build(text))) == ["Transpose", "MatMul", "Mul", "Mul", "Add"]


@pytest.mark.parametrize(("shape", "count"), [("2,4,3", 3), ("4,3", 3), ("4", 1)])
def test_weight_on_the_left(
    build: Build, same: Same, ops: Ops, rng: np.random.Generator, shape: str, count: int
) -> None:
    out = shape.replace("4", "5", 1)
    model = same(build(f"g (float[{shape}] x) => (float[{out}] y) {{ y = MatMul(w, x) }}", w=_normal(rng, 5, 4)))
    assert len(ops(model)) == count
    (linear,) = find_linears(model)
    assert (linear.n, linear.k) == (5, 4)


def test_run_time_transpose_of_a_weight(build: Build, same: Same, ops: Ops, rng: np.random.Generator) -> None:
    text = "g (float[3,4] x) => (float[3,5] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    model = same(build(text, w=_normal(rng, 5, 4)))
    assert ops(model) == ["MatMul"]


def test_leading_ones_of_a_weight_go(build: Build, same: Same, rng: np.random.Generator) -> None:
    model = same(build("g (float[2,3,4] x) => (float[2,3,5] y) { y = MatMul(x, w) }", w=_normal(rng, 1, 4, 5)))
    assert len(find_linears(model)) == 1


def test_leading_ones_that_raise_the_rank_stay(build: Build, same: Same, rng: np.random.Generator) -> None:
    model = same(build("g (float[3,4] x) => (float[1,3,5] y) { y = MatMul(x, w) }", w=_normal(rng, 1, 4, 5)))
    assert find_linears(model) == []


def test_batched_expert_weights_become_a_linear_each(
    build: Build, same: Same, ops: Ops, rng: np.random.Generator
) -> None:
    model = same(build("g (float[2,3,4] x) => (float[2,3,5] y) { y = MatMul(x, w) }", w=_normal(rng, 2, 4, 5)))
    assert ops(model).count("MatMul") == 2
    assert len(find_linears(model)) == 2


def test_outer_product_is_a_mul(build: Build, same: Same, ops: Ops, rng: np.random.Generator) -> None:
    model = same(build("g (float[2,1,6] x) => (float[2,3,6] y) { y = MatMul(w, x) }", w=_normal(rng, 1, 3, 1)))
    assert ops(model) == ["Mul"]


@pytest.mark.parametrize("equation", ["bsk,kn->bsn", "bsk,nk->bsn", "...k,kn->...n"])
def test_einsum_that_is_a_linear(build: Build, same: Same, ops: Ops, rng: np.random.Generator, equation: str) -> None:
    shape = (5, 4) if ",nk" in equation else (4, 5)
    text = f'g (float[2,3,4] x) => (float[2,3,5] y) {{ y = Einsum<equation="{equation}">(x, w) }}'
    assert ops(same(build(text, w=_normal(rng, *shape)))) == ["MatMul"]


def test_einsum_that_sums_a_letter_of_its_own_is_a_reduction_and_a_linear(
    build: Build, same: Same, ops: Ops, rng: np.random.Generator
) -> None:
    text = 'g (float[2,4,4] x) => (float[2,4] y) { y = Einsum<equation="bkk,kn->bn">(x, w) }'
    proto = build(text, w=_normal(rng, 4, 4))
    proto.graph.node[0].attribute[0].s = b"bsk,kn->bn"
    assert ops(same(proto)) == ["Transpose", "ReduceSum", "MatMul"]


def _norm(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    return {name: _normal(rng, channels) for name in ("s", "t", "m")} | {"v": np.abs(_normal(rng, channels)) + 0.5}


@pytest.mark.parametrize("bias", ["", ", c"])
def test_batch_normalization_joins_the_conv(
    build: Build, same: Same, ops: Ops, rng: np.random.Generator, bias: str
) -> None:
    text = f"""g (float[1,4,6,6] x) => (float[1,8,4,4] y) {{
        a = Conv<group=2>(x, w{bias})  y = BatchNormalization<epsilon=1e-3>(a, s, t, m, v)
    }}"""
    weights = {"w": _normal(rng, 8, 2, 3, 3), **_norm(rng, 8)} | ({"c": _normal(rng, 8)} if bias else {})
    assert ops(same(build(text, **weights))) == ["Conv"]


def test_batch_normalization_after_a_shared_conv_stays_apart(
    build: Build, same: Same, ops: Ops, rng: np.random.Generator
) -> None:
    text = """g (float[1,4,6,6] x) => (float[1,8,4,4] y, float[1,8,4,4] z) {
        a = Conv(x, w)  y = BatchNormalization(a, s, t, m, v)  z = Relu(a)
    }"""
    model = same(build(text, w=_normal(rng, 8, 4, 3, 3), **_norm(rng, 8)))
    assert sorted(ops(model)) == ["Add", "Conv", "Mul", "Relu"]


def test_batch_normalization_of_an_input(build: Build, same: Same, ops: Ops, rng: np.random.Generator) -> None:
    text = "g (float[2,4,6] x) => (float[2,4,6] y) { y = BatchNormalization(x, s, t, m, v) }"
    assert ops(same(build(text, **_norm(rng, 4)))) == ["Mul", "Add"]


def test_zero_padding_joins_the_conv(build: Build, same: Same, ops: Ops, rng: np.random.Generator) -> None:
    text = """g (float[1,4,6,6] x) => (float[1,8,7,8] y) {
        p = Constant<value_ints=[0,0,1,2,0,0,2,1]>() a = Pad(x, p)  y = Conv<pads=[0,1,0,0]>(a, w)
    }"""
    proto = build(text, w=_normal(rng, 8, 4, 3, 3))
    assert ops(same(proto)) == ["Conv"]


@pytest.mark.parametrize(("pads", "expected"), [("0,0,1,1,0,1,1,1", "Pad"), ("0,0,-1,1,0,0,1,1", "Slice")])
def test_other_padding_stays(
    build: Build, same: Same, ops: Ops, rng: np.random.Generator, pads: str, expected: str
) -> None:
    channels, rows = (5, 8) if pads.startswith("0,0,1") else (4, 6)
    text = f"""g (float[1,4,6,6] x) => (float[1,8,{rows - 2},6] y) {{
        p = Constant<value_ints=[{pads}]>() a = Pad(x, p)  y = Conv(a, w)
    }}"""
    assert ops(same(build(text, w=_normal(rng, 8, channels, 3, 3)))) == [expected, "Conv"]


def test_dequantised_weights_stay_integers(build: Build, same: Same, ops: Ops, rng: np.random.Generator) -> None:
    text = "g (float[3,4] x) => (float[3,5] y) { w = DequantizeLinear<axis=1>(q, s) y = MatMul(x, w) }"
    codes = rng.integers(-128, 128, (4, 5)).astype(np.int8)
    model = same(build(text, q=codes, s=np.abs(_normal(rng, 5))))
    assert ops(model) == ["DequantizeLinear", "MatMul"]

"""Mixtures of experts: their weights stay constants, whatever chooses between them, and results stay what they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

import flexc
from flexc.frontend.edit import is_constant
from flexc.frontend.linears import find_linears
from flexc.frontend.load import load
from flexc.passes.session import Session

Array = npt.NDArray[Any]
Build = Callable[..., onnx.ModelProto]
Run = Callable[..., list[Any]]

#: name -> (graph, shapes of constants); i is an index below 3, k = 6, n = 5, three experts.
CHOICES: dict[str, tuple[str, tuple[int, ...]]] = {
    "rows of their own": (
        "g (float[4,1,1,6] x, int64[4,2] i) => (float[] y) { w = Gather(W, i)  y = MatMul(x, w) }",
        (3, 6, 5),
    ),
    "several rows each": (
        "g (float[4,2,6] x, int64[4] i) => (float[] y) { w = Gather(W, i)  y = MatMul(x, w) }",
        (3, 6, 5),
    ),
    "one for all": ("g (float[4,6] x, int64 i) => (float[] y) { w = Gather(W, i)  y = MatMul(x, w) }", (3, 6, 5)),
    "weights first": (
        "g (float[4,6,1] x, int64[4,1] i) => (float[] y) { w = GatherND(W, i)  y = MatMul(w, x) }",
        (3, 5, 6),
    ),
    "turned round": (
        """g (float[4,1,6] x, int32[4] i) => (float[] y) {
        w = Gather(W, i)  t = Transpose<perm=[0,2,1]>(w)  y = MatMul(x, t) }""",
        (3, 5, 6),
    ),
    "einsum": (
        'g (float[4,6] x, int64[4,2] i) => (float[] y) { w = Gather(W, i)  y = Einsum<equation="tk,tjkn->tjn">(x, w) }',
        (3, 6, 5),
    ),
    "einsum, rows and weights the other way": (
        'g (float[7,4,6] x, int64[4] i) => (float[] y) { w = Gather(W, i)  y = Einsum<equation="tnk,stk->nst">(w, x) }',
        (3, 5, 6),
    ),
}
#: name -> (graph, shape of the weights, how many linears).
STACKS: dict[str, tuple[str, tuple[int, ...], int]] = {
    "shared rows": ("g (float[4,6] x) => (float[] y) { y = MatMul(x, W) }", (3, 6, 5), 1),
    "shared rows of a batch": ("g (float[2,1,4,6] x) => (float[] y) { y = MatMul(x, W) }", (3, 6, 5), 1),
    "rows of a batch behind": ("g (float[1,2,4,6] x) => (float[] y) { y = MatMul(x, W) }", (3, 1, 6, 5), 1),
    "rows of their own": ("g (float[3,4,6] x) => (float[] y) { y = MatMul(x, W) }", (3, 6, 5), 3),
    "rows of their own in a batch": ("g (float[2,3,4,6] x) => (float[] y) { y = MatMul(x, W) }", (3, 6, 5), 3),
    "repeated rows": (
        "g (float[1,4,6] x) => (float[] y) <int64[3] s = {3,4,6}> { e = Expand(x, s)  y = MatMul(e, W) }",
        (3, 6, 5),
        1,
    ),
    "weights first": ("g (float[3,6,4] x) => (float[] y) { y = MatMul(W, x) }", (3, 5, 6), 3),
    "einsum": ('g (float[4,6] x) => (float[] y) { y = Einsum<equation="tk,ekn->ten">(x, W) }', (3, 6, 5), 1),
}


def weights(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def feeds(model: onnx.ModelProto) -> dict[str, Array]:
    rng, made = np.random.default_rng(1), {}
    for each in model.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type)
        shape = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
        made[each.name] = np.asarray(
            rng.integers(0, 3, shape) if kind.kind == "i" else rng.standard_normal(shape), kind
        )
    return made


def same(model: onnx.ModelProto, run: Run, given: Mapping[str, Array]) -> ir.Model:
    loaded = load(model)
    (result,) = Session(loaded).run(given).values()
    (expected,) = run(model, given)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    return loaded


def products(model: ir.Model) -> list[bool]:
    """Whether the weight is a matrix known at compile time, for every product."""
    found = [node.inputs[1] for node in model.graph if node.op_type == "MatMul"]
    return [is_constant(value) and value is not None and len(value.shape or ()) == 2 for value in found]


@pytest.mark.parametrize("choice", CHOICES)
def test_chosen_weights_stay_constant(choice: str, build: Build, run: Run) -> None:
    text, shape = CHOICES[choice]
    model = build(text, W=weights(shape))
    loaded = same(model, run, feeds(model))
    assert products(loaded) == [True]
    (linear,) = find_linears(loaded)
    assert (linear.k, linear.n) == (6, 15)


def test_an_index_below_zero_counts_from_the_end(build: Build, run: Run) -> None:
    model = build(CHOICES["several rows each"][0], W=weights((3, 6, 5)))
    given = feeds(model) | {"i": np.array([-1, 0, -3, 2])}
    same(model, run, given)


@pytest.mark.parametrize("stack", STACKS)
def test_stacked_weights_become_linears(stack: str, build: Build, run: Run) -> None:
    text, shape, count = STACKS[stack]
    model = build(text, W=weights(shape))
    loaded = same(model, run, feeds(model))
    assert products(loaded) == [True] * count


ROUTED = """g (float[4,8] x) => (float[4,8] y) <int64[1] two = {2}, int64[1] last = {-1}, int64[1] second = {1}> {
  r = MatMul(x, R)  p = Softmax(r)  v, i = TopK(p, two)
  u = Unsqueeze(x, axes)  w = Gather(A, i)  h = MatMul(u, w)  s = Relu(h)  b = Gather(B, i)  o = MatMul(s, b)
  q = Squeeze(o, third)  g = Unsqueeze(v, last)  m = Mul(q, g)  y = ReduceSum<keepdims = 0>(m, second)
}"""


def test_a_routed_layer_on_the_machine(build: Build) -> None:
    """Every expert is pruned and quantised; no product is left to the vector unit."""
    given = {"R": weights((8, 3)), "A": weights((3, 8, 16)), "B": weights((3, 16, 8))}
    model = build(ROUTED, axes=np.array([1, 2]), third=np.array([2]), **given)
    program = flexc.compile(model, prune="magnitude", nm="2:4")
    ops = program.image.debug.ops
    assert [op.nm for op in ops if op.engine == "array"] == ["2:4"] * 3
    assert not [op for op in ops if op.op_type == "MatMul"]
    verdict = program.check({"x": np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)})
    assert verdict.passed, verdict.line()
    assert verdict.array_ops == 3

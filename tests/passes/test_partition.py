"""Kernels: which nodes run together, where and why, and that every kernel finds what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from flexc.frontend.load import load
from flexc.passes.partition import Kernel, partition
from flexc.passes.quantise import quantise
from tests.backend.fuzz import KINDS
from tests.backend.graphs import random_draft
from tests.backend.models import parsed

ROW_BYTES = 256 * 1024 // 3


def kernels(text: str, row_bytes: int = ROW_BYTES, host: str = "", **constants: npt.NDArray[Any]) -> list[Kernel]:
    """Return the kernels of a graph; nodes of operator ``host`` are pinned there."""
    model = quantise(load(parsed(text, **constants)))
    return partition(model, row_bytes, lambda node: "you said so" if node.op_type == host else "")


def kinds(found: list[Kernel]) -> list[str]:
    return [kernel.kind for kernel in found]


def operators(kernel: Kernel) -> list[str]:
    return [node.op_type for node in kernel.nodes]


def weight(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_in_order(model: ir.Model, found: list[Kernel]) -> None:
    """Check that every node is in one kernel and reads only what there is by then."""
    there = {*model.graph.inputs, *model.graph.initializers.values()}
    for kernel in found:
        assert set(kernel.inputs()) <= there, f"{kernel.name} reads what a later kernel makes"
        for node in kernel.nodes:
            assert {value for value in node.inputs if value is not None} <= there
            there |= set(node.outputs)
    assert sorted(str(node.name) for kernel in found for node in kernel.nodes) == sorted(
        str(node.name) for node in model.graph
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("row_bytes", [64, ROW_BYTES])
def test_every_node_once_and_nothing_before_it_is_made(seed: int, kind: str, row_bytes: int) -> None:
    model = quantise(load(random_draft(seed, KINDS[kind], nodes=25).model()))
    assert_in_order(model, partition(model, row_bytes))


def test_a_chain_of_rows_is_one_kernel() -> None:
    (only,) = kernels("(float[4,6] x) => (float[] y) { a = Relu(x)  b = Softmax(a)  y = Mul(b, x) }")
    assert (only.kind, only.engine) == ("row", "vector")
    assert [str(value.name) for value in only.inputs()] == ["x"]
    assert [str(value.name) for value in only.outputs()] == ["y"]


def test_what_is_read_outside_leaves_a_kernel() -> None:
    first, *_ = kernels("(float[4,6] x) => (float[] y, float[] z) { a = Relu(x)  y = Neg(a)  z = Transpose(a) }")
    assert [str(value.name) for value in first.outputs()] == ["a", "y"]


def test_rows_of_another_shape_begin_a_kernel() -> None:
    found = kernels("(float[4,6] x, float[5,6] u) => (float[] y, float[] z) { y = Relu(x)  z = Relu(u) }")
    assert kinds(found) == ["row", "row"]


def test_views_come_first_so_that_kernels_stay_long() -> None:
    found = kernels("(float[4,6] x, float[6,4] u) => (float[] y) { a = Relu(x)  t = Transpose(u)  y = Add(a, t) }")
    assert kinds(found) == ["view", "row"]


def test_a_linear_takes_its_dequantisation_along() -> None:
    quantising, array = kernels(
        "(float[4,6] x) => (float[] y) { a = MatMul(x, w)  y = Add(a, b) }", w=weight(6, 8), b=weight(8)
    )
    assert quantising.kind == "row"
    assert operators(quantising)[-1] == "QuantizeLinear"
    assert operators(array) == ["MatMulInteger", "Cast", "Mul", "Mul", "Add"]


@pytest.mark.parametrize(
    ("shape", "taken"), [([2, 2, 8], True), ([4, 2, 4], True), ([32], False), ([8, 4], False), ([1, 4, 8], True)]
)
def test_a_reshape_across_the_columns_ends_the_chain(shape: list[int], taken: bool) -> None:
    found = kernels(
        "(float[4,6] x) => (float[] y) { a = MatMul(x, w)  y = Reshape(a, s) }",
        w=weight(6, 8),
        s=np.array(shape, np.int64),
    )
    assert kinds(found) == (["row", "linear"] if taken else ["row", "linear", "view"])


def test_a_result_that_is_also_an_output_ends_the_chain() -> None:
    found = kernels(
        "(float[4,6] x) => (float[] a, float[] y) { a = MatMul(x, w)  y = Add(a, b) }", w=weight(6, 8), b=weight(8)
    )
    assert kinds(found) == ["row", "linear", "row"]


def test_an_image_is_quantised_by_one_kernel() -> None:
    found = kernels("(float[1,3,5,5] x) => (float[] y) { y = Conv(x, w) }", w=weight(4, 3, 3, 3))
    assert kinds(found) == ["tensor_quantise", "view", "conv"]


def test_the_host_runs_what_has_no_lowering_or_breaks_a_rule_and_says_why() -> None:
    found = kernels(
        "(float[4,6] x) => (float[] y) <int64[1] a = {1}>"
        "{ b = Relu(x)  i = Cast<to = 6>(b)  c = ReduceMean(i, a)  d = Cast<to = 1>(c)  y = Mod<fmod = 1>(x, d) }"
    )
    assert kinds(found) == ["row", "host", "row", "host"]
    assert "ReduceMean: reduces float32, not INT32" in found[1].reason
    assert "Mod has no lowering to the machine" in found[3].reason


def test_a_node_that_the_user_pins_runs_on_the_host() -> None:
    found = kernels("(float[4,6] x) => (float[] y) { a = Relu(x)  b = Exp(a)  y = Neg(b) }", host="Exp")
    assert [(kernel.kind, kernel.reason) for kernel in found][1] == ("host", "you said so")
    assert kinds(found) == ["row", "host", "row"]


def test_host_nodes_join_only_when_all_they_read_is_there() -> None:
    found = kernels(
        "(float[4,6] x) => (float[] y) <float k = {2}>"
        "{ a = Mod<fmod = 1>(x, k)  b = Relu(a)  c = Mod<fmod = 1>(x, k)  d = Add(b, c)  y = Mod<fmod = 1>(d, a) }"
    )
    assert kinds(found) == ["host", "row", "host"]


def test_rows_that_are_too_long_go_to_the_host_unless_they_may_be_cut() -> None:
    wide = "(float[4,600] x) => (float[] y) {{ y = {}(x) }}"
    assert kinds(kernels(wide.format("Softmax"), row_bytes=20000)) == ["row"]
    (only,) = kernels(wide.format("Softmax"), row_bytes=2000)
    assert (only.kind, only.reason) == ("host", "Softmax: a row of 600 columns does not fit into the on-chip buffer")
    assert kinds(kernels(wide.format("Relu"), row_bytes=2000)) == ["row"]


def test_a_kernel_grows_only_as_wide_as_the_buffer() -> None:
    text = "(float[4,60] x) => (float[] y) { a = Relu(x)  b = Softmax(a)  c = Exp(b)  y = Softmax(c) }"
    assert kinds(kernels(text)) == ["row"]
    assert kinds(kernels(text, row_bytes=4 * 2 * 60 * 3)) == ["row", "row"]

"""Integer products whose sums are the result: random ones on small machines, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.backend.compare import assert_same, machine_of
from tests.backend.models import check, reasons

Array = npt.NDArray[Any]
TYPES: dict[Any, int] = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


def draw(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Array:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def rows(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    k, n = (int(rng.integers(1, most)) for most in (300, 90))
    x = (*(int(each) for each in rng.integers(1, 12, rng.integers(1, 3))), k)
    return x, (k, n), {}


def images(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    groups, own, each = (int(rng.integers(1, 4)) for _ in range(3))
    kernel = [int(size) for size in rng.integers(1, 4, 2)]
    pads = [int(size) for size in rng.integers(0, 2, 4)] if rng.random() < 0.7 else [0, 0, 0, 0]
    attributes = {"group": groups, "pads": pads, "strides": [int(size) for size in rng.integers(1, 3, 2)]}
    return (1, groups * own, 8, 7), (groups * each, own, *kernel), attributes


@pytest.mark.parametrize("seed", range(24))
def test_products_of_any_bytes(seed: int) -> None:
    """Of every type, with zero points known and made at run time, dense and sparse."""
    rng = np.random.default_rng(seed)
    x, w, attributes = (images if seed % 2 else rows)(rng)
    act, kind = (list(TYPES)[int(rng.integers(2))] for _ in range(2))
    weight, zero = draw(rng, kind, w), draw(rng, kind, ())
    if rng.random() < 0.5:
        weight = np.where(rng.random(w) < 0.15, weight, zero)
    known = rng.random() < 0.5
    op = "ConvInteger" if seed % 2 else "MatMulInteger"
    nodes = [helper.make_node(op, ["x", "w", "zx", "zw"], ["y"], **attributes)]
    inputs = [helper.make_tensor_value_info("x", TYPES[act], x)]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(zero, "zw")]
    if known:
        constants.append(numpy_helper.from_array(draw(rng, act, ()), "zx"))
    else:
        inputs.append(helper.make_tensor_value_info("zx", TYPES[act], []))
    out = [helper.make_tensor_value_info("y", TensorProto.INT32, None)]
    graph = helper.make_graph(nodes, "g", inputs, out, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    feeds = {"x": draw(rng, act, (2, *x)), "zx": draw(rng, act, (2,))}
    program = assert_same(model, machine_of(seed), feeds if not known else {"x": feeds["x"]})
    assert all(op.engine != "host" for op in program.debug.ops)


def test_padding_with_a_number_made_at_run_time() -> None:
    text = "(float[2,3] x) => (float[] y) <int64[4] p = {1,0,0,2}> { v = ReduceMax<keepdims=0>(x)  y = Pad(x, p, v) }"
    assert not reasons(check(text))

"""Convolutions and pools in all their forms, bit for bit as onnxruntime has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from flexc.isa.machine import Machine
from tests.backend.compare import small_machine
from tests.backend.models import check, engines, reasons

FORMS = {
    "plain": ("1,3,9,8", (5, 3, 3, 3), ""),
    "one by one": ("1,16,5,7", (40, 16, 1, 1), ""),
    "one by one, every other pixel": ("1,16,5,7", (8, 16, 1, 1), "strides = [2, 2]"),
    "strides": ("1,3,9,8", (5, 3, 3, 2), "strides = [2, 3]"),
    "dilations": ("1,3,9,8", (5, 3, 3, 2), "dilations = [2, 3]"),
    "asymmetric pads": ("1,3,9,8", (5, 3, 3, 3), "pads = [0, 1, 2, 0]"),
    "pads wider than the image": ("1,2,2,1", (3, 2, 3, 3), "pads = [2, 2, 2, 2]"),
    "same upper": ("1,3,9,8", (5, 3, 2, 4), 'auto_pad = "SAME_UPPER", strides = [2, 1]'),
    "same lower": ("1,3,9,8", (5, 3, 2, 4), 'auto_pad = "SAME_LOWER", strides = [2, 1]'),
    "valid": ("1,3,9,8", (5, 3, 2, 4), 'auto_pad = "VALID"'),
    "grouped": ("1,8,6,6", (12, 2, 3, 3), "group = 4, pads = [1, 1, 1, 1]"),
    "groups that fill macros": ("1,8,6,6", (64, 4, 3, 3), "group = 2"),
    "depthwise": ("1,40,6,6", (40, 1, 3, 3), "group = 40, pads = [1, 1, 1, 1]"),
    "depthwise, two filters each": ("1,16,6,6", (32, 1, 3, 3), "group = 16"),
    "signal": ("1,6,10", (9, 6, 4), "pads = [3, 0]"),
    "signal, strides and dilations": ("1,6,11", (9, 6, 3), "strides = [2], dilations = [2]"),
    "signal, depthwise": ("1,6,10", (6, 1, 4), "group = 6, pads = [3, 0]"),
    "a batch of three": ("3,3,9,8", (5, 3, 3, 3), "pads = [0, 1, 2, 0]"),
    "a batch of signals": ("2,6,10", (9, 6, 4), "pads = [3, 0]"),
    "a batch, depthwise": ("2,40,6,6", (40, 1, 3, 3), "group = 40, strides = [2, 2]"),
    "one pixel": ("1,4,3,3", (7, 4, 3, 3), ""),
}
MACHINES: dict[str, Machine | str] = {"edge": "edge", "resident": "resident", "small": small_machine(16, 2, 2)}


def weights(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("target", MACHINES)
@pytest.mark.parametrize("form", FORMS)
def test_convolutions(form: str, target: str) -> None:
    image, weight, attributes = FORMS[form]
    program = check(
        f"(float[{image}] x) => (float[] y) {{ y = Conv<{attributes}>(x, w, b) }}".replace("<>", ""),
        MACHINES[target],
        w=weights(weight),
        b=weights(weight[:1]),
    )
    assert "array" in engines(program)
    assert not reasons(program)


def test_an_image_that_comes_turned_round() -> None:
    program = check(
        "(float[1,7,6,3] x) => (float[] y) { t = Transpose<perm = [0, 3, 1, 2]>(x)  y = Conv(t, w) }",
        w=weights((5, 3, 3, 3)),
    )
    assert not reasons(program)


@pytest.mark.parametrize("shape", ["1,1,5,6", "1,4,1,6", "1,4,5,1", "1,1,1,1"])
def test_an_image_that_is_repeated(shape: str) -> None:
    program = check(
        f"(float[{shape}] x) => (float[] y) <int64[4] s = {{1, 4, 5, 6}}> {{ e = Expand(x, s)  y = Conv(e, w) }}",
        w=weights((5, 4, 2, 2)),
    )
    assert not reasons(program)


def test_convolutions_in_a_row_with_an_elementwise_operator_between() -> None:
    check(
        "(float[1,3,9,9] x) => (float[] y)"
        "{ a = Conv<pads = [1,1,1,1]>(x, w)  b = Relu(a)  c = Conv<strides = [2,2]>(b, u)  y = Add(c, c) }",
        w=weights((8, 3, 3, 3)),
        u=weights((4, 8, 3, 3)),
    )


def test_convolutions_of_one_image_that_need_different_borders() -> None:
    check(
        "(float[1,3,9,9] x) => (float[] a, float[] b, float[] c)"
        "{ a = Conv<pads = [1,1,1,1]>(x, w)  b = Conv<pads = [0,2,1,0]>(x, w)  c = Conv(x, w) }",
        w=weights((8, 3, 3, 3)),
    )


@pytest.mark.parametrize("shape", ["1,4,49", "4,7,7", "196", "1,1,28,7"])
def test_a_result_reshaped(shape: str) -> None:
    check(
        f"(float[1,3,9,9] x) => (float[] y) <int64[{shape.count(',') + 1}] shape = {{{shape}}}>"
        "{ a = Conv(x, w)  y = Reshape(a, shape) }",
        w=weights((4, 3, 3, 3)),
    )


def test_pixels_larger_than_the_buffer_go_to_the_host_with_a_reason() -> None:
    program = check(
        "(float[1,2048,2,2] x) => (float[] y) { y = Conv(x, w) }", small_machine(8, 1, 1), w=weights((4, 2048, 1, 1))
    )
    assert "bytes of buffer" in reasons(program)


def test_pieces_and_rows_of_the_image_count_on_different_levels() -> None:
    """Two parts, two pieces each, nine rows to gather: pieces on the rows' level took one slot twice running."""
    program = check(
        "(float[1,2,9,10] x) => (float[] y) { y = Conv<group = 2, pads = [0, 0, 1, 0]>(x, w) }",
        small_machine(16, 4, 1),
        w=weights((64, 1, 2, 1)),
    )
    assert not reasons(program)


POOLS = {
    "plain": ("1,3,9,8", "kernel_shape = [3, 3]"),
    "strides": ("1,3,9,8", "kernel_shape = [3, 2], strides = [2, 3]"),
    "pads": ("1,3,9,8", "kernel_shape = [3, 3], pads = [1, 0, 2, 1], strides = [2, 2]"),
    "dilations": ("1,3,9,8", "kernel_shape = [2, 3], dilations = [2, 2]"),
    "same upper": ("1,3,9,8", 'kernel_shape = [2, 3], auto_pad = "SAME_UPPER", strides = [2, 2]'),
    "same lower": ("1,3,9,8", 'kernel_shape = [2, 3], auto_pad = "SAME_LOWER", strides = [2, 2]'),
    "many channels": ("1,100,5,6", "kernel_shape = [2, 2]"),
}


@pytest.mark.parametrize("target", MACHINES)
@pytest.mark.parametrize("form", POOLS)
def test_max_pools(form: str, target: str) -> None:
    image, attributes = POOLS[form]
    program = check(f"(float[{image}] x) => (float[] y) {{ y = MaxPool<{attributes}>(x) }}", MACHINES[target])
    assert not reasons(program)


def test_a_pool_of_a_convolution() -> None:
    check(
        "(float[1,3,9,9] x) => (float[] y, float[] z)"
        "{ a = Conv(x, w)  y = MaxPool<kernel_shape = [2,2], strides = [2,2]>(a)  z = Conv(y, u) }",
        w=weights((6, 3, 2, 2)),
        u=weights((6, 6, 2, 2)),
    )


@pytest.mark.parametrize("shape", ["1,5,6,7", "2,5,6,7", "1,5,9", "1,1,1,1"])
def test_the_mean_of_an_image(shape: str) -> None:
    program = check(f"(float[{shape}] x) => (float[] y) {{ y = GlobalAveragePool(x) }}", exact=False)
    assert not reasons(program)

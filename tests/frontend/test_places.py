"""Rules whose operands are made at run time (weights, places, lengths): right numbers, all of them on the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import flexc
from tests.frontend.conftest import _run as run

Array = npt.NDArray[Any]
RNG = np.random.default_rng(11)


def floats(*shape: int, scale: float = 1.0) -> Array:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def whole(dtype: Any, low: int, high: int, *shape: int) -> Array:
    return RNG.integers(low, high, shape).astype(dtype)


GRID = "(float[2,3,5,4] x, float[2,6,3,2] g) => (float[] y)"
#: Places within the image, on its border and far beyond.
PLACES = floats(2, 6, 3, 2, scale=1.3)
PLACES[0, 0] = [[-1, 1], [1.0, -1.0], [0.0, 3.7]]
IMAGE = floats(2, 3, 5, 4)
SIGNED, BYTES = whole(np.int8, -128, 128, 3, 5), whole(np.uint8, 0, 256, 3, 5)
SAMPLED = [
    ("nearest", "zeros", 0), ("nearest", "reflection", 1), ("linear", "zeros", 0), ("linear", "border", 1),
    ("linear", "reflection", 0), ("cubic", "zeros", 1), ("cubic", "border", 0), ("cubic", "reflection", 1),
]  # fmt: skip
#: Name -> (graph, operands); those of a graph without types of float are compared exactly.
FORMS: dict[str, tuple[str, list[Array]]] = {
    **{
        f"sampled {mode} {padding} {align}": (
            f'{GRID} {{ y = GridSample<mode = "{mode}", padding_mode = "{padding}", align_corners = {align}>(x, g) }}',
            [IMAGE, PLACES],
        )
        for mode, padding, align in SAMPLED
    },
    "sampled in space": (
        "(float[1,2,3,4,5] x, float[1,2,3,2,3] g) => (float[] y) { y = GridSample(x, g) }",
        [floats(1, 2, 3, 4, 5), floats(1, 2, 3, 2, 3, scale=0.8)],
    ),
    "a grid": (
        "(float[2,2,3] t) => (float[] y) <int64[4] s = {2,3,4,5}> { y = AffineGrid<align_corners = 1>(t, s) }",
        [floats(2, 2, 3)],
    ),
    "a grid in space": (
        "(float[2,3,4] t) => (float[] y) <int64[5] s = {2,3,4,5,2}> { y = AffineGrid(t, s) }",
        [floats(2, 3, 4)],
    ),
    "convolved with what is made": (
        ("(float[2,4,7,6] x, float[6,2,3,2] w, float[6] b) => (float[] y) { y = Conv<group = 2, strides = [2,1],"
        " pads = [1,0,2,1], dilations = [1,2]>(x, w, b) }"),
        [floats(2, 4, 7, 6), floats(6, 2, 3, 2), floats(6)],
    ),
    "a signal, same length": (
        '(float[1,3,9] x, float[5,3,4] w) => (float[] y) { y = Conv<auto_pad = "SAME_LOWER">(x, w) }',
        [floats(1, 3, 9), floats(5, 3, 4)],
    ),
    "transposed with what is made": (
        ("(float[1,4,3,5] x, float[4,3,3,2] w, float[6] b) => (float[] y) { y = ConvTranspose<group = 2,"
        " strides = [2,3], pads = [1,0,0,1], output_padding = [1,2], dilations = [2,1]>(x, w, b) }"),
        [floats(1, 4, 3, 5), floats(4, 3, 3, 2), floats(6)],
    ),
    "convolved in space by groups": (
        ("(float[2,4,5,6,5] x, float[6] b) => (float[] y)"
        " { y = Conv<group = 2, strides = [2,1,2], pads = [1,0,1,1,2,0], dilations = [1,2,1]>(x, w, b) }"),
        [floats(2, 4, 5, 6, 5), floats(6)],
    ),
    "transposed, with a bias that is made": (
        "(float[1,4,3,5] x, float[3] b) => (float[] y) { y = ConvTranspose<strides = [2,2]>(x, v, b) }",
        [floats(1, 4, 3, 5), floats(3)],
    ),
    "deformed, with a weight that is made": (
        ("(float[2,4,6,5] x, float[6,2,3,2] w, float[2,24,3,5] o, float[6] b, float[2,12,3,5] m) => (float[] y)"
        " { y = DeformConv<group = 2, offset_group = 2, strides = [2,1], pads = [1,0,1,1]>(x, w, o, b, m) }"),
        [floats(2, 4, 6, 5), floats(6, 2, 3, 2), floats(2, 24, 3, 5), floats(6), floats(2, 12, 3, 5)],
    ),
    "deformed": (
        "(float[1,4,6,5] x, float[1,18,6,5] o) => (float[] y) { y = DeformConv<pads = [1,1,1,1]>(x, d, o) }",
        [floats(1, 4, 6, 5), floats(1, 18, 6, 5)],
    ),
    "determinants": (
        "(float[2,3,4,4] x, float[1,1] z) => (float[] y, float[] w) { y = Det(x)  w = Det(z) }",
        [floats(2, 3, 4, 4), floats(1, 1)],
    ),
    "bits of long numbers": (
        ("(int64[3,5] a, int32[3,5] b) => (int64[] y, int64[] z, int32[] w) <int64 m = {1837}, int32 n = {7}>"
        " { y = BitwiseAnd(a, m)  z = BitwiseOr(a, m)  w = BitwiseXor(b, n) }"),
        [whole(np.int64, -(2**40), 2**40, 3, 5), whole(np.int32, -5000, 5000, 3, 5)],
    ),
    "columns to an image": (
        ("(float[2,12,16] x) => (float[] y) <int64[2] s = {6,5}, int64[2] k = {2,3}>"
        " { y = Col2Im<strides = [2,1], pads = [1,0,1,1], dilations = [1,1]>(x, s, k) }"),
        [floats(2, 12, 16)],
    ),
    "where the greatest are": (
        ("(float[2,3,7,6] x) => (float[] y, int64[] i) { y, i = MaxPool<kernel_shape = [3,2], strides = [2,2],"
        " pads = [1,0,1,1]>(x) }"),
        [floats(2, 3, 7, 6)],
    ),
    "by columns, rounded up": (
        ("(float[1,2,7,6] x) => (float[] y, int64[] i) { y, i = MaxPool<kernel_shape = [2,2], strides = [2,2],"
        " ceil_mode = 1, storage_order = 1>(x) }"),
        [floats(1, 2, 7, 6)],
    ),
    "and back": (
        ("(float[2,3,6,8] x) => (float[] y) { v, i = MaxPool<kernel_shape = [2,2], strides = [2,2]>(x)  w = Exp(v)"
        "  y = MaxUnpool<kernel_shape = [2,2], strides = [2,2]>(w, i) }"),
        [floats(2, 3, 6, 8)],
    ),
    **{
        f"rows scattered, {name}": (
            ("(float[5,4] x, int64[2,3,1] i, float[2,3,4] u) => (float[] y)"
            f' {{ y = ScatterND<reduction = "{name}">(x, i, u) }}'),
            [floats(5, 4), np.array([0, 3, 3, -1, 0, 2]).reshape(2, 3, 1), floats(2, 3, 4)],
        )
        for name in ("add", "mul", "max", "min")
    },
    "elements scattered": (
        '(float[4,5] x, int64[3,5] i, float[3,5] u) => (float[] y) { y = ScatterElements<reduction = "add">(x, i, u) }',
        [floats(4, 5), whole(np.int64, -4, 4, 3, 5), floats(3, 5)],
    ),
    "sequences turned round": (
        "(float[6,3,2] x, int64[3] n) => (float[] y) { y = ReverseSequence(x, n) }",
        [floats(6, 3, 2), np.array([6, 1, 4])],
    ),
    "sequences turned round, batch first": (
        "(float[3,5,2] x, int64[3] n) => (float[] y) { y = ReverseSequence<time_axis = 1, batch_axis = 0>(x, n) }",
        [floats(3, 5, 2), np.array([2, 0, 5])],
    ),
    "by a constant condition": (
        ("(float[3,4] x) => (float[] y, float[] z) <bool[4] c = {0,1,0,1}> { y = Compress<axis = 1>(x, c)"
        "  z = Compress(x, c) }"),
        [floats(3, 4)],
    ),
    "arithmetic of bytes": (
        ("(uint8[3,5] a, uint8[3,5] b) => (uint8[] y, uint8[] z, bool[] w) { c = Add(a, b)  d = Mul(a, b)"
        "  e = Sub(c, d)  y = Max(e, b)  z = Min(e, a)  w = Less(a, b) }"),
        [BYTES, whole(np.uint8, 0, 256, 3, 5)],
    ),
    "arithmetic of signed bytes": (
        ("(int8[3,5] a, int8[3,5] b) => (int8[] y, int8[] z, int8[] w) { c = Add(a, b)  y = Div(c, b)  z = Mod(a, b)"
        "  w = Abs(c) }"),
        [SIGNED, whole(np.int8, 1, 100, 3, 5)],
    ),
    "the greatest bytes": (
        ("(uint8[3,5] a, bool[3,5] t) => (uint8[] y, int64[] z, bool[] w) <int64[1] d = {1}> { y = ReduceMax(a, d)"
        "  z = ArgMax<axis = 1>(a)  w = ReduceMin(t, d) }"),
        [BYTES, BYTES > 30],
    ),
    "bits": (
        ("(uint8[3,5] a, uint8[3,5] b) => (uint8[] y, uint8[] z, uint8[] w, uint8[] v) { y = BitwiseAnd(a, b)"
        "  c = BitwiseOr(a, b)  z = BitwiseXor(c, a)  w = BitwiseNot(a)  v = BitShift<direction = \"RIGHT\">(a, s) }"),
        [BYTES, whole(np.uint8, 0, 256, 3, 5)],
    ),
}  # fmt: skip
CONSTANTS = {
    "bits": {"s": np.array([[0, 1, 4, 7, 3]], np.uint8)},
    "convolved in space by groups": {"w": floats(6, 2, 3, 2, 3)},
    "deformed": {"d": floats(3, 4, 3, 3)},
    "transposed, with a bias that is made": {"v": floats(4, 3, 2, 3)},
}


def model(name: str, opset: int) -> onnx.ModelProto:
    text, _ = FORMS[name]
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}')
    held = CONSTANTS.get(name, {})
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, key) for key, array in held.items())
    return proto


@pytest.mark.parametrize("name", FORMS)
def test_the_machine_gives_what_onnxruntime_does(name: str) -> None:
    proto = model(name, 20)
    given = dict(zip([value.name for value in proto.graph.input], FORMS[name][1], strict=True))
    program = flexc.compile(proto)
    assert not [op.reason for op in program.image.debug.ops if op.engine == "host"]
    made = program.run(given).outputs.values()
    if any(op.engine == "array" for op in program.image.debug.ops):
        assert program.check(given, proto).passed
        return
    for got, expected in zip(made, run(proto, given), strict=True):
        if expected.dtype == np.float32:
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("reverse", "exclusive"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_running_products(reverse: int, exclusive: int) -> None:
    """Onnxruntime has no kernel for it yet."""
    text = (
        "g (float[3,7,2] x) => (float[3,7,2] y) <int64 a = {1}>"
        f" {{ y = CumProd<reverse = {reverse}, exclusive = {exclusive}>(x, a) }}"
    )
    proto = onnx.parser.parse_model(f'<ir_version: 12, opset_import: ["": 26]> {text}')
    x = floats(3, 7, 2)
    results: Any = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(flexc.compile(proto).run({"x": x}).outputs["y"], results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_long_numbers_shifted_by_a_constant(direction: str) -> None:
    """Onnxruntime shifts unsigned numbers only."""
    text = f'g (int64[5] x) => (int64[5] y) <int64 s = {{3}}> {{ y = BitShift<direction = "{direction}">(x, s) }}'
    proto = onnx.parser.parse_model(f'<ir_version: 13, opset_import: ["": 28]> {text}')
    x = np.array([0, 7, -7, 2**40 + 9, -(2**40) - 9])
    expected = x << 3 if direction == "LEFT" else x >> 3
    np.testing.assert_array_equal(flexc.compile(proto).run({"x": x}).outputs["y"], expected)


def test_unpooling_to_another_size_is_refused() -> None:
    text = (
        "(float[1,1,2,2] x, int64[1,1,2,2] i) => (float[1,1,5,5] y) <int64[4] s = {1,1,5,5}>"
        " { y = MaxUnpool<kernel_shape = [2,2], strides = [2,2]>(x, i, s) }"
    )
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    with pytest.raises(flexc.FlexcError, match=r"is not the .* that windows of"):
        flexc.compile(proto)

"""Every vector instruction and every move against numpy, in all the types it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flexc.emulator.run import run
from flexc.emulator.values import HANDLERS
from flexc.isa.encoding import instr
from flexc.isa.fields import Value
from flexc.isa.instruction import Instr
from flexc.isa.table import TABLE
from tests.emulator import programs as p

Values = npt.NDArray[Any]
NAMES = {np.dtype(np.float32): "f32", np.dtype(np.int32): "i32", np.dtype(np.int64): "i64", np.dtype(np.bool_): "b8"}
NAMES |= {np.dtype(np.int8): "i8", np.dtype(np.uint8): "u8"}
SPECIAL = np.array([0.0, -0.0, 1.0, -2.5, 0.5, 1.5, np.inf, -np.inf, np.nan, 3e38, 1e-40, -7.25], np.float32)


def execute(mnemonic: str, out: str, shape: tuple[int, int], operands: dict[str, Values], **fields: Value) -> Values:
    """Run one instruction on [windows, rows, cols] operands and return its result."""
    code: list[Instr] = [p.stream(0, "buf", out, 0, *shape), p.stream(63, "dram", out, 0, *shape)]
    inputs, feeds = [], {}
    for number, (name, value) in enumerate(operands.items(), start=1):
        dtype = NAMES[value.dtype]
        inputs.append(p.tensor(name, dtype, value.shape[1:], number * 0x2000))
        feeds[name] = value
        code.append(p.stream(number, "dram", dtype, number * 0x2000, *value.shape[1:]))
        fields[name] = number
    code += [instr(mnemonic, dst=0, **fields), instr("copy", dst=63, src=0, channel=0)]
    program = p.program(code, inputs=inputs, outputs=[p.tensor("y", out, shape, 0)])
    return run(program, feeds)["y"]


def same(result: Values, expected: Values) -> None:
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def test_every_instruction_has_a_function() -> None:
    assert set(HANDLERS) == {each.mnemonic for each in TABLE if each.queued}


BINARY: list[tuple[str, Callable[[Any, Any], Any], str]] = [
    ("vadd", np.add, "f32"),
    ("vsub", np.subtract, "f32"),
    ("vmul", np.multiply, "f32"),
    ("vdiv", np.divide, "f32"),
    ("vmax", np.maximum, "f32"),
    ("vmin", np.minimum, "f32"),
    ("vpow", np.power, "f32"),
    ("veq", np.equal, "b8"),
    ("vlt", np.less, "b8"),
    ("vle", np.less_equal, "b8"),
]


@pytest.mark.parametrize(("mnemonic", "function", "out"), BINARY)
@pytest.mark.parametrize("other", [(4, 6), (1, 6), (4, 1), (1, 1)])
def test_binary_of_reals(mnemonic: str, function: Callable[[Any, Any], Any], out: str, other: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    a = rng.choice(SPECIAL, (2, 4, 6))
    b = rng.choice(SPECIAL, (2, *other))
    with np.errstate(all="ignore"):
        same(execute(mnemonic, out, (4, 6), {"a": a, "b": b}), function(a, b))
        same(execute(mnemonic, out, (4, 6), {"a": a}, imm=0.5), function(a, np.float32(0.5)))
        same(execute(mnemonic, out, (4, 6), {"a": a}, imm=0.5, swap=1), function(np.float32(0.5), a))


@pytest.mark.parametrize(("mnemonic", "function", "out"), [row for row in BINARY if row[0] not in ("vdiv", "vpow")])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_binary_of_whole_numbers(mnemonic: str, function: Callable[[Any, Any], Any], out: str, dtype: type) -> None:
    a, b = np.random.default_rng(2).integers(-(2**31), 2**31, (2, 2, 3, 5)).astype(dtype)
    out = NAMES[np.dtype(dtype)] if out == "f32" else out
    same(execute(mnemonic, out, (3, 5), {"a": a, "b": b}), function(a, b))


def test_whole_numbers_divide_towards_zero() -> None:
    a = np.array([[[7, -7, 7, -7, 5]]], np.int64)
    b = np.array([[[2, 2, -2, -2, 0]]], np.int64)
    assert execute("vdiv", "i64", (1, 5), {"a": a, "b": b}).tolist() == [[[3, -3, -3, 3, 0]]]


def test_square_is_a_product_and_powers_of_whole_numbers_work() -> None:
    a = np.random.default_rng(3).standard_normal((1, 3, 7)).astype(np.float32)
    same(execute("vpow", "f32", (3, 7), {"a": a}, imm=2.0), a * a)
    whole = np.arange(-3, 3, dtype=np.int32).reshape(1, 2, 3)
    same(execute("vpow", "i32", (2, 3), {"a": whole}, imm=3.0), whole**3)


@pytest.mark.parametrize(
    ("mnemonic", "function"), [("vand", np.logical_and), ("vor", np.logical_or), ("vxor", np.not_equal)]
)
def test_truth(mnemonic: str, function: Callable[[Any, Any], Any]) -> None:
    a = np.array([[[False, False, True, True]]])
    b = np.array([[[False, True, False, True]]])
    same(execute(mnemonic, "b8", (1, 4), {"a": a, "b": b}), function(a, b))
    same(execute("vnot", "b8", (1, 4), {"a": a}), ~a)


UNARY: list[tuple[str, Callable[[Any], Any]]] = [
    ("vmov", np.positive),
    ("vabs", np.abs),
    ("vneg", np.negative),
    ("vsqrt", np.sqrt),
    ("vrecip", lambda a: np.float32(1) / a),
    ("vexp", np.exp),
    ("vlog", np.log),
    ("vtanh", np.tanh),
    ("vfloor", np.floor),
    ("vceil", np.ceil),
    ("vround", np.rint),
    ("vsin", np.sin),
    ("vcos", np.cos),
    ("vsign", np.sign),
]


@pytest.mark.parametrize(("mnemonic", "function"), UNARY)
def test_unary(mnemonic: str, function: Callable[[Any], Any]) -> None:
    a = np.random.default_rng(4).permutation(np.tile(SPECIAL, 4)).reshape(2, 4, 6)
    with np.errstate(all="ignore"):
        same(execute(mnemonic, "f32", (4, 6), {"a": a}), function(a))


def test_isnan() -> None:
    same(execute("visnan", "b8", (1, 12), {"a": SPECIAL.reshape(1, 1, 12)}), np.isnan(SPECIAL).reshape(1, 1, 12))


def test_erf_is_within_a_unit_in_the_last_place() -> None:
    rng = np.random.default_rng(5)
    a = np.concatenate([rng.uniform(-5, 5, 1500), rng.uniform(-1, 1, 400) * 1e-3, rng.uniform(-1, 1, 136) * 1e-38])
    a = np.concatenate([a, SPECIAL]).astype(np.float32).reshape(1, 8, 256)
    result = execute("verf", "f32", (8, 256), {"a": a})
    expected = np.array([math.erf(x) for x in a.ravel().tolist()]).reshape(a.shape)
    units = np.abs(result - expected) / np.spacing(np.abs(expected).astype(np.float32))
    assert np.nanmax(units) < 0.51
    assert np.array_equal(np.isnan(result), np.isnan(a))
    assert np.array_equal(np.signbit(result), np.signbit(a))


def test_sigmoid_is_stable() -> None:
    a = np.concatenate([np.linspace(-100, 100, 500), [np.inf, -np.inf, np.nan, 0.0]]).astype(np.float32)
    result = execute("vsigmoid", "f32", (1, 504), {"a": a.reshape(1, 1, 504)})[0, 0]
    expected = np.where(a > 0, 1 / (1 + np.exp(-np.abs(a.astype(np.float64)))), 0.0)
    small = np.exp(-np.abs(a.astype(np.float64)))
    expected = np.where(a > 0, expected, small / (1 + small))
    assert np.isnan(result[502])
    assert np.allclose(np.delete(result, 502), np.delete(expected, 502), rtol=4e-7, atol=1e-44)


def test_conversions_saturate_towards_zero() -> None:
    a = np.array([[[2.9, -2.9, 3e9, -3e9, np.nan, np.inf, 0.5]]], np.float32)
    top, bottom = 2**31 - 1, -(2**31)
    assert execute("vmov", "i32", (1, 7), {"a": a}).tolist() == [[[2, -2, top, bottom, 0, top, 0]]]
    assert execute("vmov", "b8", (1, 7), {"a": a}).tolist() == [[[True] * 7]]
    wide = np.array([[[2**63, -(2.0**64), -(2**63), np.nan, 5.5]]], np.float32)
    assert execute("vmov", "i64", (1, 5), {"a": wide}).tolist() == [[[2**63 - 1, -(2**63), -(2**63), 0, 5]]]
    assert execute("vmov", "i32", (1, 2), {"a": np.array([[[2**32 + 5, -1]]])}).tolist() == [[[5, -1]]]
    assert execute("vmov", "f32", (1, 2), {"a": np.array([[[True, False]]])}).tolist() == [[[1.0, 0.0]]]
    assert execute("vfill", "i32", (1, 2), {}, imm=-7.9).tolist() == [[[-7, -7]]]


@pytest.mark.parametrize(
    ("mnemonic", "function"), [("vrsum", np.sum), ("vrmax", np.max), ("vrmin", np.min), ("vrprod", np.prod)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_reductions(mnemonic: str, function: Callable[..., Any], dtype: type) -> None:
    a: Values = (np.random.default_rng(6).standard_normal((2, 3, 50)) * 3).astype(dtype)
    same(execute(mnemonic, NAMES[np.dtype(dtype)], (3, 1), {"a": a}), function(a, axis=2, keepdims=True))


def test_selection_takes_streams_or_the_immediate() -> None:
    rng = np.random.default_rng(7)
    c = rng.random((2, 3, 4)) < 0.5
    a, b = rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
    same(execute("vsel", "f32", (3, 4), {"c": c, "a": a, "b": b}), np.where(c, a, b))
    same(
        execute("vsel", "f32", (3, 4), {"c": c[:, :1], "b": b}, imm=-np.inf), np.where(c[:, :1], np.float32(-np.inf), b)
    )


@pytest.mark.parametrize("out", ["i8", "u8"])
def test_quantise(out: str) -> None:
    rng = np.random.default_rng(8)
    a = (rng.standard_normal((2, 4, 9)) * 100).astype(np.float32)
    a[0, 0, :4] = [np.nan, np.inf, -np.inf, 1e30]
    a[0, 1, :3] = [0.5, 1.5, 2.5]
    scale = np.array([[[1.0], [1.0], [0.3], [7.0]]] * 2, np.float32)
    zero = np.array([[[3]]] * 2, np.int8 if out == "i8" else np.uint8)
    limits = np.iinfo(zero.dtype)
    expected = np.clip(np.nan_to_num(np.rint(a / scale) + 3, posinf=1e9, neginf=-1e9), limits.min, limits.max)
    expected[np.isnan(a)] = limits.min
    same(execute("quant", out, (4, 9), {"a": a, "scale": scale, "zero": zero}), expected.astype(zero.dtype))


@pytest.mark.parametrize("biased", [True, False])
def test_dequantise_rounds_each_step(biased: bool) -> None:
    rng = np.random.default_rng(9)
    acc = rng.integers(-(2**30), 2**30, (2, 4, 6)).astype(np.int32)
    sx, sw = rng.random((2, 4, 1)).astype(np.float32), rng.random((2, 1, 6)).astype(np.float32)
    bias = rng.standard_normal((2, 1, 6)).astype(np.float32)
    expected = (acc.astype(np.float32) * sx) * sw
    operands = {"acc": acc, "sx": sx, "sw": sw}
    if biased:
        expected, operands = expected + bias, operands | {"bias": bias}
    same(execute("dequant", "f32", (4, 6), operands), expected)


def test_gather_wraps_then_clamps() -> None:
    table = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    index = np.array([[[0], [-1], [9], [-9]], [[4], [2], [1], [0]]], np.int64)
    result = execute("gather", "f32", (4, 3), {"table": table, "index": index}, channel=0)
    same(result, np.stack([table[0, [0, 4, 4, 0]], table[1, [4, 2, 1, 0]]]))


def test_matrix_product() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.standard_normal((2, 4, 6)).astype(np.float32), rng.standard_normal((2, 6, 5)).astype(np.float32)
    same(execute("vmm", "f32", (4, 5), {"a": a, "b": b}), a @ b)


def test_copy_repeats_and_may_overlap() -> None:
    row = np.arange(4, dtype=np.int32).reshape(1, 1, 4)
    same(execute("copy", "i32", (3, 4), {"src": row}, channel=1), np.repeat(row, 3, axis=1))
    code = [
        p.stream(0, "dram", "f32", 0, 3, 4),
        p.stream(1, "dram", "i32", 16, 3, 4),  # one row further on, and another type of the same size
        instr("copy", dst=1, src=0, channel=0),
    ]
    tensor = p.tensor("x", "f32", (4, 4), 0)
    x = np.random.default_rng(11).standard_normal((1, 4, 4)).astype(np.float32)
    same(run(p.program(code, inputs=[tensor], outputs=[tensor]), {"x": x})["x"], x[:, [0, 0, 1, 2]])


def test_transposed_streams() -> None:
    code = [
        p.stream(0, "dram", "f32", 0, 4, 3),
        instr("pitch", stream=0, row=4, col=16),
        p.stream(1, "dram", "f32", 256, 4, 3),
        instr("copy", dst=1, src=0, channel=0),
    ]
    inputs, outputs = [p.tensor("x", "f32", (3, 4), 0)], [p.tensor("y", "f32", (4, 3), 256)]
    x = np.random.default_rng(12).standard_normal((2, 3, 4)).astype(np.float32)
    same(run(p.program(code, inputs=inputs, outputs=outputs), {"x": x})["y"], x.transpose(0, 2, 1))


def test_scatter_wraps_clamps_and_keeps_the_rest() -> None:
    src = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3) + 1
    index = np.array([[[0], [-1], [9], [2]], [[1], [1], [-9], [2]]], np.int64)
    result = execute("scatter", "f32", (5, 3), {"src": src, "index": index}, channel=0)
    expected = np.zeros((2, 5, 3), np.float32)
    expected[0, [0, 4, 2]] = src[0, [0, 2, 3]]  # rows 4 and 9 are one place: the later write stays
    expected[1, [1, 0, 2]] = src[1, [1, 2, 3]]
    same(result, expected)

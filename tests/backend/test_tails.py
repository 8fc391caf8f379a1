"""Row work in the kernels of array operations: the same values bit for bit as in kernels of its own; when it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flexc.backend.fusion import Fusion
from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.frontend.load import load
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from flexc.isa.verifier import verify
from flexc.passes.product_cost import place_products
from flexc.passes.quantise import quantise
from flexc.passes.tails import Split
from tests.backend.compare import small_machine
from tests.backend.models import parsed, random_feeds

Array = npt.NDArray[Any]

#: Graphs by what follows a linear [k, n] with ``m`` vectors; w, v: weights, b: [n], r: [m, n], g: [n], s: a scale.
LINEARS = {
    "relu": "y = Relu(z)",
    "gelu": "y = Gelu(z)",
    "clip": "y = Clip(z, lo, hi)",
    "erf": "a = Erf(z)  c = Add(a, one)  d = Mul(c, z)  y = Mul(d, half)",
    "silu": "a = Sigmoid(z)  y = Mul(a, z)",
    "gate": "u = MatMul(x, v)  a = Sigmoid(u)  c = Mul(a, u)  y = Mul(c, z)",
    "gate with a bias": "t = MatMul(x, v)  u = Add(t, b)  a = Sigmoid(u)  y = Mul(a, z)",
    "gate and quantise": "u = MatMul(x, v)  a = Gelu(u)  c = Mul(a, z)  y = MatMul(c, q)",
    "two gates": "u = MatMul(x, v)  t = MatMul(x, o)  a = Sigmoid(u)  c = Tanh(t)  d = Mul(a, c)  y = Add(d, z)",
    "gate and softmax": "u = MatMul(x, v)  a = Mul(u, z)  y = Softmax(a)",
    "halves": "e, f = Split<axis = 1, num_outputs = 2>(z)  a = Sigmoid(f)  y = Mul(a, e)",
    "view between": "a = Relu(z)  c = Reshape(a, one_more)  y = Neg(c)",
    "residual": "y = Add(z, r)",
    "two results": "y = Relu(z)  t = Add(y, r)",
    "by row": "y = Mul(z, col)",
    "by column": "y = Mul(z, b)",
    "static quantise": "a = Relu(z)  y = QuantizeLinear(a, s, zero)",
    "norm": "a = Add(z, r)  y = LayerNormalization<axis = -1>(a, b, g)",
    "softmax": "y = Softmax(z)",
    "norm and quantise": "a = Add(z, r)  c = LayerNormalization<axis = -1>(a, b)  y = MatMul(c, q)",
    "rows of heads": "a = Reshape(z, heads)  c = Transpose<perm = [1, 0, 2]>(a)  y = Softmax(c)",
    "halves of heads": (
        "a = Reshape(z, heads)  c = Transpose<perm = [1, 0, 2]>(a)  d, e = Split<axis = 2, num_outputs = 2>(c)"
        "f = Neg(e)  h = Concat<axis = 2>(f, d)  y = Mul(h, rope)"
    ),
}
#: Vectors, K, N: one vector, vectors that divide into nothing, N of several macros.
SIZES = ((1, 8, 32), (7, 40, 64), (197, 130, 192))


def linear(form: str, m: int, k: int, n: int) -> tuple[str, dict[str, Array]]:
    """Return the graph of a linear and what follows it, and its constants."""
    rng = np.random.default_rng(m + n)
    outputs = "y, float[] t" if form == "two results" else "y"
    kind = "int8[]" if form == "static quantise" else "float[]"
    text = f"(float[{m},{k}] x, float[{m},{n}] r, float[{m},1] col) => ({kind} {outputs})"
    text += f"{{ z = MatMul(x, w)  {LINEARS[form]} }}"
    numbers = {"w": (k, n), "v": (k, n), "o": (k, n), "b": (n,), "g": (n,), "q": (n, 32), "rope": (m, 16)}
    constants: dict[str, Array] = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in numbers.items() if name in _names(form)
    }
    for name, number in {"one": 1.0, "half": 0.5, "lo": -1.0, "hi": 2.5, "s": 0.05}.items():
        constants[name] = np.array(number, np.float32)
    shapes = {"heads": np.array([m, n // 16, 16]), "one_more": np.array([1, m, n])}
    return text, constants | shapes | {"zero": np.array(0, np.int8)}


def _names(form: str) -> set[str]:
    words = LINEARS[form].replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {"w", *words}


CONVOLUTIONS = {
    "relu": "(float[2,3,9,7] x) => (float[] y) { z = Conv(x, w, b)  y = Relu(z) }",
    "sum": "(float[1,3,9,7] x) => (float[] y) { u = Conv(x, w)  z = Conv(x, w, b)  a = Add(z, u)  y = Relu(a) }",
    "parts": "(float[1,64,6,6] x) => (float[] y) { z = Conv<group = 64>(x, d)  y = HardSwish(z) }",
    "signal": "(float[1,3,20] x) => (float[] y) { z = Conv(x, e)  y = Tanh(z) }",
    "halves": (
        "(float[2,3,9,7] x) => (float[] y)"
        "{ z = Conv(x, w, b)  p, q = Split<axis = 1, num_outputs = 2>(z)  a = Sigmoid(q)  y = Mul(a, p) }"
    ),
    "halves of many": (
        "(float[1,8,6,5] x) => (float[] y)"
        "{ z = Conv(x, h)  p, q = Split<axis = 1, num_outputs = 2>(z)  a = Sigmoid(q)  y = Mul(a, p) }"
    ),
    "pointwise norm": (
        "(float[2,3,4,5] x) => (float[] y)"
        "{ z = Conv(x, f)  a = Transpose<perm = [0, 2, 3, 1]>(z)  y = LayerNormalization<axis = -1>(a, s, b) }"
    ),
}
WEIGHTS = {"w": (8, 3, 3, 3), "b": (8,), "s": (8,), "d": (64, 1, 3, 3), "e": (8, 3, 3), "f": (8, 3, 1, 1)}
WEIGHTS |= {"h": (320, 8, 3, 3)}

#: Sums that are not scaled as quantisation of this compiler does it: what follows reads them as integers.
SUMS = {
    "convolution": (
        "(int8[2,3,9,7] x) => (int8[] y) { z = ConvInteger(x, c)  i = Add(z, bias)  f = Cast<to = 1>(i)"
        "d = Mul(f, by)  y = QuantizeLinear(d, s, zero) }"
    ),
    "linear": (
        "(int8[67,40] x) => (int8[] y) { z = MatMulInteger(x, m)  f = Cast<to = 1>(z)  r = Relu(f)"
        "y = QuantizeLinear(r, s, zero) }"
    ),
}
INTEGERS: dict[str, Array] = {
    "c": np.arange(-108, 108, dtype=np.int8).reshape(8, 3, 3, 3),
    "bias": np.arange(8, dtype=np.int32).reshape(8, 1, 1),
    "by": np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(8, 1, 1),
    "s": np.array(7.5, np.float32),
    "zero": np.array(3, np.int8),
    "m": (np.arange(40 * 64) % 251 - 125).astype(np.int8).reshape(40, 64),
}

PRODUCTS = {
    "softmax": "(float[2,3,20,16] a, float[2,3,16,32] b) => (float[] y) { z = MatMul(a, b)  y = Softmax(z) }",
    "mask": (
        "(float[3,70,16] a, float[3,16,32] b, float[1,70,32] mask) => (float[] y)"
        "{ z = MatMul(a, b)  s = Add(z, mask)  y = Softmax(s) }"
    ),
    "scaled": "(float[2,40,16] a, float[2,16,160] b) => (float[] y) { z = MatMul(a, b)  y = Tanh(z) }",
    "one row": "(float[4,1,16] a, float[4,16,32] b) => (float[] y) { z = MatMul(a, b)  y = Softmax(z) }",
}


class Forced:
    """Takes every tail that can be, by pieces or by whole rows, whatever it costs; or none."""

    def __init__(self, wanted: str) -> None:
        self.wanted, self.taken = wanted, 0

    def __call__(self, fusion: Fusion, splits: Sequence[Split]) -> Split | None:
        for split in splits:
            tail = split.kernel.tail
            assert tail is not None
            cycles = fusion._cycles(split.kernel, split.rest)
            if self.wanted == ("rows" if tail.whole else "pieces") and cycles < math.inf:
                self.taken += 1
                return split
        return None


def run(text: str, constants: dict[str, Array], machine: Machine, wanted: str, monkeypatch: Any) -> tuple[Any, int]:
    """Return the results of a graph with row work where it is wanted, and how many tails there are."""
    choice = Forced(wanted)
    monkeypatch.setattr(Fusion, "_best", lambda fusion, splits, limit: choice(fusion, splits))
    model = parsed(text, **constants)
    graph = quantise(load(model))
    place_products(graph, machine, lambda _node: "array")
    program = lower(graph, machine)
    problems = verify(program)
    assert not problems, [str(each) for each in problems[:3]]
    assert time_program(program) == time_program(program, jump=False)
    return Executor(program).run(random_feeds(model)), choice.taken


def assert_alike(text: str, constants: dict[str, Array], machine: Machine, monkeypatch: Any) -> int:
    """Compare the results of a graph with tails of either kind to those without; return how many tails there were."""
    apart, _ = run(text, constants, machine, "none", monkeypatch)
    taken = 0
    for wanted in ("pieces", "rows"):
        results, count = run(text, constants, machine, wanted, monkeypatch)
        taken += count
        for name, expected in apart.items():
            np.testing.assert_array_equal(results[name], expected, err_msg=f"{name} by {wanted}")
    return taken


@pytest.mark.parametrize("form", LINEARS)
def test_after_linears(form: str, monkeypatch: Any) -> None:
    for place, size in enumerate(SIZES):
        text, constants = linear(form, *size)
        machine = (small_machine(64, 4, 1), load_machine("resident"), small_machine(64, 2, 2))[place % 3]
        assert assert_alike(text, constants, machine, monkeypatch)


@pytest.mark.parametrize("form", CONVOLUTIONS)
@pytest.mark.parametrize("target", ["edge", "resident"])
def test_after_convolutions(form: str, target: str, monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    assert assert_alike(CONVOLUTIONS[form], constants, load_machine(target), monkeypatch)


@pytest.mark.parametrize(
    "body",
    [
        "p = Slice(z, i0, i1, i1)  y = Mul(z, p)",
        "p = Slice(z, i0, i32, i1)  q = Slice(z, i16, i48, i1)  y = Mul(p, q)",
        "p = Slice(z, i0, i48, i1)  q = Slice(z, i16, i64, i1)  y = Mul(p, q)",
    ],
    ids=["a column", "overlapping parts", "parts that do not divide them"],
)
def test_what_pieces_of_the_results_do_not_hold_is_left_alone(body: str, monkeypatch: Any) -> None:
    """A piece has the same columns of every branch; the branches are equal parts of the results, side by side."""
    weight = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    places = {f"i{place}": np.array([place]) for place in (0, 1, 16, 32, 48, 64)}
    text = f"(float[7,40] x) => (float[] y) {{ z = MatMul(x, w)  {body} }}"
    assert not assert_alike(text, {"w": weight, **places}, load_machine("edge"), monkeypatch)


def test_halves_of_a_product_of_activations_are_left_alone(monkeypatch: Any) -> None:
    text = "(float[2,40,16] a, float[2,16,160] b) => (float[] y)"
    text += "{ z = MatMul(a, b)  p, q = Split<axis = 2, num_outputs = 2>(z)  y = Mul(p, q) }"
    assert not assert_alike(text, {}, small_machine(64, 4, 1), monkeypatch)


@pytest.mark.parametrize("form", SUMS)
@pytest.mark.parametrize("target", ["edge", "resident"])
def test_after_raw_sums(form: str, target: str, monkeypatch: Any) -> None:
    assert assert_alike(SUMS[form], INTEGERS, load_machine(target), monkeypatch)


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("size", [(64, 4, 1), (64, 8, 0)], ids=str)
def test_after_products_of_activations(form: str, size: tuple[int, int, int], monkeypatch: Any) -> None:
    assert assert_alike(PRODUCTS[form], {}, small_machine(*size), monkeypatch)


def compiled(text: str, target: str, **constants: Array) -> Program:
    graph = quantise(load(parsed(text, **constants)))
    return lower(graph, load_machine(target))


def test_every_value_of_a_tail_can_be_seen() -> None:
    """What never leaves the buffer is compared node by node too."""
    text, constants = linear("norm", 256, 16, 64)
    program = compiled(text, "edge", **constants)
    (op,) = [each for each in program.debug.ops if each.engine == "array"]
    assert op.nodes[-op.tail :] == ("Add", "LayerNormalization")
    assert {"z", "a", "y"} <= {tap.value for tap in program.debug.taps if op.first <= tap.pc < op.last}


def test_a_tail_is_taken_where_it_is_faster_and_left_where_it_is_not() -> None:
    """Whole rows in the buffer may mean that weights come again for every few of them: free only where they stay."""
    text, constants = linear("norm", 256, 16, 64)
    assert [op.tail for op in compiled(text, "edge", **constants).debug.ops] == [0, 2]
    text, constants = linear("norm", 256, 1024, 512)
    (*_, last) = compiled(text, "edge", **constants).debug.ops
    assert (last.engine, last.tail) == ("vector", 0)
    (*_, last) = compiled(text, "resident", **constants).debug.ops
    assert (last.engine, last.tail) == ("array", 2)

"""Small mixtures of experts in the forms that exporters write, and what they mean with a limited capacity.

A router scores three experts for every row of x [8, 6], the best two work on it: Relu(x A + a) B + b, times the score.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ROWS, WIDTH, HIDDEN, EXPERTS, CHOICES = 8, 6, 5, 3, 2
PAIRS = ROWS * CHOICES

_ROUTER = """r = MatMul(x, R)  p = Softmax(r)  v, i = TopK(p, two)"""


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {
        "R": (WIDTH, EXPERTS),
        "A": (EXPERTS, WIDTH, HIDDEN),
        "a": (EXPERTS, HIDDEN),
        "B": (EXPERTS, HIDDEN, WIDTH),
        "b": (EXPERTS, WIDTH),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _one_hot(expert: int) -> str:
    return f"m{expert} = Gather(o, e{expert})"


def _loop(mask: Callable[[int], str], take: str, put: str, before: str = "") -> str:
    """Return an unrolled loop over experts; # stands for the number of one."""
    body = """
      {mask}  z# = NonZero(m#)  {take}
      g# = MatMul(h#, A#)  c# = Add(g#, a#)  s# = Relu(c#)  d# = MatMul(s#, B#)  f# = Add(d#, b#)  u# = Mul(f#, w#)
      {put}
    """
    turns = (body.format(mask=mask(e), take=take, put=put).replace("#", str(e)) for e in range(EXPERTS))
    last = [turn.replace("@", str(number)) for number, turn in enumerate(turns)]
    return _ROUTER + before + "".join(last) + f"y = Identity(y{EXPERTS})"


def _groups() -> str:
    """Return rows sorted by expert, multiplied group by group, and back in order."""
    text = """ f = Reshape(i, flat)  F, n = TopK<largest = 0>(f, many)  t = Div(n, couple)  X = Gather(x, t)
        c = Unsqueeze(F, one)  m = Equal(c, numbers)  M = Cast<to = 7>(m)  o = ReduceSum<keepdims = 0>(M, zero)
        C = CumSum(o, none)  E0, E1, E2 = Split<axis = 0, num_outputs = 3>(C)
        r0 = Squeeze(E0, zero)  r1 = Squeeze(E1, zero)  r2 = Squeeze(E2, zero)
        R0 = Range(none, r0, unit)  R1 = Range(r0, r1, unit)  R2 = Range(r1, r2, unit) """
    product = """ I@0 = Gather(?, R0)  I@1 = Gather(?, R1)  I@2 = Gather(?, R2)
        O@0 = MatMul(I@0, @0)  O@1 = MatMul(I@1, @1)  O@2 = MatMul(I@2, @2)  G@ = Concat<axis = 0>(O@0, O@1, O@2) """
    first = product.replace("@", "A").replace("?", "X") + " k = Gather(a, F)  d = Add(GA, k)  s = Relu(d) "
    second = product.replace("@", "B").replace("?", "s") + " l = Gather(b, F)  e = Add(GB, l) "
    back = """ V = Reshape(v, flat)  w = Gather(V, n)  W = Unsqueeze(w, one)  u = Mul(e, W)
        N = ScatterElements(every, n, every)  S = Gather(u, N)  Y = Reshape(S, back)
        y = ReduceSum<keepdims = 0>(Y, one) """
    return _ROUTER + text + first + second + back


_HOT = """ q = OneHot<axis = -1>(i, three, offon)  o = Transpose<perm = [2, 1, 0]>(q) """
_BY_ROWS = """ q = OneHot<axis = -1>(i, three, offon)  o = Transpose<perm = [2, 0, 1]>(q) """

#: name -> (graph, how many rows come first in the order of pairs: the second choices behind all first ones, or not).
FORMS: dict[str, tuple[str, bool]] = {
    "weights gathered": (
        _ROUTER
        + """ f = Reshape(i, flat)  X = Unsqueeze(x, one)  Y = Expand(X, twice)  Z = Reshape(Y, pairs)
        W = Gather(A, f)  k = Gather(a, f)  V = Gather(B, f)  l = Gather(b, f)
        g = MatMul(Z, W)  h = Squeeze(g, one)  c = Add(h, k)  s = Relu(c)  t = Unsqueeze(s, one)  d = MatMul(t, V)
        e = Squeeze(d, one)  n = Add(e, l)  j = Reshape(v, column)  u = Mul(n, j)  w = Reshape(u, back)
        y = ReduceSum<keepdims = 0>(w, one)""",
        False,
    ),
    "weights first": (
        _ROUTER
        + """ f = Reshape(i, flat)  X = Unsqueeze(x, one)  Y = Expand(X, twice)  Z = Reshape(Y, columns)
        F = Unsqueeze(f, one)  W = GatherND(At, F)  k = Gather(a, f)  V = GatherND(Bt, F)  l = Gather(b, f)
        g = MatMul(W, Z)  h = Squeeze(g, last)  c = Add(h, k)  s = Relu(c)  t = Unsqueeze(s, last)  d = MatMul(V, t)
        e = Squeeze(d, last)  n = Add(e, l)  j = Reshape(v, column)  u = Mul(n, j)  w = Reshape(u, back)
        y = ReduceSum<keepdims = 0>(w, one)""",
        False,
    ),
    "einsum": (
        _ROUTER
        + """ W = Gather(A, i)  k = Gather(a, i)  V = Gather(B, i)  l = Gather(b, i)
        g = Einsum<equation = "tk,tjkn->tjn">(x, W)  c = Add(g, k)  s = Relu(c)
        d = Einsum<equation = "tjk,tjkn->tjn">(s, V)  n = Add(d, l)  j = Unsqueeze(v, last)  u = Mul(n, j)
        y = ReduceSum<keepdims = 0>(u, one)""",
        False,
    ),
    "groups of sorted rows": (_groups(), False),
    "loop over a one-hot mask": (
        _loop(
            _one_hot,
            """j#, t# = Split<axis = 0, num_outputs = 2>(z#)  k# = Squeeze(t#, zero)  h# = Gather(x, k#)
            p# = Transpose<perm = [1, 0]>(v)  n# = Transpose<perm = [1, 0]>(z#)  q# = GatherND(p#, n#)
            w# = Unsqueeze(q#, one)""",
            """H# = Unsqueeze(k#, one)  S# = Shape(u#)  I# = Expand(H#, S#)
            y%# = ScatterElements<axis = 0, reduction = "add">(y@, I#, u#)""",
            _HOT,
        ),
        True,
    ),
    "loop with rows first": (
        _loop(
            _one_hot,
            """n# = Transpose<perm = [1, 0]>(z#)  t# = Slice(n#, zero, one, one)  h# = GatherND(x, t#)
            q# = GatherND(v, n#)  w# = Unsqueeze(q#, one)""",
            """y%# = ScatterND<reduction = "add">(y@, t#, u#)""",
            _BY_ROWS,
        ),
        False,
    ),
    "loop of sums into zeros": (
        _loop(
            _one_hot,
            """n# = Transpose<perm = [1, 0]>(z#)  t# = Slice(n#, zero, one, one)  k# = Squeeze(t#, one)
            h# = Gather(x, k#)  q# = GatherND(v, n#)  w# = Unsqueeze(q#, one)""",
            """H# = Unsqueeze(k#, one)  S# = Shape(u#)  I# = Expand(H#, S#)
            N# = ScatterElements<axis = 0>(y0, I#, u#)  y%# = Add(y@, N#)""",
            _BY_ROWS,
        ),
        False,
    ),
    "loop over equal numbers": (
        _loop(
            lambda expert: f"m{expert} = Equal(i, e{expert})",
            """n# = Transpose<perm = [1, 0]>(z#)  t# = Slice(n#, zero, one, one)  k# = Squeeze(t#, one)
            h# = Gather(x, k#)  q# = GatherND(v, n#)  w# = Unsqueeze(q#, one)""",
            """o# = Gather(y@, k#)  N# = Add(o#, u#)  y%# = ScatterND(y@, t#, N#)""",
        ),
        False,
    ),
}


def graph(form: str) -> tuple[str, dict[str, Array]]:
    """Return the text of a form and its constants."""
    text, _ = FORMS[form]
    for expert in range(EXPERTS):
        text = text.replace(f"y%{expert}", f"y{expert + 1}")
    known = weights()
    constants = {name: known[name] for name in ("R",)}
    for expert in range(EXPERTS):
        constants |= {f"{name}{expert}": known[name][expert] for name in ("A", "a", "B", "b")}
        constants[f"e{expert}"] = np.array(expert, np.int64)
    constants |= {name: known[name] for name in ("A", "a", "B", "b")}
    constants |= {"At": known["A"].swapaxes(1, 2), "Bt": known["B"].swapaxes(1, 2)}
    numbers = {
        "two": [CHOICES], "three": [EXPERTS], "offon": [0, 1], "zero": [0], "one": [1], "last": [-1], "flat": [-1],
        "twice": [1, CHOICES, 1], "pairs": [PAIRS, 1, WIDTH], "columns": [PAIRS, WIDTH, 1], "column": [-1, 1],
        "back": [ROWS, CHOICES, WIDTH], "many": [PAIRS], "numbers": list(range(EXPERTS)),
        "every": list(range(PAIRS)),
    }  # fmt: skip
    constants |= {name: np.array(each, np.int64) for name, each in numbers.items()}
    constants |= {name: np.array(each, np.int64) for name, each in (("couple", CHOICES), ("none", 0), ("unit", 1))}
    constants["y0"] = np.zeros((ROWS, WIDTH), np.float32)
    used = {name: array for name, array in constants.items() if _uses(text, name)}
    return f"g (float[{ROWS},{WIDTH}] x) => (float[{ROWS},{WIDTH}] y) {{ {text} }}", used


def _uses(text: str, name: str) -> bool:
    return re.search(rf"[(,]\s*{name}\s*[,)]", text) is not None


def expected(form: str, x: Array, capacity: int) -> tuple[Array, int]:
    """Return the result where every expert takes the first ``capacity`` of its pairs only, and how many are dropped."""
    _, choices_first = FORMS[form]
    known, result, dropped = weights(), np.zeros((ROWS, WIDTH)), 0
    scores = np.exp(x @ known["R"])
    scores /= scores.sum(axis=1, keepdims=True)
    index = np.argsort(-scores, axis=1, kind="stable")[:, :CHOICES]
    taken = np.zeros(EXPERTS, np.int64)
    pairs = [(row, choice) for row in range(ROWS) for choice in range(CHOICES)]
    for row, choice in sorted(pairs, key=lambda pair: pair[::-1]) if choices_first else pairs:
        expert = index[row, choice]
        taken[expert] += 1
        if taken[expert] > capacity:
            dropped += 1
            continue
        hidden = np.maximum(x[row] @ known["A"][expert] + known["a"][expert], 0)
        result[row] += scores[row, expert] * (hidden @ known["B"][expert] + known["b"][expert])
    return result, dropped

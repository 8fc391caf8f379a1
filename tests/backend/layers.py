"""Networks of like layers, written as text: residual blocks whose weights are all different."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tests.backend.models import Array, parsed

#: A residual block in the ways of networks: normalised, a gated product, added to what came in.
BLOCK = (
    "s{t} = Mul({h}, {h})  v{t} = ReduceMean<keepdims = 1>(s{t}, last)  q{t} = Sqrt(v{t})"
    "  n{t} = Div({h}, q{t})  g{t} = MatMul(n{t}, a{t})  u{t} = MatMul(n{t}, b{t})  r{t} = Sigmoid(g{t})"
    "  p{t} = Mul(r{t}, u{t})  d{t} = MatMul(p{t}, c{t})  h{t} = Add({h}, d{t})"
)


def stacked(layers: int, width: int, hidden: int, rows: int = 8, seed: int = 0) -> onnx.ModelProto:
    """Return a network of so many layers behind a linear."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (width, hidden), "b": (width, hidden), "c": (hidden, width)}
    weights: dict[str, Array] = {
        f"{name}{layer}": rng.standard_normal(shape).astype(np.float32) / 8
        for layer in range(layers)
        for name, shape in shapes.items()
    }
    weights["e"] = rng.standard_normal((16, width)).astype(np.float32)
    head = f"(float[{rows},16] x) => (float[{rows},{width}] h{layers - 1}) <int64[1] last = {{1}}>"
    return parsed(f"{head} {{ h = MatMul(x, e)  {text_of([BLOCK] * layers)} }}", **weights)


def recurrent(layers: int, length: int, width: int, rows: int = 3, seed: int = 0) -> onnx.ModelProto:
    """Return so many LSTM layers, each over the sequence that the one before makes."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {
        f"{name}{layer}": rng.standard_normal((1, 4 * width, width)).astype(np.float32) / 4
        for layer in range(layers)
        for name in "wr"
    }
    block = f"y{{t}} = LSTM<hidden_size = {width}>({{h}}, w{{t}}, r{{t}})  h{{t}} = Squeeze(y{{t}}, one)"
    head = f"(float[{length},{rows},{width}] h) => (float[] h{layers - 1}) <int64[1] one = {{1}}>"
    return parsed(f"{head} {{ {text_of([block] * layers)} }}", **weights)


def text_of(blocks: Sequence[str]) -> str:
    """Return blocks one after the other, each reading what the one before makes, the first ``h``."""
    return "  ".join(block.format(t=place, h=f"h{place - 1}" if place else "h") for place, block in enumerate(blocks))

"""LSTM, GRU and RNN become products and elementwise nodes that give onnxruntime's values for the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from flexc.frontend.load import load
from flexc.frontend.recurrent import GATES
from flexc.passes.session import Session
from tests.frontend.loop_models import Array, one_node, random
from tests.frontend.test_unroll import ops, unrolled

TURNS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 4


def layer(kind: str, sides: int, extra: tuple[str, ...] = (), **attributes: Any) -> tuple[Any, dict[str, Array]]:
    """Return a model of one layer with constant weights, and data; ``extra`` names what else it reads."""
    gates = GATES[kind]
    data = {"X": random(TURNS, BATCH, INPUTS)}
    constants = {"W": random(sides, gates * HIDDEN, INPUTS, seed=1), "R": random(sides, gates * HIDDEN, HIDDEN, seed=2)}
    optional = {
        "B": random(sides, 2 * gates * HIDDEN, seed=3),
        "lengths": np.full(BATCH, TURNS, np.int32),
        "h": random(sides, BATCH, HIDDEN, seed=4),
        "c": random(sides, BATCH, HIDDEN, seed=5),
        "P": random(sides, 3 * HIDDEN, seed=6),
    }
    names = ["B", "lengths", "h", *(["c", "P"] if kind == "LSTM" else [])]
    constants.update({name: optional[name] for name in extra if name in ("B", "lengths", "P")})
    data.update({name: optional[name] for name in extra if name in ("h", "c")})
    inputs = ["X", "W", "R", *(name if name in extra else "" for name in names)]
    outputs = ["Y", "last", *(["cell"] if kind == "LSTM" else [])]
    node = helper.make_node(kind, inputs, outputs, hidden_size=HIDDEN, **attributes)
    return one_node(node, data, constants), data


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_directions(kind: str, direction: str) -> None:
    model, data = layer(kind, 2 if direction == "bidirectional" else 1, ("B", "h", "c"), direction=direction)
    assert kind not in ops(unrolled(model, data))


@pytest.mark.parametrize(
    ("kind", "extra", "attributes"),
    [
        ("LSTM", (), {}),
        ("LSTM", ("B", "h", "c", "P", "lengths"), {}),
        ("LSTM", ("B",), {"activations": ["Sigmoid", "Relu", "Tanh"]}),
        ("GRU", (), {}),
        ("GRU", ("B", "h"), {"linear_before_reset": 1}),
        ("GRU", ("h",), {"linear_before_reset": 1}),
        ("RNN", ("B", "lengths"), {"activations": ["Relu"]}),
    ],
)
def test_variants(kind: str, extra: tuple[str, ...], attributes: dict[str, Any]) -> None:
    model, data = layer(kind, 1, extra, **attributes)
    assert kind not in ops(unrolled(model, data))


@pytest.mark.parametrize("kind", GATES)
def test_batch_first(kind: str) -> None:
    """onnxruntime knows no layout 1: compare with layout 0 of the turned data."""
    plain, data = layer(kind, 1, ("B", "h"))
    turned, _ = layer(kind, 1, ("B", "h"))
    turned.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    axes = {"X": (1, 0, 2), "h": (1, 0, 2)}
    for info in turned.graph.input:
        dims = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for dim, axis in zip(info.type.tensor_type.shape.dim, axes[info.name], strict=True):
            dim.dim_value = dims[axis]
    for info in turned.graph.output:
        info.type.tensor_type.ClearField("shape")
    expected = Session(load(plain)).run(data)
    found = Session(load(turned)).run({name: array.transpose(axes[name]) for name, array in data.items()})
    np.testing.assert_allclose(found["Y"].transpose(1, 2, 0, 3), expected["Y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["last"].transpose(1, 0, 2), expected["last"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "attributes", [{"clip": 0.5}, {"input_forget": 1}, {"activations": ["HardSigmoid", "Tanh", "Tanh"]}]
)
def test_what_is_not_covered_stays(attributes: dict[str, Any]) -> None:
    model, data = layer("LSTM", 1, ("B",), **attributes)
    assert "LSTM" in ops(unrolled(model, data))

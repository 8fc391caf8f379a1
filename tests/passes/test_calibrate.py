"""Calibration statistics against sums computed in numpy from the tensors themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from flexc.frontend.linears import find_linears
from flexc.isa.errors import FlexcError
from flexc.passes.calibrate import calibrate, input_specs
from flexc.passes.convolution import conv_shape
from flexc.passes.feeds import Feeds, InputSpec, windows
from flexc.passes.session import Session

ModelMaker = Callable[..., ir.Model]


def token_feeds(model: ir.Model, folder: Path, count: int) -> Feeds:
    np.save(folder / "tokens.npy", np.random.default_rng(0).integers(0, 50, count * 12).astype(np.uint16))
    return windows(input_specs(model), folder / "tokens.npy")


def test_input_specs_know_the_vocabulary(language_model: ModelMaker) -> None:
    (spec,) = input_specs(language_model())
    assert spec == InputSpec("tokens", np.dtype(np.int64), (1, 12), 50)


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_linears_see_the_sums_of_their_inputs(language_model: ModelMaker, tmp_path: Path, opset: int) -> None:
    model = language_model(opset)
    feeds = token_feeds(model, tmp_path, 5)
    statistics = calibrate(model, feeds, samples=3)
    table = model.graph.initializers["table"].const_value
    assert table is not None
    seen = np.concatenate([table.numpy()[feed["tokens"][0]] for feed in feeds.first(3)])
    assert statistics.windows == 3
    np.testing.assert_allclose(statistics.square_sums["up"], np.square(seen).sum(axis=0, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(statistics.square_sums["up"], statistics.square_sums["gate"])
    np.testing.assert_allclose(statistics.norms("up")[0], np.linalg.norm(seen, axis=0), rtol=1e-6)
    assert {name: sums.shape for name, sums in statistics.square_sums.items()} == {
        "up": (1, 37), "gate": (1, 37), "down": (1, 24), "logits": (1, 37),
    }  # fmt: skip


def test_calibration_leaves_the_model_alone_and_repeats(language_model: ModelMaker, tmp_path: Path) -> None:
    model = language_model()
    feeds = token_feeds(model, tmp_path, 4)
    before = [node.name for node in model.graph]
    first, second = calibrate(model, feeds), calibrate(model, feeds, linears=["up"])
    assert [node.name for node in model.graph] == before
    assert first.windows == 4
    assert list(second.square_sums) == ["up"]
    np.testing.assert_array_equal(first.square_sums["up"], second.square_sums["up"])


def lowered_squares(node: ir.Node, image: NDArray[Any]) -> NDArray[np.float64]:
    """Sum x**2 for each (group, kh, kw, c) by walking over every output position."""
    conv = conv_shape(node)
    pads = list(zip(conv.pads[: len(conv.sizes)], conv.pads[len(conv.sizes) :], strict=True))
    padded = np.pad(image.astype(np.float64), [(0, 0), (0, 0), *pads])
    sums = np.zeros((conv.channels, *conv.kernel))
    for position in np.ndindex(*conv.output):
        for tap in np.ndindex(*conv.kernel):
            at = zip(position, tap, conv.strides, conv.dilations, strict=True)
            index = tuple(out * stride + kernel * dilation for out, kernel, stride, dilation in at)
            sums[(slice(None), *tap)] += np.square(padded[(slice(None), slice(None), *index)]).sum(axis=0)
    grouped = sums.reshape(conv.groups, -1, *conv.kernel)
    return np.moveaxis(grouped, 1, -1).reshape(conv.groups, -1)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1]},
        {"strides": [2, 3], "pads": [1, 1, 1, 1]},
        {"dilations": [2, 1], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"group": 2, "batch": 3},
        {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 1]},
    ],
    ids=str,
)
def test_convolutions_see_the_sums_of_every_kernel_position(
    conv_model: ModelMaker, tmp_path: Path, attributes: dict[str, Any]
) -> None:
    check_convolution(conv_model(**attributes), tmp_path)


def test_a_depthwise_convolution_in_one_dimension(conv1d_model: ModelMaker, tmp_path: Path) -> None:
    check_convolution(conv1d_model(), tmp_path)


def check_convolution(model: ir.Model, folder: Path) -> None:
    (spec,) = input_specs(model)
    images = np.random.default_rng(5).standard_normal((2, *spec.shape)).astype(np.float32)
    np.save(folder / "x.npy", images)
    statistics = calibrate(model, windows([spec], folder / "x.npy"))
    (linear,) = find_linears(model)
    expected = sum(lowered_squares(linear.node, image) for image in images)
    assert statistics.square_sums["conv"].shape == (linear.groups, linear.k)
    np.testing.assert_allclose(statistics.square_sums["conv"], expected, rtol=2e-6)


def test_activations_that_overflow_are_refused(language_model: ModelMaker, tmp_path: Path) -> None:
    model = language_model()
    table = model.graph.initializers["table"]
    assert table.const_value is not None
    table.const_value = ir.tensor(table.const_value.numpy() * np.float32(1e30), name="table")
    with pytest.raises(FlexcError, match="calibration window 0: the input of 'up' is not finite"):
        calibrate(model, token_feeds(model, tmp_path, 1))


def test_sessions_report_in_one_line(language_model: ModelMaker) -> None:
    session = Session(language_model())
    with pytest.raises(FlexcError, match="cannot run the graph"):
        session.run({})
    with pytest.raises(FlexcError, match="cannot run the graph"):
        session.run({"tokens": np.zeros((1, 5), np.int64)})

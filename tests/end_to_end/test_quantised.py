"""What onnxruntime's quantiser makes of small models runs on the machine as it comes, with onnxruntime's results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

import flexc
from tests.end_to_end.models import MODELS

Array = npt.NDArray[Any]
#: name -> (calibrated before, types of weights and activations are unsigned, one scale a column, QDQ).
WAYS = {
    "dynamic, signed": (False, False, False, False, False),
    "dynamic, unsigned, per channel": (False, True, True, True, False),
    "QDQ": (True, False, True, False, True),
    "QDQ, signed, per channel": (True, False, False, True, True),
    "QDQ, unsigned": (True, True, True, False, True),
    "QOperator": (True, False, True, False, False),
    "QOperator, unsigned": (True, True, True, False, False),
}


def feeds(model: Path, number: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(number)
    made = []
    for _ in range(number):
        feed: dict[str, Array] = {}
        for each in onnx.load(model).graph.input:
            shape = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
            whole = each.type.tensor_type.elem_type == onnx.TensorProto.INT64
            feed[each.name] = rng.integers(0, 48, shape) if whole else rng.standard_normal(shape).astype(np.float32)
        made.append(feed)
    return made


def quantised(name: str, way: str, folder: Path) -> Path:
    """Quantise a model as that is done in practice; seven bits, so that no processor's kernels saturate."""
    from onnxruntime import quantization as tool

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, Array]] = iter(feeds(source, 4))

        def get_next(self) -> dict[str, Array] | None:
            return next(self.feeds, None)

    static, weights, acts, per_channel, qdq = WAYS[way]
    source, target = folder / "float.onnx", folder / "quantised.onnx"
    onnx.save(MODELS[name](), source)
    types = {True: tool.QuantType.QUInt8, False: tool.QuantType.QInt8}
    common = {"weight_type": types[weights], "per_channel": per_channel, "reduce_range": True}
    if not static:
        tool.quantize_dynamic(source, target, **common)
        return target
    form = tool.QuantFormat.QDQ if qdq else tool.QuantFormat.QOperator
    tool.quantize_static(source, target, Reader(), quant_format=form, activation_type=types[acts], **common)
    return target


def by_onnxruntime(model: Path, feed: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    result: Array = session.run(None, feed)[0]
    return result


CASES = [*(("image", way) for way in WAYS), ("decoder", "dynamic, unsigned, per channel"), ("decoder", "QDQ")]


@pytest.mark.parametrize(("name", "way"), [*CASES, ("decoder", "QOperator, unsigned")])
@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_runs_as_it_comes(name: str, way: str, tmp_path: Path) -> None:
    model = quantised(name, way, tmp_path)
    program = flexc.compile(model)
    assert all(op.engine != "host" for op in program.image.debug.ops), [op.reason for op in program.image.debug.ops]
    (feed,) = feeds(model, 1)
    verdict = program.check(feed, model)
    assert verdict.passed, verdict.line()
    assert verdict.array_ops >= {"decoder": 6, "image": 4}[name]
    result = next(iter(program.run(feed).outputs.values()))
    expected = by_onnxruntime(model, feed)
    cosine = np.vdot(result, expected) / np.sqrt(np.vdot(result, result) * np.vdot(expected, expected))
    assert cosine > 0.999

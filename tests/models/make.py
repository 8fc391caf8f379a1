"""Make the model files that tests read: ``python tests/models/make.py`` (needs the ``export`` extra).

``decoder.onnx``: one block of a Llama-style decoder with random weights and biases, as torch.onnx exports it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, HIDDEN, LENGTH = 48, 24, 2, 40, 8


class RMSNorm(nn.Module):
    """x over its root mean square, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        return result


class Block(nn.Module):
    """Attention with rotary positions, then a gated MLP."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RMSNorm(), RMSNorm()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        half = WIDTH // HEADS // 2
        angles = torch.outer(torch.arange(LENGTH), 100.0 ** (-torch.arange(half) / half))
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.heads(each) for each in self.qkv(self.first(x)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        y = self.second(x)
        result: Tensor = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return result

    def heads(self, x: Tensor) -> Tensor:
        return x.view(1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)

    def turn(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin


class Decoder(nn.Module):
    """Embedding, one block, a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.block, self.norm = Block(), RMSNorm()
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.block(self.embedding(tokens))))
        return logits


def main() -> None:
    """Write the files beside this script."""
    torch.manual_seed(0)
    model = Decoder().eval()
    tokens = torch.zeros(1, LENGTH, dtype=torch.int64)
    target = Path(__file__).with_name("decoder.onnx")
    program = torch.onnx.export(
        model, (tokens,), input_names=["tokens"], output_names=["logits"], dynamo=True, opset_version=20, verbose=False
    )
    assert program is not None
    for node in program.model.graph.all_nodes():  # the exporter writes where its source code lies on this machine
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    program.model.metadata_props.clear()
    program.save(target, external_data=False)


if __name__ == "__main__":
    main()

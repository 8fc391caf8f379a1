"""A small Llama-style language model: RMSNorm, rotary positions, causal attention, SwiGLU, no dropout at inference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, all in elements."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 256
    context: int = 128
    dropout: float = 0.0


class RMSNorm(nn.Module):
    """Scale every token's vector to a root mean square of one, then by a learnt weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` [..., width]."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Attention(nn.Module):
    """Causal self-attention with rotary positions; queries, keys and values have biases (as in Qwen2)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q = nn.Linear(shape.width, shape.width)
        self.k = nn.Linear(shape.width, shape.width)
        self.v = nn.Linear(shape.width, shape.width)
        self.o = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Mix the tokens of ``x`` [batch, context, width]."""
        q, k, v = (self._split(linear(x)) for linear in (self.q, self.k, self.v))
        q, k = (_rotate(part, cos, sin) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        batch, context, _ = x.shape
        return x.view(batch, context, self.heads, -1).transpose(1, 2)


class Mlp(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token of ``x`` [..., width] by itself."""
        return self.down(F.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One decoder block: attention and MLP, each on a normalised copy and added back."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1 = RMSNorm(shape.width)
        self.attention = Attention(shape)
        self.norm2 = RMSNorm(shape.width)
        self.mlp = Mlp(shape)
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Refine ``x`` [batch, context, width]."""
        x = x + self.drop(self.attention(self.norm1(x), cos, sin, mask))
        return x + self.drop(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class TinyLM(nn.Module):
    """The whole model: tokens [batch, context] to logits [batch, context, vocabulary]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.drop = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        cos, sin = _rotary_tables(shape)
        self.cos: Tensor
        self.sin: Tensor
        self.mask: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("mask", _causal_mask(shape.context), persistent=False)
        self._initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict, at every position, the next token; ``tokens`` is int64 [batch, context]."""
        x = self.drop(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask)
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    def linears(self) -> dict[str, nn.Linear]:
        """Every linear layer by its dotted name, in the order of execution."""
        return {name: module for name, module in self.named_modules() if isinstance(module, nn.Linear)}

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, linear in self.linears().items():
            residual = name.endswith((".o", ".down"))
            nn.init.normal_(linear.weight, std=0.02 / (2 * self.shape.layers) ** 0.5 if residual else 0.05)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)


def _rotary_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cos and sin [context, width / heads] of the rotary embedding (base 10,000), halves repeated."""
    half = shape.width // shape.heads // 2
    frequency = 10000.0 ** (-torch.arange(half) / half)
    angle = torch.outer(torch.arange(shape.context), frequency).repeat(1, 2)
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every (i, i + half) pair of ``x`` [batch, heads, context, size] by its position's angle."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def _causal_mask(context: int) -> Tensor:
    """Return [context, context]: 0 where a position may look, a large negative number where it may not."""
    return torch.full((context, context), -1e9).triu(1)

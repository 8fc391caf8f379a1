"""Which linear keeps how many weights: N:M patterns, their masks, and a check of finished weights.

N is the number of weights **kept** in each block of M consecutive weights along the input dimension, chosen
independently for every output row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """Keep ``n`` of every ``m`` consecutive inputs."""

    n: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``"2:4"``."""
        n, m = text.split(":")
        return cls(int(n), int(m))

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


# The first block, the values and the head are pruned least, the middle most. Every M in {2, 4, 8, 16} occurs, so that
# a compiler has to mix formats; what is not named stays dense.
PATTERNS = {
    "blocks.0.attention.q": "2:4",
    "blocks.0.attention.k": "2:4",
    "blocks.0.attention.o": "4:8",
    "blocks.0.mlp.gate": "4:8",
    "blocks.0.mlp.up": "4:8",
    "blocks.0.mlp.down": "5:8",
    "blocks.1.attention.q": "2:8",
    "blocks.1.attention.k": "2:8",
    "blocks.1.attention.v": "1:2",
    "blocks.1.attention.o": "4:8",
    "blocks.1.mlp.gate": "3:8",
    "blocks.1.mlp.up": "3:8",
    "blocks.1.mlp.down": "4:8",
    "blocks.2.attention.q": "1:4",
    "blocks.2.attention.k": "1:4",
    "blocks.2.attention.v": "8:16",
    "blocks.2.attention.o": "6:16",
    "blocks.2.mlp.gate": "6:16",
    "blocks.2.mlp.up": "6:16",
    "blocks.2.mlp.down": "8:16",
    "blocks.3.attention.q": "2:8",
    "blocks.3.attention.k": "2:8",
    "blocks.3.attention.o": "2:4",
    "blocks.3.mlp.gate": "8:16",
    "blocks.3.mlp.up": "8:16",
    "blocks.3.mlp.down": "8:16",
    "head": "5:8",
}
"""The final pattern of every pruned linear, by the linear's name in :class:`model.TinyLM`."""


def patterns() -> dict[str, Pattern]:
    """Return :data:`PATTERNS` parsed."""
    return {name: Pattern.parse(text) for name, text in PATTERNS.items()}


def gradual(final: Pattern, progress: float) -> Pattern:
    """Return the pattern to hold when ``progress`` (0 to 1) of the pruning time is over: cubic from M:M to N:M."""
    kept = final.n + (final.m - final.n) * (1 - min(progress, 1.0)) ** 3
    return Pattern(min(final.m, int(kept + 0.999)), final.m)


def mask(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return 0/1 for ``weight`` [outputs, inputs]: the ``n`` largest magnitudes of each block are kept."""
    blocks = weight.detach().abs().view(len(weight), -1, pattern.m)
    kept = blocks.topk(pattern.n, dim=-1).indices
    return torch.zeros_like(blocks).scatter_(-1, kept, 1.0).flatten(1)

"""Perplexity of a model, in float and with its linears computed in simulated INT8."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from model import TinyLM
from torch import Tensor, nn


@torch.no_grad()
def perplexity(model: TinyLM, tokens: Tensor) -> float:
    """Return exp(mean cross-entropy) over consecutive windows of ``tokens`` [count]; no window sees another."""
    model.eval()
    context = model.shape.context
    windows = (len(tokens) - 1) // context
    inputs = tokens[: windows * context].view(windows, context)
    targets = tokens[1 : windows * context + 1].view(windows, context)
    losses = [
        F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
        for x, y in zip(torch.split(inputs, 64), torch.split(targets, 64), strict=True)
    ]
    return math.exp(sum(losses) / targets.numel())


def simulated_int8(model: TinyLM) -> TinyLM:
    """Return a copy whose linears have INT8 weights (a scale per output) and INT8 inputs (a scale per token)."""
    quantised = copy.deepcopy(model)
    for linear in quantised.linears().values():
        linear.weight.data = _round_rows(linear.weight.data)
        linear.register_forward_pre_hook(_quantise_input)
    return quantised


def _quantise_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (_round_rows(inputs[0]),)


def _round_rows(x: Tensor) -> Tensor:
    """Round each last-axis row of ``x`` to 255 symmetric steps of its own size."""
    step = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (x / step).round() * step

"""Make the models with caches that tests read: ``python tests/models/make_caches.py`` (needs the ``export`` extra).

A Llama-style decoder of one block as transformers builds it, with random weights and biases, exported three ways:

``cache_dynamo.onnx``: by torch.export; tokens and attention mask, a past that grows; positions from the length.
``cache_legacy.onnx``: by TorchScript; tokens, mask and positions, a past that grows.
``cache_static.onnx``: by torch.export; one token and its position, a cache of 16 positions written in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache, StaticCache

HEADS, WIDTH, CAPACITY = 1, 8, 16
CONFIG = LlamaConfig(
    vocab_size=48,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=HEADS,
    max_position_embeddings=64,
    attention_bias=True,
)
PAST, PRESENT = (["past_key_values.0.key", "past_key_values.0.value"], ["present.0.key", "present.0.value"])


class Growing(nn.Module):
    """A decoder that joins the past with what a step adds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Tensor, ...]:
        tokens, mask, *positions, key, value = inputs
        cache = DynamicCache()
        cache.update(key, value, 0)
        more = {"position_ids": positions[0]} if positions else {}
        result = self.model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **more)
        layer = result.past_key_values.layers[0]
        return result.logits, layer.keys, layer.values


class Static(nn.Module):
    """A decoder that writes into a cache of fixed size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, position: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        cache = StaticCache(config=CONFIG, max_cache_len=CAPACITY)
        cache.early_initialization(1, HEADS, WIDTH, torch.float32, "cpu")
        layer = cache.layers[0]
        layer.keys, layer.values, layer.cumulative_length = key, value, position[0]
        mask = (torch.arange(CAPACITY)[None] <= position[:, None])[None, None]
        result = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=position[None],
            past_key_values=cache,
            use_cache=True,
            cache_position=position,
        )
        return result.logits, layer.keys, layer.values


def decoder() -> LlamaForCausalLM:
    """Return the model, its weights random and its norms and biases not trivial."""
    torch.manual_seed(5)
    CONFIG._attn_implementation = "sdpa"
    model = LlamaForCausalLM(CONFIG).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.3)
    return model


def main() -> None:
    """Write the files beside this one."""
    folder, model = Path(__file__).parent, decoder()
    past = [torch.randn(1, HEADS, 5, WIDTH) for _ in range(2)]
    tokens, mask, positions = torch.randint(0, 48, (1, 3)), torch.ones(1, 8, dtype=torch.long), torch.arange(5, 8)[None]
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Growing(model).eval(),
        (tokens, mask, *past),
        folder / "cache_dynamo.onnx",
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["input_ids", "attention_mask", *PAST],
        output_names=["logits", *PRESENT],
        dynamic_shapes=(({1: dynamic}, {1: dynamic}, {2: dynamic}, {2: dynamic}),),
    )
    axes = {name: {2: "past"} for name in PAST} | {name: {2: "past + 1"} for name in PRESENT}  # as labels often lie
    axes |= {
        "input_ids": {1: "seq"},
        "position_ids": {1: "seq"},
        "attention_mask": {1: "past + 1"},
        "logits": {1: "seq"},
    }
    torch.onnx.export(
        Growing(model).eval(),
        (tokens, mask, positions, *past),
        folder / "cache_legacy.onnx",
        dynamo=False,
        opset_version=17,
        input_names=["input_ids", "attention_mask", "position_ids", *PAST],
        output_names=["logits", *PRESENT],
        dynamic_axes=axes,
    )
    full = [torch.zeros(1, HEADS, CAPACITY, WIDTH) for _ in range(2)]
    torch.onnx.export(
        Static(model).eval(),
        (torch.randint(0, 48, (1, 1)), torch.tensor([5]), *full),
        folder / "cache_static.onnx",
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["input_ids", "cache_position", *PAST],
        output_names=["logits", *PRESENT],
    )
    for path in folder.glob("cache_*.onnx"):
        strip(path)


def strip(path: Path) -> None:
    """Drop what the exporter wrote about its own source code."""
    proto = onnx.load(path)
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(proto, path)


if __name__ == "__main__":
    main()

"""What onnxruntime's optimisers fuse transformers into (domain com.microsoft), taken apart into standard operators.

Their definitions: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule

#: What a masked score gets added in BERT-like models, unless an attribute says otherwise.
_MASKED = -10000.0


def _layer_norm(site: Site, x: ir.Value, scale: ir.Value, bias: ir.Value | None, default: float) -> ir.Value:
    """Normalise the last axis; LayerNormalization is an operator since version 17."""
    epsilon = site.real("epsilon", default)
    if site.opset >= 17:
        return site.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)
    centred = site.op("Sub", x, site.reduce("ReduceMean", x, [-1]))
    scaled = site.op("Mul", _over_root_mean(site, centred, epsilon), scale)
    return scaled if bias is None else site.op("Add", scaled, bias)


def _over_root_mean(site: Site, x: ir.Value, epsilon: float) -> ir.Value:
    mean = site.reduce("ReduceMean", site.op("Mul", x, x), [-1])
    return site.op("Div", x, site.op("Sqrt", site.op("Add", mean, epsilon)))


def _unused(site: Site, *places: int) -> bool:
    outputs = [site.node.outputs[place] for place in places if place < len(site.node.outputs)]
    return not any(output.uses() or output.is_graph_output() for output in outputs)


def _skip_norm(site: Site, bias: ir.Value | None, normalise: Callable[[ir.Value], ir.Value]) -> bool:
    """Add input, skip and bias up; the sum is the fourth output, what is made of it the first."""
    if not _unused(site, 1, 2):
        return False
    total = site.op("Add", site.x, site.given(1))
    total = total if bias is None else site.op("Add", total, bias)
    result = normalise(total)
    return site.done(*[result, total, total, total][: len(site.node.outputs)])


def skip_layer_norm(site: Site) -> bool:
    """LayerNormalization(input + skip + bias), and the sum: (input, skip, gamma, beta, bias)."""
    return _skip_norm(site, site.maybe(4), lambda total: _layer_norm(site, total, site.given(2), site.maybe(3), 1e-12))


def skip_rms_norm(site: Site) -> bool:
    """RMSNormalization(input + skip + bias), and the sum: (input, skip, gamma, bias)."""
    epsilon = site.real("epsilon", 1e-12)
    return _skip_norm(
        site, site.maybe(3), lambda total: site.op("Mul", _over_root_mean(site, total, epsilon), site.given(2))
    )


def rms_norm(site: Site) -> bool:
    """SimplifiedLayerNormalization: x / sqrt(mean of squares + epsilon) * scale over the last axis."""
    if site.integer("axis", -1) != -1 or not site.only_first():
        return False
    return site.done(site.op("Mul", _over_root_mean(site, site.x, site.real("epsilon", 1e-5)), site.given(1)))


def _erf_gelu(site: Site, x: ir.Value) -> ir.Value:
    inner = site.op("Add", site.op("Erf", site.op("Mul", x, math.sqrt(0.5))), 1.0)
    return site.op("Mul", site.op("Mul", x, inner), 0.5)


def gelu(site: Site) -> bool:
    """Gelu: x/2 * (1 + erf(x / sqrt 2))."""
    return site.done(_erf_gelu(site, site.x))


def bias_gelu(site: Site) -> bool:
    """Gelu(x + bias)."""
    return site.done(_erf_gelu(site, site.op("Add", site.x, site.given(1))))


def fast_gelu(site: Site) -> bool:
    """Gelu(x + bias) by tanh: x/2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    bias = site.maybe(1)
    x = site.x if bias is None else site.op("Add", site.x, bias)
    cube = site.op("Mul", site.op("Mul", site.op("Mul", x, x), x), 0.044715)
    inner = site.op("Tanh", site.op("Mul", site.op("Add", cube, x), math.sqrt(2 / math.pi)))
    return site.done(site.op("Mul", site.op("Mul", x, site.op("Add", inner, 1.0)), 0.5))


def quick_gelu(site: Site) -> bool:
    """X * sigmoid(alpha * x)."""
    gate = site.op("Sigmoid", site.op("Mul", site.x, site.real("alpha", 1.702)))
    return site.done(site.op("Mul", site.x, gate))


def fused_matmul(site: Site) -> bool:
    """MatMul of operands whose last two dimensions may be swapped, times alpha."""
    if site.integer("transBatchA", 0) or site.integer("transBatchB", 0):
        return False
    a, b = (_swapped(site, place, name) for place, name in enumerate(("transA", "transB")))
    product = site.op("MatMul", a, b)
    alpha = site.real("alpha", 1.0)
    return site.done(product if alpha == 1 else site.op("Mul", product, alpha))


def _swapped(site: Site, place: int, name: str) -> ir.Value:
    value = site.given(place)
    if not site.integer(name, 0):
        return value
    rank = len(shape_of(value))
    return site.transpose(value, [*range(rank - 2), rank - 1, rank - 2])


def multi_head_attention(site: Site) -> bool:
    """MultiHeadAttention of q, k and v [batch, tokens, heads * size] without a past.

    Inputs: query, key, value, bias of all three, key padding mask, addend of the scores.
    """
    if not site.only_first() or any(site.maybe(place) is not None for place in range(6, len(site.node.inputs))):
        return False
    parts = [site.maybe(place) for place in range(3)]
    if any(part is None or len(shape_of(part)) != 3 for part in parts):
        return False
    q, k, v = (part for part in parts if part is not None)
    sizes = [shape_of(part)[-1] for part in (q, k, v)]
    bias = site.maybe(3)
    if bias is not None:
        cuts = [0, *np.cumsum(sizes).tolist()]
        q, k, v = (
            site.op("Add", part, site.slice(bias, 0, cuts[place], cuts[place + 1]))
            for place, part in enumerate((q, k, v))
        )
    tokens = [shape_of(part)[1] for part in parts if part is not None]
    mask = _padding(site, site.maybe(4), tokens[1])
    if mask is False:
        return False
    return site.done(_attention(site, (q, k, v), tokens, sizes, [mask, site.maybe(5)]))


def attention(site: Site) -> bool:
    """Attention with its own projection: (input, weights, bias of q, k and v, mask, past, addend of the scores)."""
    weights = site.given(1)
    sizes = site.list("qkv_hidden_sizes", [])
    if not site.only_first() or site.maybe(4) is not None or len(site.node.inputs) > 6 or len(site.shape) != 3:
        return False
    sizes = list(sizes) or [shape_of(weights)[1] // 3] * 3
    cuts = [0, *np.cumsum(sizes).tolist()]
    projected = site.op("MatMul", site.x, weights)
    bias = site.maybe(2)
    projected = projected if bias is None else site.op("Add", projected, bias)
    q, k, v = (site.slice(projected, 2, cuts[place], cuts[place + 1]) for place in range(3))
    mask = _padding(site, site.maybe(3), site.shape[1])
    if mask is False:
        return False
    return site.done(_attention(site, (q, k, v), [site.shape[1]] * 3, sizes, [mask, site.maybe(5)]))


def _padding(site: Site, mask: ir.Value | None, keys: int) -> ir.Value | bool | None:
    """Return what a mask adds to the scores: [batch, keys] of 1 and 0, or how many keys count, [batch]."""
    if mask is None:
        return None
    shape = shape_of(mask)
    if len(shape) == 1:
        places = site.constant(np.arange(keys, dtype=np.int32).reshape(1, keys))
        kept = site.op("Less", places, site.reshape(mask, [shape[0], 1]))
    elif len(shape) == 2:
        kept = site.cast(mask, ir.DataType.BOOL)
    else:
        return False
    addend = site.op("Mul", site.cast(site.op("Not", kept), ir.DataType.FLOAT), site.real("mask_filter_value", _MASKED))
    return site.reshape(addend, [shape[0], 1, 1, keys])


def _attention(
    site: Site, qkv: tuple[ir.Value, ...], tokens: list[int], sizes: list[int], addends: list[ir.Value | bool | None]
) -> ir.Value:
    """Return softmax(scale * q k^T + addends) v, heads side by side again."""
    heads, batch = site.integer("num_heads", 1), site.shape[0]
    split = [
        site.transpose(site.reshape(part, [batch, length, heads, size // heads]), [0, 2, 1, 3])
        for part, length, size in zip(qkv, tokens, sizes, strict=True)
    ]
    scale = site.real("scale", 0.0) or 1 / math.sqrt(sizes[0] // heads)
    scores = site.op("MatMul", split[0], site.transpose(split[1], [0, 1, 3, 2]))
    scores = site.op("Mul", scores, scale)
    if site.integer("unidirectional", 0):
        ahead = np.triu(np.full((tokens[0], tokens[1]), np.finfo(np.float32).min), 1 + tokens[1] - tokens[0])
        scores = site.op("Add", scores, site.constant(ahead.astype(np.float32)))
    for addend in addends:
        scores = site.op("Add", scores, addend) if isinstance(addend, ir.Value) else scores
    joined = site.transpose(site.op("MatMul", site.op("Softmax", scores, axis=-1), split[2]), [0, 2, 1, 3])
    return site.reshape(joined, [batch, tokens[0], sizes[2]])


def embed_layer_norm(site: Site) -> bool:
    """LayerNormalization of word, position and segment embeddings, how many places count, and their sum.

    Inputs: tokens, segments, the three tables, gamma, beta, mask, positions.
    """
    tokens, segments = site.x, site.maybe(1)
    words, places, kinds = site.given(2), site.given(3), site.maybe(4)
    batch, length = site.shape
    positions = site.maybe(8)
    position = site.slice(places, 0, 0, length) if positions is None else site.op("Gather", places, positions, axis=0)
    total = site.op("Add", site.op("Gather", words, tokens, axis=0), position)
    if segments is not None and kinds is not None:
        total = site.op("Add", total, site.op("Gather", kinds, segments, axis=0))
    result = _layer_norm(site, total, site.given(5), site.maybe(6), 1e-12)
    return site.done(*[result, _counted(site, batch), total][: len(site.node.outputs)])


def _counted(site: Site, batch: int) -> ir.Value:
    mask = site.maybe(7)
    if mask is None:
        return site.constant(np.zeros(batch, np.int32))
    counted = site.reduce("ReduceSum", site.cast(mask, ir.DataType.FLOAT), [1], keepdims=False)
    return site.cast(counted, ir.DataType.INT32)


RULES: dict[str, SiteRule] = {
    "Attention": attention,
    "BiasGelu": bias_gelu,
    "EmbedLayerNormalization": embed_layer_norm,
    "FastGelu": fast_gelu,
    "FusedMatMul": fused_matmul,
    "Gelu": gelu,
    "MultiHeadAttention": multi_head_attention,
    "QuickGelu": quick_gelu,
    "SimplifiedLayerNormalization": rms_norm,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_rms_norm,
}

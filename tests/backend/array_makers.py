"""Makers of random graphs: linears, convolutions, pools, products. Each adds an operator, or a few together."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tests.backend.graphs import BOUND, MOST_ELEMENTS, Draft, Maker, Shape, Value

PATTERNS = ((1, 1), (1, 2), (2, 4), (3, 8), (1, 8), (5, 16), (1, 16))


def embedding(draft: Draft) -> Value:
    """Rows of a constant table by a run-time index."""
    index = draft.pick("i8", exact=True)
    if len(index.shape) > 3:
        return index
    size = draft.node("Mod", [index.name, draft.constant(np.int64(5))], replace(index, bound=5.0))
    table = draft.constant(draft.array("f", (5, 1 + draft.below(40))))
    shape = (*index.shape, draft.constants[table].shape[1])
    return (
        draft.node("Gather", [table, size.name], Value("", "f", shape)) if math.prod(shape) <= MOST_ELEMENTS else size
    )


def product(draft: Draft) -> Value:
    """A product of two values made at run time, batch dimensions repeated as needed."""
    a = draft.pick(least_rank=2)
    a = draft.tamed(a, a.bound * BOUND / 20)
    if draft.chance(0.5):
        perm = [*range(len(a.shape) - 2), len(a.shape) - 1, len(a.shape) - 2]
        b = draft.node("Transpose", [a.name], replace(a, shape=tuple(a.shape[p] for p in perm)), perm=perm)
    else:
        batch = tuple(1 if draft.chance(0.5) else size for size in a.shape[:-2])
        batch = batch[draft.below(len(batch) + 1) :]
        b = draft.input("f", (*batch, a.shape[-1], 1 + draft.below(40)))
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    if math.prod(shape) > MOST_ELEMENTS:
        return a
    return draft.node("MatMul", [a.name, b.name], Value("", "f", shape, a.bound * b.bound * a.shape[-1], False))


def sparse(draft: Draft, k: int, n: int, pattern: tuple[int, int]) -> Any:
    """Return a weight [k, n] that keeps at most N of every M numbers along k."""
    kept, m = pattern
    rank = draft.rng.random((-(-k // m), m, n)).argsort(axis=1)
    mask = (rank < kept).reshape(-1, n)[:k]
    return draft.rng.standard_normal((k, n)).astype(np.float32) * mask


def linear(draft: Draft) -> Value:
    """One or two linears that read the same value, with bias or without."""
    a = draft.pick(exact=True, least_rank=2)
    if draft.chance(0.2):
        a = draft.input("f", (1 + draft.below(300), 1 + draft.below(200)))
    a = draft.tamed(a, a.bound * BOUND / 20)
    result = a
    for _ in range(1 + draft.below(2)):
        k, n = a.shape[-1], draft.one_of([1, 5, 32, 33, 64, 100])
        if math.prod(a.shape[:-1]) * n > 8 * MOST_ELEMENTS:
            return a
        weight = draft.constant(sparse(draft, k, n, draft.one_of(PATTERNS)))
        result = draft.node("MatMul", [a.name, weight], Value("", "f", (*a.shape[:-1], n), a.bound * 4 * k))
        if draft.chance(0.4):
            bias = draft.constant(draft.rng.standard_normal(n).astype(np.float32))
            result = draft.node("Add", [result.name, bias], replace(result, bound=result.bound + 4))
    return result


def image(draft: Draft, rank: int) -> Value:
    """Return an exact image or signal [1, channels, ...]: one there is, one turned round, or a new input."""
    found = [v for v in draft.values if v.dtype == "f" and v.exact and len(v.shape) == rank + 2 and v.shape[0] == 1]
    if found and draft.chance(0.6):
        value = found[draft.below(len(found))]
        return draft.tamed(value, value.bound * BOUND / 20)
    channels = draft.one_of([1, 2, 3, 4, 8, 16])
    spatial = tuple(3 + draft.below(8) for _ in range(rank))
    if draft.chance(0.3):
        value = draft.input("f", (1, *spatial, channels))
        perm = [0, rank + 1, *range(1, rank + 1)]
        return draft.node("Transpose", [value.name], replace(value, shape=(1, channels, *spatial)), perm=perm)
    return draft.input("f", (1, channels, *spatial))


def _window(draft: Draft, value: Value, *, pool: bool = False) -> tuple[dict[str, Any], Shape] | None:
    """Return attributes of a sliding window, and the size of what it makes; a pool's pads are less than its kernel."""
    size, rank = value.shape[2:], len(value.shape) - 2
    kernel = [1 + draft.below(3) for _ in size]
    strides, dilations = ([1 + draft.below(2) for _ in size] for _ in range(2))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [draft.below(r) for r in 2 * (kernel if pool else reach)]
    if draft.chance(0.2) and max(dilations) == 1 and all(s <= k for s, k in zip(strides, kernel, strict=True)):
        attributes["auto_pad"] = draft.one_of(["SAME_UPPER", "SAME_LOWER"])
        return attributes, tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
    attributes["pads"] = pads
    whole = [n + a + b for n, a, b in zip(size, pads[:rank], pads[rank:], strict=True)]
    out = tuple((n - r) // s + 1 for n, r, s in zip(whole, reach, strides, strict=True))
    return (attributes, out) if min(out) > 0 and all(n >= r for n, r in zip(whole, reach, strict=True)) else None


def convolution(draft: Draft) -> Value:
    """A convolution of an image or a signal: grouped, strided, dilated, padded, with a bias."""
    a = image(draft, 1 + draft.below(2))
    window = _window(draft, a)
    if window is None:
        return a
    channels = a.shape[1]
    groups = int(draft.one_of([each for each in range(1, channels + 1) if channels % each == 0]))
    filters = groups * int(draft.one_of([1, 2, 5, 32]))
    own = channels // groups
    k = own * math.prod(window[0]["kernel_shape"])
    if filters * math.prod(window[1]) > 3 * MOST_ELEMENTS:
        return a
    weight = sparse(draft, k, filters, draft.one_of(PATTERNS)).T.reshape(filters, -1, own)
    weight = np.moveaxis(weight, -1, 1).reshape(filters, own, *window[0]["kernel_shape"])
    names = [a.name, draft.constant(np.ascontiguousarray(weight))]
    if draft.chance(0.5):
        names.append(draft.constant(draft.rng.standard_normal(filters).astype(np.float32)))
    made = Value("", "f", (1, filters, *window[1]), a.bound * 4 * k + 4)
    return draft.node("Conv", names, made, group=groups, **window[0])


def pooling(draft: Draft) -> Value:
    """The greatest under a window, or the mean of an image."""
    a = image(draft, 2)
    if draft.chance(0.3):
        return draft.node("GlobalAveragePool", [a.name], replace(a, shape=(*a.shape[:2], 1, 1), exact=False))
    window = _window(draft, a, pool=True)
    if window is None:
        return a
    return draft.node("MaxPool", [a.name], replace(a, shape=(*a.shape[:2], *window[1])), **window[0])


def host(draft: Draft) -> Value:
    """An operator that the machine does not have."""
    a = draft.pick("f", least_rank=1)
    if a.bound * a.shape[0] > BOUND:
        return draft.tamed(a, BOUND * 2)
    return draft.node(
        "CumSum", [a.name, draft.constant(np.int64(0))], replace(a, bound=a.bound * a.shape[0], exact=False)
    )


ARRAY: tuple[Maker, ...] = (linear, convolution)
OTHERS: tuple[Maker, ...] = (embedding, product, pooling, host)

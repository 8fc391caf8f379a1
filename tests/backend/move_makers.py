"""Makers of random graphs: data movement. Each adds an operator, or a few that belong together."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from tests.backend.graphs import MOST_ELEMENTS, Draft, Maker, Shape, Value


def reshape(draft: Draft) -> Value:
    """The same elements under another shape."""
    a = draft.pick("f f f i8 i4 b")
    size = math.prod(a.shape)
    shape: list[int] = []
    while size > 1 and len(shape) < 4:
        divisors = [each for each in range(1, size + 1) if size % each == 0]
        shape.append(int(draft.one_of(divisors)))
        size //= shape[-1]
    if size > 1 or draft.chance(0.2):
        shape.insert(draft.below(len(shape) + 1), size)
    new = replace(a, shape=tuple(shape))
    return draft.node("Reshape", [a.name, draft.ints(*shape)], new)


def squeeze(draft: Draft) -> Value:
    """A dimension of size 1 put in or taken out, or all made two."""
    a = draft.pick("f f f i8 i4 b")
    units = [axis for axis, size in enumerate(a.shape) if size == 1]
    if a.shape and draft.chance(0.2):
        axis = draft.below(len(a.shape) + 1)
        return draft.node(
            "Flatten", [a.name], replace(a, shape=(math.prod(a.shape[:axis]), math.prod(a.shape[axis:]))), axis=axis
        )
    if units and draft.chance(0.5):
        gone = int(draft.one_of(units))
        shape = a.shape[:gone] + a.shape[gone + 1 :]
        return draft.node("Squeeze", [a.name, draft.ints(gone)], replace(a, shape=shape))
    place = draft.below(len(a.shape) + 1)
    shape = (*a.shape[:place], 1, *a.shape[place:])
    return draft.node("Unsqueeze", [a.name, draft.ints(place)], replace(a, shape=shape)) if len(shape) < 6 else a


def transpose(draft: Draft) -> Value:
    """Dimensions in another order."""
    a = draft.pick("f f f i8 i4 b", least_rank=2)
    perm = [int(axis) for axis in draft.rng.permutation(len(a.shape))]
    return draft.node("Transpose", [a.name], replace(a, shape=tuple(a.shape[p] for p in perm)), perm=perm)


def slice_(draft: Draft) -> Value:
    """Part of one or two dimensions, backwards too."""
    a = draft.pick("f f f i8 i4 b", least_rank=1)
    shape = list(a.shape)
    numbers: list[list[int]] = [[], [], [], []]  # starts, ends, axes, steps
    for axis in {draft.below(len(shape)), draft.below(len(shape))}:
        size = shape[axis]
        low, high = sorted([draft.below(size), draft.below(size)])
        step = 1 + draft.below(3)
        picked = range(low, high + 1, step)
        if draft.chance(0.4):
            picked = range(high, low - 1, -step)
        shape[axis] = len(picked)
        stop = high + 1 if picked.step > 0 else (low - 1 if low else -size - 5)
        start = picked.start - size if draft.chance(0.3) else picked.start
        for into, number in zip(numbers, (start, stop, axis, picked.step), strict=True):
            into.append(number)
    names = [a.name, *(draft.ints(*each) for each in numbers)]
    return draft.node("Slice", names, replace(a, shape=tuple(shape)))


def split(draft: Draft) -> Value:
    """One dimension in two or three parts."""
    a = draft.pick("f f f i8 i4 b", least_rank=1)
    axis = draft.below(len(a.shape))
    size = a.shape[axis]
    if size < 2:
        return a
    cuts = sorted({0, size, *(1 + draft.below(size - 1) for _ in range(1 + draft.below(2)))})
    lengths = [end - start for start, end in pairwise(cuts)]
    shapes = [(*a.shape[:axis], each, *a.shape[axis + 1 :]) for each in lengths]
    return draft.node("Split", [a.name, draft.ints(*lengths)], a, outputs=shapes, axis=axis)


def expand(draft: Draft) -> Value:
    """Dimensions of size 1 repeated, and new ones."""
    a = draft.pick("f f f i8 i4 b")
    shape = [draft.one_of([1, 2, 5]) if size == 1 else size for size in a.shape]
    if len(shape) < 4 and draft.chance(0.5):
        shape.insert(0, draft.one_of([1, 2, 3]))
    if math.prod(shape) > MOST_ELEMENTS:
        return a
    return draft.node("Expand", [a.name, draft.ints(*shape)], replace(a, shape=tuple(shape)))


def concat(draft: Draft) -> Value:
    """Values, among them perhaps the same twice or a constant, put side by side."""
    a = draft.pick("f f f i8 i4 b", least_rank=1)
    axis = draft.below(len(a.shape))

    def joins(other: Value) -> bool:
        same = [x == y for x, y in zip(other.shape, a.shape, strict=False)]
        return len(other.shape) == len(a.shape) and other.dtype == a.dtype and sum(same) - same[axis] == len(same) - 1

    others = [each for each in draft.values if joins(each)]
    parts = [(a.name, a.shape[axis], a.bound, a.exact)]
    for other in [others[draft.below(len(others))] for _ in range(draft.below(3))]:
        parts.insert(draft.below(2), (other.name, other.shape[axis], other.bound, other.exact))
    if draft.chance(0.4):
        shape = (*a.shape[:axis], 1 + draft.below(3), *a.shape[axis + 1 :])
        parts.append((draft.constant(draft.array(a.dtype, shape)), shape[axis], 4.0, True))
    length = sum(each[1] for each in parts)
    shape = (*a.shape[:axis], length, *a.shape[axis + 1 :])
    if math.prod(shape) > MOST_ELEMENTS:
        return a
    bound, exact = max(each[2] for each in parts), all(each[3] for each in parts)
    return draft.node("Concat", [each[0] for each in parts], Value("", a.dtype, shape, bound, exact), axis=axis)


def gather(draft: Draft) -> Value:
    """Rows of a value by constant indices, or one index along any axis."""
    a = draft.pick("f f f i8 i4", least_rank=1)
    if draft.chance(0.5):
        axis = draft.below(len(a.shape))
        shape: Shape = (1,) * draft.below(2)
        index = np.full(shape, draft.below(a.shape[axis]) - draft.below(2) * a.shape[axis], np.int64)
    else:
        axis, shape = 0, (1 + draft.below(4), 1 + draft.below(2))
        index = draft.rng.integers(-a.shape[0], a.shape[0], shape)
    result = (*a.shape[:axis], *shape, *a.shape[axis + 1 :])
    if len(result) > 5:
        return a
    return draft.node("Gather", [a.name, draft.constant(index)], replace(a, shape=result), axis=axis)


MOVEMENT: tuple[Maker, ...] = (reshape, squeeze, transpose, slice_, split, expand, concat, gather)

"""Data movement in terms of views, Concat and Pad of zeros: padding, tiling, triangles, one-hot, space and depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule


def pad(site: Site) -> bool:
    """Pads of all axes, none below 0, with one value: what is cut away is cut first, other modes join slices."""
    pads = _pads(site)
    mode = site.text("mode", "constant")
    if pads is None or not site.shape:
        return False
    before, after = pads[: site.rank], pads[site.rank :]
    if mode == "constant" and site.maybe(3) is None and min(pads) >= 0:
        return False
    value = _cut(site, site.x, before, after)
    before, after = [max(0, each) for each in before], [max(0, each) for each in after]
    if mode == "constant":
        fill = [] if site.maybe(2) is None else [site.given(2)]
        return site.done(site.op("Pad", value, site.ints([*before, *after]), *fill, mode="constant"))
    size = [length + min(0, low) + min(0, high) for length, low, high in zip(site.shape, *_halves(pads), strict=True)]
    for axis in range(site.rank):
        if before[axis] or after[axis]:
            parts = _EDGES[mode](site, value, axis, size[axis], before[axis], after[axis])
            value = site.op("Concat", *parts, axis=axis)
    return site.done(value)


def _halves(pads: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def _pads(site: Site) -> list[int] | None:
    """Return the pads of every axis, all before and then all after, None where they are not constant."""
    given, axes = site.numbers(1), site.numbers(3)
    if given is None or (axes is None and site.maybe(3) is not None):
        return None
    places = [int(axis) % site.rank for axis in axes] if axes is not None else list(range(site.rank))
    pads = [0] * (2 * site.rank)
    for place, axis in enumerate(places):
        pads[axis], pads[site.rank + axis] = int(given[place]), int(given[len(places) + place])
    return pads


def _cut(site: Site, value: ir.Value, before: Sequence[int], after: Sequence[int]) -> ir.Value:
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if min(low, high) < 0:
            value = site.slice(value, axis, max(0, -low), site.shape[axis] - max(0, -high))
    return value


def _edge(site: Site, x: ir.Value, axis: int, size: int, before: int, after: int) -> list[ir.Value]:
    first, last = site.slice(x, axis, 0, 1), site.slice(x, axis, size - 1, size)
    return [*[first] * before, x, *[last] * after]


def _reflect(site: Site, x: ir.Value, axis: int, size: int, before: int, after: int) -> list[ir.Value]:
    return _mirrored(site, x, axis, range(1, 1 + before), range(size - 1 - after, size - 1))


def _mirrored(site: Site, x: ir.Value, axis: int, low: range, high: range) -> list[ir.Value]:
    parts = [site.flip(site.slice(x, axis, each.start, each.stop), axis) for each in (low, high) if each]
    return [*parts[: bool(low)], x, *parts[bool(low) :]]


def _wrap(site: Site, x: ir.Value, axis: int, size: int, before: int, after: int) -> list[ir.Value]:
    low = [site.slice(x, axis, size - before, size)] if before else []
    return [*low, x, *([site.slice(x, axis, 0, after)] if after else [])]


_EDGES = {"edge": _edge, "reflect": _reflect, "wrap": _wrap}


def tile(site: Site) -> bool:
    """An Expand over one more axis for each that is repeated."""
    repeats = site.numbers(1)
    if repeats is None or not site.shape:
        return False
    inner = [dim for size in site.shape for dim in (1, size)]
    outer = [dim for size, count in zip(site.shape, repeats.tolist(), strict=True) for dim in (int(count), size)]
    wide = site.op("Expand", site.reshape(site.x, inner), site.ints(outer))
    return site.done(site.reshape(wide, shape_of(site.node.outputs[0])))


def trilu(site: Site) -> bool:
    """Where a constant triangle of ones is, the value, else 0."""
    k = site.numbers(1)
    if site.maybe(1) is not None and k is None:
        return False
    keep = np.ones(site.shape[-2:], np.bool_)
    offset = 0 if k is None else int(k.reshape(-1)[0])
    keep = np.triu(keep, offset) if site.integer("upper", 1) else np.tril(keep, offset)
    return site.done(site.op("Where", site.constant(keep), site.x, 0))


def one_hot(site: Site) -> bool:
    """On where an index (counted from the end below 0) is the place along the new axis, else off."""
    depth = site.numbers(1)
    if depth is None or site.x.dtype not in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT):
        return False
    size, rank = int(depth.reshape(-1)[0]), site.rank + 1
    axis = site.integer("axis", -1) % rank
    index = site.op("Where", site.op("Less", site.x, 0), site.op("Add", site.x, size), site.x)
    index = site.reshape(index, [*site.shape[:axis], 1, *site.shape[axis:]])
    places = np.arange(size).reshape([-1 if each == axis else 1 for each in range(rank)])
    dtype = site.x.dtype
    hit = site.op("Equal", index, site.constant(places.astype(dtype.numpy()), dtype))
    off, on = (site.slice(site.given(2), 0, place, place + 1) for place in (0, 1))
    return site.done(site.op("Where", hit, on, off))


def depth_to_space(site: Site) -> bool:
    """Channels to blocks of pixels: a view of six dimensions."""
    n, channels, height, width = site.shape
    b = site.integer("blocksize", 1)
    c = channels // (b * b)
    if site.text("mode", "DCR") == "DCR":
        shape, perm = [n, b, b, c, height, width], [0, 3, 4, 1, 5, 2]
    else:
        shape, perm = [n, c, b, b, height, width], [0, 1, 4, 2, 5, 3]
    moved = site.transpose(site.reshape(site.x, shape), perm)
    return site.done(site.reshape(moved, [n, c, height * b, width * b]))


def space_to_depth(site: Site) -> bool:
    """Blocks of pixels to channels: a view of six dimensions."""
    n, c, height, width = site.shape
    b = site.integer("blocksize", 1)
    perm = [0, 3, 5, 1, 2, 4] if site.text("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    moved = site.transpose(site.reshape(site.x, [n, c, height // b, b, width // b, b]), perm)
    return site.done(site.reshape(moved, [n, c * b * b, height // b, width // b]))


def eye_like(site: Site) -> bool:
    """A constant: only the input's shape counts."""
    code = site.node.attributes.get("dtype")
    dtype = ir.DataType(code.as_int()) if code is not None else site.x.dtype
    if dtype is None:
        return False
    eye = np.eye(site.shape[0], site.shape[1], k=site.integer("k", 0)).astype(dtype.numpy())
    return site.done(site.op("Identity", site.constant(eye, dtype)))


RULES: dict[str, SiteRule] = {
    "Pad": pad,
    "Tile": tile,
    "Trilu": trilu,
    "OneHot": one_hot,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "EyeLike": eye_like,
}

"""Picking and placing by index: any axis as the one that the machine can index, tuples of indices as row numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from ..tracing import never_negative, trace
from .site import Site, SiteRule

_EXACT = 1 << 24  # whole numbers up to this are float32 numbers


def _to_last(site: Site, value: ir.Value, axis: int) -> ir.Value:
    return site.transpose(value, [*(each for each in range(site.rank) if each != axis), axis])


def _from_last(site: Site, value: ir.Value, axis: int) -> ir.Value:
    perm = list(range(site.rank - 1))
    perm.insert(axis, site.rank - 1)
    return site.transpose(value, perm)


def gather(site: Site) -> bool:
    """Constant indices at even distances are a Slice; other axes than the first go there and back."""
    axis, indices = site.axis(0), site.numbers(1)
    if indices is not None and indices.size == 1:
        return False
    if indices is not None and (cut := _as_slice(site, indices, axis)) is not None:
        shape = [*site.shape[:axis], *indices.shape, *site.shape[axis + 1 :]]
        return site.done(cut if indices.ndim == 1 else site.reshape(cut, shape))
    if axis == 0:
        return False
    first = site.transpose(site.x, [axis, *(each for each in range(site.rank) if each != axis)])
    picked = site.op("Gather", first, site.given(1), axis=0)
    extra = len(shape_of(site.given(1)))
    perm = [*range(extra, extra + axis), *range(extra), *range(extra + axis, extra + site.rank - 1)]
    return site.done(site.transpose(picked, perm))


def _as_slice(site: Site, indices: np.ndarray, axis: int) -> ir.Value | None:
    size = site.shape[axis]
    flat = np.where(indices < 0, indices + size, indices).reshape(-1)
    if flat.size < 2 or flat.min() < 0 or flat.max() >= size:
        return None
    step = int(flat[1] - flat[0])
    if step == 0 or (np.diff(flat) != step).any():
        return None
    end = int(flat[-1]) + (1 if step > 0 else -1)
    return site.slice(site.x, axis, int(flat[0]), end if end >= 0 else -(2**31), step)


def gather_elements(site: Site) -> bool:
    """Along the last axis; of the other axes as much as the indices have."""
    axis, index = site.axis(0), site.given(1)
    wanted = shape_of(index)
    whole = all(size == own for place, (size, own) in enumerate(zip(wanted, site.shape, strict=True)) if place != axis)
    if not wanted or (axis == site.rank - 1 and whole):
        return False
    x = site.x
    for place, (size, own) in enumerate(zip(wanted, site.shape, strict=True)):
        if place != axis and size != own:
            x = site.slice(x, place, 0, size)
    picked = site.op("GatherElements", _to_last(site, x, axis), _to_last(site, index, axis), axis=site.rank - 1)
    return site.done(_from_last(site, picked, axis))


def scatter_elements(site: Site) -> bool:
    """Along the last axis."""
    axis = site.axis(0)
    if not site.shape or axis == site.rank - 1:
        return False
    moved = [_to_last(site, value, axis) for value in (site.x, site.given(1), site.given(2))]
    attributes = {name: site.text(name, "none") for name in ("reduction",) if name in site.node.attributes}
    placed = site.op("ScatterElements", *moved, axis=site.rank - 1, **attributes)
    return site.done(_from_last(site, placed, axis))


def row_numbers(site: Site, indices: ir.Value, dims: Sequence[int]) -> ir.Value:
    """Return, for tuples of indices along the last axis into leading dims, the numbers of the rows they mean."""
    strides = np.array([math.prod(dims[place + 1 :]) for place in range(len(dims))], np.int64)
    counted = indices
    if not never_negative(indices):
        negative = site.op("Less", indices, site.number(0, indices))
        counted = site.op("Where", negative, site.op("Add", indices, site.constant(np.array(dims, np.int64))), indices)
    if len(dims) == 1:
        return site.reshape(counted, shape_of(indices)[:-1])
    rows = site.op("Mul", counted, site.constant(strides))
    return site.reduce("ReduceSum", rows, [len(shape_of(indices)) - 1], keepdims=False)


def gather_nd(site: Site) -> bool:
    """Rows of the data seen as a table, picked by number."""
    indices, batch = site.given(1), site.integer("batch_dims", 0)
    lead = shape_of(indices)
    depth = lead[-1]
    dims = site.shape[batch : batch + depth]
    rows = row_numbers(site, indices, dims)
    if batch:
        count = math.prod(site.shape[:batch])
        offsets = (np.arange(count) * math.prod(dims)).reshape([*lead[:batch], *[1] * (len(lead) - 1 - batch)])
        rows = site.op("Add", rows, site.constant(offsets.astype(np.int64)))
    rest = site.shape[batch + depth :]
    table = site.reshape(site.x, [math.prod(site.shape[: batch + depth]), math.prod(rest)])
    picked = site.op("Gather", table, site.reshape(rows, [math.prod(lead[:-1])]), axis=0)
    return site.done(site.reshape(picked, shape_of(site.node.outputs[0])))


def scatter_nd(site: Site) -> bool:
    """Rows of the data seen as a table, replaced by number."""
    lead = shape_of(site.given(1))
    depth, rest = lead[-1], site.shape[lead[-1] :]
    if site.text("reduction", "none") != "none" or (depth == 1 and len(lead) == 2):
        return False
    count, width = math.prod(lead[:-1]), math.prod(rest)
    rows = site.reshape(row_numbers(site, site.given(1), site.shape[:depth]), [count, 1])
    table = site.reshape(site.x, [math.prod(site.shape[:depth]), width])
    placed = site.op("ScatterND", table, rows, site.reshape(site.given(2), [count, width]))
    return site.done(site.reshape(placed, site.shape))


def top_k(site: Site) -> bool:
    """The places along the last axis in order, and the values picked by them."""
    axis = site.axis(-1)
    if site.numbers(1) is None or not (site.is_float or _are_places(site.x)):
        return False
    last = site.rank - 1
    values = site.node.outputs[0]
    if not site.is_float:
        real = site.cast(_to_last(site, site.x, axis), ir.DataType.FLOAT)
        found = _places(site, real, last)
        picked = site.cast(site.op("GatherElements", real, found, axis=last), site.x.dtype or ir.DataType.INT64)
        return site.done(_from_last(site, picked, axis), _from_last(site, found, axis))
    ready = axis == last and site.integer("sorted", 1) != 0  # any order will do without ``sorted``: one that is known
    if ready and not values.uses() and not values.is_graph_output():
        return False
    x = _to_last(site, site.x, axis)
    found = _places(site, x, last)
    picked = site.op("GatherElements", x, found, axis=last)
    return site.done(_from_last(site, picked, axis), _from_last(site, found, axis))


def _are_places(value: ir.Value) -> bool:
    """Return whether whole numbers are places that TopK or ArgMax found, so that float32 holds them exactly."""
    origin = trace(value).value
    node = origin.producer()
    if node is None or node.inputs[0] is None or max(shape_of(node.inputs[0]), default=0) > _EXACT:
        return False
    return node.op_type in ("ArgMax", "ArgMin") or (node.op_type == "TopK" and origin is not node.outputs[0])


def _places(site: Site, x: ir.Value, last: int) -> ir.Value:
    """Insert a TopK of which only the second output is used, and return that."""
    attributes = {"axis": last, "largest": site.integer("largest", 1), "sorted": 1}
    return site.editor.insert(
        site.node,
        "TopK",
        [x, site.given(1)],
        suffix=".places",
        attributes=ir.convenience.convert_attributes(attributes),
        place=1,
    )


def cum_sum(site: Site) -> bool:
    """Along the last axis, from the front, each number included."""
    given = site.numbers(1)
    if given is None or site.x.dtype not in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64):
        return False
    axis, exclusive, reverse = (
        int(given.reshape(-1)[0]) % site.rank,
        site.integer("exclusive", 0),
        site.integer("reverse", 0),
    )
    last = site.rank - 1
    if axis == last and not exclusive and not reverse:
        return False
    x = _to_last(site, site.x, axis)
    x = site.flip(x, last) if reverse else x
    if exclusive:
        size = site.shape[axis]
        zeros = site.ints([0] * last + [1] + [0] * site.rank)
        x = site.slice(site.op("Pad", x, zeros, mode="constant"), last, 0, size)
    result = site.op("CumSum", x, site.constant(np.array(last, np.int64)))
    return site.done(_from_last(site, site.flip(result, last) if reverse else result, axis))


RULES: dict[str, SiteRule] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "ScatterElements": scatter_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "TopK": top_k,
    "CumSum": cum_sum,
}

"""Updates that are reduced into their places, and other orders along an axis: as sums over all places, or as rows."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .indexing import row_numbers
from .site import Site, SiteRule

#: Elements of the table of every place by every update from which on a reduction is left to the host.
MOST_ELEMENTS = 1 << 22
#: What an update that belongs elsewhere counts as, and the reduction; adding it changes nothing.
_REDUCTIONS = {
    "add": ("ReduceSum", "Add", 0.0),
    "mul": ("ReduceProd", "Mul", 1.0),
    "max": ("ReduceMax", "Max", -math.inf),
    "min": ("ReduceMin", "Min", math.inf),
}


def scatter_elements(site: Site) -> bool:
    """With a reduction: for every place along the last axis the updates that belong there, the others as none."""
    axis, name = site.axis(0), site.text("reduction", "none")
    index = site.given(1)
    wanted = shape_of(index)
    if name not in _REDUCTIONS or not site.is_float or not site.shape or axis != site.rank - 1:
        return False
    if wanted[:-1] != site.shape[:-1] or math.prod(wanted) * site.shape[-1] > MOST_ELEMENTS:
        return False
    size = site.shape[-1]
    places = site.reshape(_counted(site, index, size), [*wanted[:-1], 1, wanted[-1]])
    updates = site.reshape(site.given(2), [*wanted[:-1], 1, wanted[-1]])
    return site.done(_reduced(site, name, places, updates, site.x))


def scatter_nd(site: Site) -> bool:
    """With a reduction: rows of the data seen as a table, for each the updates that belong there."""
    name, lead = site.text("reduction", "none"), shape_of(site.given(1))
    depth = lead[-1]
    rows, width, count = math.prod(site.shape[:depth]), math.prod(site.shape[depth:]), math.prod(lead[:-1])
    if name not in _REDUCTIONS or not site.is_float or rows * width * count > MOST_ELEMENTS:
        return False
    numbers = site.reshape(row_numbers(site, site.given(1), site.shape[:depth]), [1, count])
    updates = site.transpose(site.reshape(site.given(2), [count, width]), [1, 0])
    updates = site.reshape(updates, [width, 1, count])
    table = site.transpose(site.reshape(site.x, [rows, width]), [1, 0])
    result = site.transpose(_reduced(site, name, numbers, updates, table, (width, rows)), [1, 0])
    return site.done(site.reshape(result, site.shape))


def _counted(site: Site, index: ir.Value, size: int) -> ir.Value:
    """Return indices counted from the front."""
    negative = site.op("Less", index, site.number(0, index))
    return site.op("Where", negative, site.op("Add", index, site.number(size, index)), index)


def _reduced(
    site: Site, name: str, places: ir.Value, updates: ir.Value, data: ir.Value, shape: tuple[int, ...] | None = None
) -> ir.Value:
    """Return data [..., size] with the updates [..., 1, count] reduced into their places [..., 1, count]."""
    reduction, combine, none = _REDUCTIONS[name]
    dims = shape or shape_of(data)
    kind = site.given(1).dtype or ir.DataType.INT64
    numbers = site.constant(np.arange(dims[-1]).astype(kind.numpy()).reshape(-1, 1), kind)
    mine = site.op("Where", site.op("Equal", places, numbers), updates, none)
    return site.op(combine, data, site.reduce(reduction, mine, [len(dims)], keepdims=False))


def tensor_scatter(site: Site) -> bool:
    """Rows of the cache seen as a table, replaced by number: from where each sample writes on."""
    axis, update = site.axis(-2), site.given(1)
    size, steps = site.shape[axis], shape_of(update)[axis]
    before, width = site.shape[:axis], math.prod(site.shape[axis + 1 :])
    prefixes = math.prod(before)
    places = site.constant(np.arange(steps, dtype=np.int64).reshape(1, 1, steps))
    if site.maybe(2) is not None:
        places = site.op("Add", site.reshape(site.given(2), [before[0], 1, 1]), places)
    if site.text("mode", "linear") == "circular":
        places = site.op("Mod", places, site.constant(np.array(size, np.int64)))
    starts = np.arange(prefixes, dtype=np.int64).reshape(before[0], -1, 1) * size
    rows = site.reshape(site.op("Add", places, site.constant(starts)), [prefixes * steps, 1])
    table, values = site.reshape(site.x, [prefixes * size, width]), site.reshape(update, [prefixes * steps, width])
    return site.done(site.reshape(site.op("ScatterND", table, rows, values), site.shape))


def reverse_sequence(site: Site) -> bool:
    """Rows [time * batch] in another order: from the last of a sequence to its first, the others as they are."""
    time, batch = site.integer("time_axis", 0), site.integer("batch_axis", 1)
    steps, count = site.shape[time], site.shape[batch]
    rest = [axis for axis in range(site.rank) if axis not in (time, batch)]
    rows = site.transpose(site.x, [batch, time, *rest])
    width = math.prod(site.shape[axis] for axis in rest)
    table = site.reshape(rows, [count * steps, width])
    places = site.constant(np.arange(steps, dtype=np.int64).reshape(1, steps))
    lengths = site.reshape(site.given(1), [count, 1])
    last = site.op("Sub", lengths, site.constant(np.array(1, np.int64)))
    order = site.op("Where", site.op("Less", places, lengths), site.op("Sub", last, places), places)
    starts = site.constant(np.arange(count, dtype=np.int64).reshape(count, 1) * steps)
    numbers = site.reshape(site.op("Add", order, starts), [count * steps])
    picked = site.op("Gather", table, numbers, axis=0)
    shaped = site.reshape(picked, [count, steps, *(site.shape[axis] for axis in rest)])
    order_of = [batch, time, *rest]
    return site.done(site.transpose(shaped, [order_of.index(axis) for axis in range(site.rank)]))


def cum_prod(site: Site) -> bool:
    """Products with what lies 1, 2, 4, ... places before."""
    given = site.numbers(1)
    if given is None or site.x.dtype not in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64):
        return False
    axis = int(given.reshape(-1)[0]) % site.rank
    size, reverse = site.shape[axis], bool(site.integer("reverse", 0))
    x = site.flip(site.x, axis) if reverse else site.x
    if site.integer("exclusive", 0):
        x = _shifted(site, x, axis, 1)
    step = 1
    while step < size:
        x = site.op("Mul", x, _shifted(site, x, axis, step))
        step *= 2
    return site.done(site.flip(x, axis) if reverse else x)


def _shifted(site: Site, x: ir.Value, axis: int, by: int) -> ir.Value:
    """Return a value moved up along an axis, with ones in front."""
    pads = [by if each == axis else 0 for each in range(site.rank)] + [0] * site.rank
    return site.slice(site.op("Pad", x, site.ints(pads), 1.0, mode="constant"), axis, 0, site.shape[axis])


def compress(site: Site) -> bool:
    """With a constant condition: a Gather of what it chooses."""
    condition, axis = site.numbers(1), site.node.attributes.get("axis")
    if condition is None or not condition.any():
        return False
    chosen = site.ints(np.flatnonzero(condition).tolist())
    if axis is not None:
        return site.done(site.op("Gather", site.x, chosen, axis=axis.as_int()))
    return site.done(site.op("Gather", site.reshape(site.x, [-1]), chosen, axis=0))


RULES: dict[str, SiteRule] = {
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "ReverseSequence": reverse_sequence,
    "CumProd": cum_prod,
}
EARLY: dict[str, SiteRule] = {"Compress": compress}

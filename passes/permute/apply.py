"""Permuting the channels of a model so that N:M keeps more of what matters; the model computes what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...frontend.edit import constant_array, free_name
from ...frontend.linears import Linear
from ..calibrate import Statistics
from ..pattern import NM
from .arrange import arrange
from .classes import ChannelClass, Operand, channel_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]
    Order = NDArray[np.intp]


def permute(
    model: ir.Model, linears: Sequence[Linear], statistics: Statistics, density: float, m_set: Sequence[int]
) -> tuple[Statistics, int]:
    """Permute channels that linears read, wherever nothing notices, in place.

    Args:
        model: a static graph.
        linears: those that are to be pruned.
        statistics: of their inputs.
        density: share of weights that is to be kept, about.
        m_set: block lengths that patterns may have; channels are arranged for the largest that divides their number.

    Returns:
        The statistics of the permuted model, and how many classes of channels were permuted.
    """
    by_name = {linear.name: linear for linear in linears}
    classes = channel_classes(linears)
    orders = [_order(each, by_name, statistics, density, m_set) for each in classes]  # all before a weight changes
    found = [(each, order) for each, order in zip(classes, orders, strict=True) if order is not None]
    for each, order in found:
        for operand in each.operands:
            _permute_constant(model, operand, order, each.heads)
    return _permuted(statistics, found), len(found)


def _order(
    each: ChannelClass, linears: Mapping[str, Linear], statistics: Statistics, density: float, m_set: Sequence[int]
) -> Order | None:
    """Return the new order of a class's channels, or None where none is better."""
    unit = each.size // each.heads
    lengths = [m for m in m_set if unit % m == 0]
    if not lengths:
        return None
    m = max(lengths)
    nm = NM(min(m - 1, max(1, round(m * density))), m)
    scores = np.concatenate([_scores(linears[name], statistics, each.size) for name in each.readers])
    parts = [head * unit + arrange(scores[:, head * unit : (head + 1) * unit], nm) for head in range(each.heads)]
    order: Order = np.concatenate(parts)
    return None if np.array_equal(order, np.arange(each.size)) else order


def _scores(linear: Linear, statistics: Statistics, channels: int) -> Scores:
    """Return Wanda's metric squared, the output's error if a weight goes, [rows, channels] with the sum 1."""
    scores = np.square(np.abs(linear.matrix()) * statistics.norms(linear.name)).reshape(-1, channels)
    scaled: Scores = scores / np.float32(max(scores.sum(dtype=np.float64), float(np.finfo(np.float32).tiny)))
    return scaled


def _permute_constant(model: ir.Model, operand: Operand, order: Order, heads: int) -> None:
    """Give a node its constant in the new order; whoever else reads the constant keeps it."""
    value = operand.node.inputs[operand.index]
    array = constant_array(value)
    assert value is not None, "an operand is a constant"
    assert array is not None, "an operand is a constant"
    new = permuted(array, operand, order, heads)
    if np.array_equal(new, array):
        return
    name = str(value.name)
    if len(value.uses()) == 1 and not value.is_graph_output():
        del model.graph.initializers[name]
    else:
        name = free_name(model.graph, f"{name}.{operand.node.name}")
    tensor = ir.Tensor(np.ascontiguousarray(new), dtype=value.dtype, name=name)
    made = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(made)
    operand.node.replace_input_with(operand.index, made)


def permuted(array: NDArray[Any], operand: Operand, order: Order, heads: int) -> NDArray[Any]:
    """Return a constant with the channels it holds in a new order."""
    place = operand.place
    if place.head is not None:
        rows = np.moveaxis(array, (place.head, place.axis), (0, 1))
        flat = rows.reshape(len(order), *rows.shape[2:])[order]
        return np.moveaxis(flat.reshape(rows.shape), (0, 1), (place.head, place.axis))
    index = np.arange(array.shape[place.axis])
    index[place.start : place.start + len(order)] = place.start + order
    return np.take(array, index, axis=place.axis)


def _permuted(statistics: Statistics, found: Sequence[tuple[ChannelClass, Order]]) -> Statistics:
    """Return the statistics that calibrating the permuted model would give."""
    sums = dict(statistics.square_sums)
    for each, order in found:
        for operand in each.operands:
            name = str(operand.node.name)
            if operand.reads and name in sums:
                sums[name] = sums[name].reshape(len(sums[name]), -1, each.size)[:, :, order].reshape(sums[name].shape)
            elif operand.passes and name in sums:
                sums[name] = permuted(sums[name], operand, order, each.heads)
    return replace(statistics, square_sums=sums)

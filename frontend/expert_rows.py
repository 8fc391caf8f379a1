"""Rows that experts are to multiply, and the choice of their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import constant_array, int_attribute, is_constant, shape_of
from .experts import FLOATS, Site
from .tracing import trace

_TRACED = 1 << 24  # elements: rows of larger values are not searched for repetitions
_LEADING_VIEWS = ("Reshape", "Unsqueeze", "Squeeze", "Identity")


@dataclass(frozen=True)
class Chosen:
    """Weights [E, K, N] of which ``index`` chooses one for every element of ``shape``."""

    weights: np.ndarray
    index: ir.Value
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """What experts are to multiply: [*lead, m, k], ``value`` under another shape and maybe in another order.

    ``source`` holds the same numbers in this very order and has its shape already, where there is such a value.
    """

    value: ir.Value
    lead: tuple[int, ...]
    m: int
    k: int
    source: ir.Value | None

    def unrepeated(self, site: Site) -> tuple[ir.Value, np.ndarray, int]:
        """Return rows of which none is a mere repetition, which of them every row given is, and how many there are."""
        count, width = math.prod(self.lead), self.m * self.k
        if self.source is not None and count * width <= _TRACED:
            origin = trace(self.source)
            at, whole = origin.at.reshape(count, width), math.prod(shape_of(origin.value))
            first = at[:, :1]
            even = not (first % width).any() and np.array_equal(at, first + np.arange(width))
            if even and whole < count * width and whole % width == 0:
                return site.reshape(origin.value, whole // width, width), first[:, 0] // width, whole // width
        return site.reshape(self.value, count, width), np.arange(count), count


def chosen_of(value: ir.Value) -> Chosen | None:
    """Return the weights that a value is a choice of, through views of its leading dimensions and a transposition."""
    shape, swapped, rank = shape_of(value)[:-2], False, len(shape_of(value))
    node = value.producer()
    while node is not None and node.op_type in (*_LEADING_VIEWS, "Transpose"):
        source = node.inputs[0]
        if source is None or len(shape_of(source)) < 2:
            return None
        if node.op_type == "Transpose":
            rank = len(shape_of(source))
            if list(node.attributes.get_ints("perm") or ()) != [*range(rank - 2), rank - 1, rank - 2]:
                return None
            swapped = not swapped
        elif shape_of(source)[-2:] != shape_of(node.outputs[0])[-2:]:
            return None
        node = source.producer()
    if node is None or node.op_type != "Gather" or int_attribute(node, "axis", 0) != 0:
        return None
    table, index = constant_array(node.inputs[0]), node.inputs[1]
    if table is None or table.ndim != 3 or index is None or is_constant(index):
        return None
    if node.inputs[0] is None or node.inputs[0].dtype not in FLOATS:
        return None
    return Chosen(table.swapaxes(1, 2) if swapped else table, index, shape)

"""The way back for channels of a BatchNormalization: loading makes it part of a Conv, or a Mul and an Add.

Mean and variance stay; scale and shift can make up for any other factor and offset of every channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .edit import float_attribute

Floats = NDArray[np.float64]
Find = Callable[[ir.Value | None], "np.ndarray | None"]
"""Returns a constant's numbers as the file holds them, or None."""

_SAME = 1e-5
"""Numbers are found again within this share of the largest: they were rounded to float32."""


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization with constant parameters; `before` is the bias of the Conv in front, if it went into one."""

    node: ir.Node
    scale: Floats
    shift: Floats
    mean: Floats
    root: Floats
    before: Floats

    @property
    def factor(self) -> Floats:
        """What a channel is multiplied by."""
        return self.scale / self.root

    @property
    def offset(self) -> Floats:
        """What is added to a channel, the bias before included."""
        return self.shift + (self.before - self.mean) * self.factor

    def with_factor(self, factor: Floats) -> tuple[Floats, Floats]:
        """Return scale and shift for another factor and the same offset."""
        return factor * self.root, self.offset + (self.mean - self.before) * factor

    def with_offset(self, offset: Floats) -> tuple[Floats, Floats]:
        """Return scale and shift for another offset and the same factor."""
        return self.scale, offset + (self.mean - self.before) * self.factor


def norm_of(source: ir.Node, find: Find) -> Norm | None:
    """Return the BatchNormalization that a node of the file is, or whose input it makes as a Conv."""
    node, bias = source, None
    if source.op_type == "Conv":
        readers = [use.node for use in source.outputs[0].uses()]
        node = readers[0] if len(readers) == 1 else source
        bias = find(source.inputs[2]) if len(source.inputs) > 2 else None
    if node.op_type != "BatchNormalization":
        return None
    given = [find(value) for value in node.inputs[1:5]]
    found = [each.astype(np.float64) for each in given if each is not None]
    if len(found) != len(given):
        return None
    scale, shift, mean, variance = found
    root = np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    before = np.zeros_like(mean) if bias is None else bias.astype(np.float64)
    return Norm(node, scale, shift, mean, root, before)


def renewed(norm: Norm, reader: ir.Node, was: np.ndarray, now: np.ndarray) -> tuple[Floats, Floats] | None:
    """Return scale and shift with which a constant that loading made of them is `now`; None where it was not `was`.

    Args:
        norm: the file's node.
        reader: the loaded node that reads the constant: a Mul by the factor, else the offset is added.
        was: the constant before, a number a channel.
        now: the constant now.
    """
    old, new = was.astype(np.float64).ravel(), now.astype(np.float64).ravel()
    scales = reader.op_type == "Mul"
    present = norm.factor if scales else norm.offset
    if old.shape != present.shape or np.abs(present - old).max(initial=0) > _SAME * np.abs(old).max(initial=0):
        return None
    return norm.with_factor(new) if scales else norm.with_offset(new)

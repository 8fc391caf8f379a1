"""Classes of channels: all that must be permuted alike so that a graph computes what it did.

From the input of a linear, channels are followed to where they are made and to wherever else they are read. Where the
ends are constants only, rows of the linears that make them, columns of those that read them, scales and biases on the
way, any order of the channels is as good as any other: a permutation is absorbed by the constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...frontend.edit import int_attribute, is_constant, shape_of
from ...frontend.linears import Linear
from .carry import Bound, Place, carry, value_at


@dataclass(frozen=True)
class Operand:
    """A constant that holds channels of a class: input `index` of `node`, at `place`."""

    node: ir.Node
    index: int
    place: Place

    @property
    def reads(self) -> bool:
        """Whether it is a weight that multiplies the channels."""
        axis = {"MatMul": 0, "Conv": 1}.get(self.node.op_type)
        return self.index == 1 and self.place.axis == axis

    @property
    def passes(self) -> bool:
        """Whether it is the weight of a depthwise convolution, which multiplies and makes them one by one."""
        return self.node.op_type == "Conv" and self.index == 1 and int_attribute(self.node, "group", 1) > 1


@dataclass(frozen=True)
class ChannelClass:
    """Channels that may be permuted.

    Attributes:
        size: how many.
        heads: in how many heads, of which each keeps its own; 1 where any channel may take any place.
        operands: the constants that hold them.
        readers: the linears that multiply them: names, in graph order.
    """

    size: int
    heads: int
    operands: tuple[Operand, ...]
    readers: tuple[str, ...]


def channel_classes(linears: Sequence[Linear]) -> list[ChannelClass]:
    """Return the classes of channels that linears read and that may be permuted, in graph order."""
    columns = {(linear.node, 1 if linear.is_conv else 0): linear.name for linear in linears}
    seen: set[ir.Value] = set()
    found = []
    for linear in linears:
        source = linear.node.inputs[0]
        if source is None or source in seen or linear.groups > 1 or linear.weight is not linear.node.inputs[1]:
            continue
        shape = shape_of(source)
        axis = 1 if linear.is_conv else len(shape) - 1
        walk = _Walk(shape[axis])
        try:
            walk.start(source, Place(axis))
        except Bound:
            continue
        finally:
            seen.add(source)
        seen.update(walk.whole())
        if (each := walk.result(columns)) is not None:
            found.append(each)
    return found


class _Walk:
    """Follows channels through a graph; a value may hold them more than once, side by side."""

    def __init__(self, size: int) -> None:
        self.size, self.heads = size, 1
        self._places: dict[ir.Value, list[Place]] = {}
        self._operands: dict[tuple[ir.Node, int], list[Place]] = {}

    def start(self, value: ir.Value, place: Place) -> None:
        """Follow the channels from one value everywhere.

        Raises:
            Bound: somewhere their order matters.
        """
        waiting = [(value, place)]
        while waiting:
            value, place = waiting.pop()
            if not self._is_new(self._places.setdefault(value, []), place):
                continue
            self._enter(value, place)
            for node, port in _ports(value):
                for other, where in carry(node, port, place, self.size):
                    waiting += self._tie(node, other, where)

    def _is_new(self, known: list[Place], place: Place) -> bool:
        """Note a place among those known of a value; return whether it is none of them."""
        if place in known:
            return False
        for other in known:
            apart = abs(other.start - place.start) >= self.size and other.axis == place.axis
            if not apart or other.head is not None or place.head is not None:
                raise Bound("a value holds them in two ways")
        known.append(place)
        return True

    def _enter(self, value: ir.Value, place: Place) -> None:
        """Refuse a value that is seen from outside; learn from it how many heads there are."""
        if value.producer() is None or value.is_graph_output():
            raise Bound("an input or an output")
        if place.head is not None:
            heads = shape_of(value)[place.head]
            if self.heads not in (1, heads):
                raise Bound("other heads")
            self.heads = heads

    def _tie(self, node: ir.Node, port: int, place: Place) -> list[tuple[ir.Value, Place]]:
        """Note a constant operand; return a value that is to be followed."""
        value = value_at(node, port)
        if not is_constant(value):
            return [(value, place)]
        self._is_new(self._operands.setdefault((node, port), []), place)
        if node.op_type in ("MatMul", "Conv") and port == 1 and len(value.uses()) > 1:
            raise Bound("a weight that others read")
        return []

    def whole(self) -> list[ir.Value]:
        """Return the values that hold the channels and no others."""
        return [value for value, places in self._places.items() if shape_of(value)[places[0].axis] == self.size]

    def result(self, columns: dict[tuple[ir.Node, int], str]) -> ChannelClass | None:
        """Return what was found, or None where a linear that is to stay as it is reads the channels.

        Args:
            columns: names of the linears to be pruned, by node and axis of the weight that they multiply.
        """
        operands = tuple(Operand(*key, place) for key, places in self._operands.items() for place in places)
        read = [columns.get((each.node, each.place.axis)) for each in operands if each.reads]
        if None in read:
            return None
        return ChannelClass(self.size, self.heads, operands, tuple(name for name in columns.values() if name in read))


def _ports(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return the nodes that make or read a value, and at which port."""
    ports = [(use.node, use.idx) for use in value.uses()]
    maker = value.producer()
    return [*ports, (maker, ~maker.outputs.index(value))] if maker is not None else ports

"""Cutting a graph into segments that can be run one after the other, each on what the ones before it handed on.

Values that no weight of interest can change (masks, positions, embeddings) are computed once, by a prelude. The rest of
the nodes keep their order; a cut lies between two of them, and what is read behind it but computed before it is what
the segments hand on. Cuts are chosen where that is little: in most models one tensor, the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from ...frontend.edit import shape_of
from ...frontend.infer import reads
from ...frontend.linears import Linear

if TYPE_CHECKING:
    from collections.abc import Set

_WIDTHS = (1, 2, 3, 4, 6, 8)
"""Numbers of tensors that a cut may hand on, tried in this order."""

_FEW = 3
"""Linears in a segment, on average, that need no finer cuts."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a graph.

    Attributes:
        nodes: names of its nodes, in order.
        inputs: names of the values it reads that are computed outside (graph inputs, prelude, earlier segments).
        outputs: names of its values that are read outside, or are outputs asked for.
        linears: names of the linears in it.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    linears: tuple[str, ...]


@dataclass(frozen=True)
class Cutting:
    """A graph as a prelude and segments; together they compute `outputs`."""

    prelude: Segment
    segments: tuple[Segment, ...]
    outputs: tuple[str, ...]


class Cutter:
    """What is changed by the weights of linears, and where a graph can be cut.

    Args:
        model: a static graph, left as it is.
        linears: those whose weights may change.
        outputs: names of the values that are wanted in the end.
    """

    def __init__(self, model: ir.Model, linears: Sequence[Linear], outputs: Sequence[str]) -> None:
        self._linears = {linear.name for linear in linears}
        self._outputs = tuple(outputs)
        needed = _needed(model.graph, set(outputs))
        changing: set[ir.Value] = set()
        self._fixed: list[ir.Node] = []
        self.nodes: list[ir.Node] = []
        for node in model.graph:
            if node not in needed:
                continue
            if node.name in self._linears or not changing.isdisjoint(reads(node)):
                changing.update(node.outputs)
                self.nodes.append(node)
            else:
                self._fixed.append(node)
        self._live = self._live_values()

    def narrow(self) -> Cutting:
        """Cut where little is handed on, into segments of few linears."""
        best: list[int] = [0]
        for width in _WIDTHS:
            cuts = self._choose(width)
            if len(cuts) > len(best):
                best = cuts
            if len(best) * _FEW >= len(self._linears):
                break
        return self.at(best[1:])

    def before_inputs(self) -> tuple[Cutting, tuple[tuple[str, ...], ...]]:
        """Cut in front of every first reader of an input of linears.

        Returns:
            The cutting, and for each of its segments but the first, which comes before all linears, the names of the
            linears that read the same input and of which the first opens the segment.
        """
        readers: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.name in self._linears and node.inputs[0] is not None:
                readers.setdefault(str(node.inputs[0].name), []).append(str(node.name))
        place = {str(node.name): index for index, node in enumerate(self.nodes)}
        groups = sorted(readers.values(), key=lambda names: place[names[0]])
        cuts = [place[names[0]] for names in groups]
        return self.at(cuts, keep_first=True), tuple(tuple(names) for names in groups)

    def at(self, cuts: Iterable[int], *, keep_first: bool = False) -> Cutting:
        """Cut in front of the nodes at these places; an empty first segment is left out unless it is to be kept."""
        edges = [0, *cuts, len(self.nodes)]
        pieces = [self.nodes[start:end] for start, end in pairwise(edges)]
        if not keep_first:
            pieces = [piece for piece in pieces if piece]
        segments = tuple(self._segment(piece) for piece in pieces)
        return Cutting(self._segment(self._fixed), segments, self._outputs)

    def _segment(self, nodes: Sequence[ir.Node]) -> Segment:
        inside = {value for node in nodes for value in node.outputs}
        inputs: dict[str, None] = {}
        for node in nodes:
            for value in reads(node):
                if value not in inside and value.const_value is None and value.name:
                    inputs[str(value.name)] = None
        outputs = [str(value.name) for node in nodes for value in node.outputs if self._leaves(value, nodes)]
        names = tuple(str(node.name) for node in nodes)
        return Segment(names, tuple(inputs), tuple(outputs), tuple(name for name in names if name in self._linears))

    def _leaves(self, value: ir.Value, nodes: Sequence[ir.Node]) -> bool:
        """Whether a value is read outside the nodes that compute it."""
        if value.name in self._outputs:
            return True
        inside = {*nodes}
        return any(reader not in inside for reader in self._readers.get(value, ()))

    def _live_values(self) -> list[list[ir.Value]]:
        """Return for every place what is computed before it, read at or behind it, and changing."""
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        for node in (*self._fixed, *self.nodes):
            for value in reads(node):
                self._readers.setdefault(value, []).append(node)
        place = {node: index for index, node in enumerate(self.nodes)}
        live: list[list[ir.Value]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for value in node.outputs:
                last = max((place[reader] for reader in self._readers.get(value, ()) if reader in place), default=index)
                for between in range(index + 1, last + 1):
                    live[between].append(value)
        return live

    def _choose(self, width: int) -> list[int]:
        """Return 0 and the places to cut: at most `width` values handed on, a linear in every segment."""
        cuts, best, seen = [0], None, False
        for index, node in enumerate(self.nodes):
            if index > 0 and seen and len(self._live[index]) <= width:
                size = sum(_bytes(value) for value in self._live[index])
                if best is None or size <= best[0]:
                    best = (size, index)
            if node.name in self._linears:
                if best is not None:
                    cuts.append(best[1])
                best, seen = None, True
        return cuts


def bytes_handed_on(model: ir.Model, cutting: Cutting) -> int:
    """Return the bytes of everything that prelude and segments hand on in one window."""
    names = {name for segment in (cutting.prelude, *cutting.segments) for name in segment.outputs}
    return sum(_bytes(value) for node in model.graph for value in node.outputs if value.name in names)


def _needed(graph: ir.Graph, outputs: Set[str]) -> set[ir.Node]:
    """Return the nodes that the named values depend on."""
    wanted: set[ir.Value] = set()
    needed: set[ir.Node] = set()
    for node in reversed(list(graph)):
        if any(value in wanted or value.name in outputs for value in node.outputs):
            needed.add(node)
            wanted.update(reads(node))
    return needed


def _bytes(value: ir.Value) -> int:
    return prod(shape_of(value)) * (value.dtype.bitwidth if value.dtype is not None else 32) // 8

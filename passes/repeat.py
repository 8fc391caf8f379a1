"""Repetition: unrolled recurrences found again in a graph as turns of a loop, whatever their nodes are called.

The nodes that compute, in the order of the graph, are read as a sequence of signs (operator, attributes, constants,
shapes). Where it repeats with a period, the data flow decides: the turns must read one another, and everything else,
in the same way. Each turn may read its own nodes, those of the turn before, and whatever is made outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.operators import OPERATORS
from .emit import pin_of
from .periods import MIN_TURNS, Stretch, stretches
from .prune import NM_KEY

#: Nodes that compute, in all turns together: shorter repetitions are better served by kernels of their own.
LEAST_NODES = 16
#: Ways to place the first node of a turn that are tried.
_TRIES = 3

#: The last turn may lack views that only a turn after it would read.
Turn = tuple["ir.Node | None", ...]
#: A value of a turn: which of its nodes makes it, and which output of it.
Made = tuple[int, int]
#: What an input is: nothing, a constant, made in this turn, made in the turn before, or made outside.
_Link = tuple[Hashable, ...]


@dataclass(frozen=True)
class Repetition:
    """Turns of a loop: node i of every turn does the same with other values.

    ``carried`` maps what a turn reads of the turn before to what the first turn reads in its place.
    """

    turns: tuple[Turn, ...]
    carried: dict[Made, ir.Value] = field(hash=False)

    @property
    def template(self) -> tuple[ir.Node, ...]:
        """The turn that stands for all: the second, since the first may read what no turn makes."""
        return tuple(node for node in self.turns[1] if node is not None)

    def nodes(self) -> Iterator[ir.Node]:
        """Yield the nodes of all turns."""
        for turn in self.turns:
            yield from (node for node in turn if node is not None)

    def values(self, made: Made) -> list[ir.Value]:
        """Return a value in every turn that has it: only the last one may not."""
        makers = (turn[made[0]] for turn in self.turns)
        return [node.outputs[made[1]] for node in makers if node is not None]

    def made(self) -> dict[ir.Value, Made]:
        """Return the place of every value that the template makes."""
        return {
            value: (place, output)
            for place, node in enumerate(self.template)
            for output, value in enumerate(node.outputs)
        }

    def outside(self) -> dict[ir.Value, list[ir.Value]]:
        """Return for each value that the template reads from outside what every turn reads in its place."""
        return {value: turns for _, _, value, turns in self.reads_outside()}

    def reads_outside(self) -> Iterator[tuple[int, int, ir.Value, list[ir.Value]]]:
        """Yield (node, input, value of the template, values of all turns) for all that is read from outside."""
        inside = {*self.made(), *(self.values(made)[0] for made in self.carried)}
        for place, node in enumerate(self.template):
            for index, value in enumerate(node.inputs):
                if value is not None and value not in inside and value.const_value is None:
                    yield place, index, value, [_input(turn[place], index) for turn in self.turns]


def _input(node: ir.Node | None, index: int) -> ir.Value:
    value = None if node is None else node.inputs[index]
    assert value is not None, "only views may be missing, and they read nothing from outside"
    return value


def repetitions(graph: ir.Graph, fits: Callable[[Repetition], bool]) -> list[Repetition]:
    """Return the repetitions of a graph that are long enough and that ``fits`` agrees to, in the order of the graph."""
    signs = _Signs()
    core = [node for node in graph if not is_view(node)]
    found, least = [], 0
    for stretch in stretches([signs.of(node) for node in core]):
        if stretch.stop - stretch.start >= LEAST_NODES:
            repetition = _repetition(core, _extended(core, stretch, least), signs, fits)
            found += [repetition] if repetition else []
        least = stretch.stop
    return found


def is_view(node: ir.Node) -> bool:
    """Return whether a node only names data differently."""
    operator = OPERATORS.get(node.op_type)
    if operator is None or node.domain not in ("", "ai.onnx"):
        return False
    if operator.kind == "gather":
        index = node.inputs[1]
        return index is not None and index.const_value is not None and index.const_value.size == 1
    return operator.kind == "view"


class _Signs:
    """Numbers for what nodes do, apart from which values they do it with."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._constants: dict[int, Hashable] = {}

    def of(self, node: ir.Node) -> int:
        """Return the number of a node: equal for nodes that do the same with values of the same types."""
        attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
        inputs = tuple(self._kind(value) for value in node.inputs)
        outputs = tuple(_type(value) for value in node.outputs)
        sign = (node.domain, node.op_type, attributes, inputs, outputs, node.metadata_props.get(NM_KEY), pin_of(node))
        return self._numbers.setdefault(sign, len(self._numbers))

    def constant(self, value: ir.Value) -> Hashable:
        """Return what is the same for constants of the same content."""
        tensor = value.const_value
        assert tensor is not None
        if id(tensor) not in self._constants:
            digest = hashlib.blake2b(np.ascontiguousarray(tensor.numpy()).tobytes(), digest_size=16).digest()
            self._constants[id(tensor)] = (str(tensor.dtype), tuple(tensor.shape.numpy()), digest)
        return self._constants[id(tensor)]

    def _kind(self, value: ir.Value | None) -> Hashable:
        if value is None:
            return None
        return self.constant(value) if value.const_value is not None else _type(value)


def _type(value: ir.Value) -> Hashable:
    return (str(value.dtype), shape_of(value) if value.shape is not None and value.shape.is_static() else None)


def _extended(core: Sequence[ir.Node], stretch: Stretch, least: int) -> Stretch:
    """Return the stretch with the nodes before it that only differ in a constant: what the first turn starts from."""
    start, period = stretch.start, stretch.period
    while start > max(least, stretch.start - period) and _same_but_inputs(core[start - 1], core[start - 1 + period]):
        start -= 1
    return Stretch(start, stretch.stop, period)


def _repetition(
    core: Sequence[ir.Node], stretch: Stretch, signs: _Signs, fits: Callable[[Repetition], bool]
) -> Repetition | None:
    for shift in _shifts(core, stretch)[:_TRIES]:
        start = stretch.start + shift
        count = (stretch.stop - start) // stretch.period
        starts = range(start, start + count * stretch.period, stretch.period)
        blocks = [core[first : first + stretch.period] for first in starts]
        found = _Turns(blocks, signs).longest()
        if found is not None and fits(found):
            return found
    return None


def _shifts(core: Sequence[ir.Node], stretch: Stretch) -> list[int]:
    """Return the ways to place the first node of a turn: with the most turns first, then the fewest bytes handed on."""
    period = stretch.period
    middle = stretch.start + (stretch.turns // 2) * period
    place = {node: index for index, node in enumerate(core[stretch.start : middle + period], stretch.start)}
    last_use: dict[int, int] = {}
    weight: dict[int, int] = {}
    for index in range(middle, middle + period):
        for value in core[index].inputs:
            maker = _root(value)
            if maker is not None and (made := place.get(maker)) is not None:
                last_use[made] = max(index, last_use.get(made, 0))
                weight[made] = sum(_bytes(output) for output in maker.outputs)
    cost = np.zeros(2 * period + 1, np.int64)
    for made, used in last_use.items():
        first, last = (made + 1 - stretch.start) % period, min(period, used - made)
        cost[first] += weight[made]
        cost[first + last] -= weight[made]
    summed = np.cumsum(cost)[: 2 * period]
    handed_on = summed[:period] + summed[period:]
    missing = [-((stretch.stop - stretch.start - shift) // period) for shift in range(period)]
    return sorted(range(period), key=lambda shift: (missing[shift], int(handed_on[shift])))


def _root(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes a value, seen through views."""
    node = None if value is None else value.producer()
    while node is not None and is_view(node):
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node


def _bytes(value: ir.Value) -> int:
    return max(1, int(np.prod(shape_of(value)) * (value.dtype.itemsize if value.dtype is not None else 4)))


class _Turns:
    """Blocks of nodes that may be turns of one loop: completed by their views, and compared by what they read."""

    def __init__(self, blocks: Sequence[Sequence[ir.Node]], signs: _Signs) -> None:
        self.signs = signs
        self.core = {node for block in blocks for node in block}
        self.inner: dict[ir.Node, bool] = {}
        self.turns: list[Turn] = [tuple(self._with_views(block)) for block in blocks]
        self.place = {
            node: (turn, index)
            for turn, nodes in enumerate(self.turns)
            for index, node in enumerate(nodes)
            if node is not None
        }

    def _with_views(self, block: Sequence[ir.Node]) -> Iterator[ir.Node]:
        """Yield the nodes of a block, after each the views of its results through which nodes of the core read."""
        for node in block:
            yield node
            waiting = self._views(node)
            while waiting:
                view = waiting.pop(0)
                yield view
                waiting += self._views(view)

    def _views(self, node: ir.Node) -> list[ir.Node]:
        views = [user for user in _users(node) if is_view(user) and self._leads_inside(user)]
        return sorted(views, key=self.signs.of)

    def _leads_inside(self, view: ir.Node) -> bool:
        if view not in self.inner:
            self.inner[view] = any(
                user in self.core or (is_view(user) and self._leads_inside(user)) for user in _users(view)
            )
        return self.inner[view]

    def longest(self) -> Repetition | None:
        """Return the most turns around the middle one that read alike, or None where they are too few."""
        middle = len(self.turns) // 2
        shape = self._shape(middle)
        if shape is None:
            return None
        first, last = middle, middle + 1
        while first > 0 and self._shape(first - 1) == shape:
            first -= 1
        while last < len(self.turns) and self._shape(last) == shape:
            last += 1
        if last < len(self.turns) and self._completed(last, shape):
            last += 1
        starts = self._starts(first - 1, shape) if first else None
        if starts is not None:
            first -= 1
        else:
            starts = self._starts(first, shape)
        if starts is None or last - first < MIN_TURNS:
            return None
        found = Repetition(tuple(self.turns[first:last]), starts)
        return found if _told_apart(found) else None

    def _shape(self, turn: int) -> _Shape | None:
        """Return what every node of a turn is and reads, or None where it reads what is neither near nor outside."""
        shape = []
        for node in self.turns[turn]:
            links = () if node is None else tuple(self._link(turn, value) for value in node.inputs)
            if node is None or ("far",) in links:
                return None
            shape.append((self.signs.of(node), links))
        return shape

    def _link(self, turn: int, value: ir.Value | None) -> _Link:
        if value is None:
            return ()
        if value.const_value is not None:
            return ("constant", self.signs.constant(value))
        node = value.producer()
        if node is None or node not in self.place:
            return ("outside", _type(value))
        made, index = self.place[node]
        if made not in (turn, turn - 1):
            return ("far",)
        return ("own" if made == turn else "before", index, value.index())

    def _completed(self, turn: int, shape: _Shape) -> bool:
        """Make the last turn like the others where it only lacks views that nothing reads; return whether it is."""
        core = [node for node in self.turns[turn] if node is not None and node in self.core]
        nodes: list[ir.Node | None] = []
        for place, (sign, links) in enumerate(shape):
            pattern = self.turns[turn - 1][place]
            assert pattern is not None
            if is_view(pattern):
                nodes.append(self._view_like(sign, nodes[int(str(links[0][1]))]))
            elif core:
                nodes.append(core.pop(0))
            else:
                return False
        before, self.turns[turn] = self.turns[turn], tuple(nodes)
        self.place.update({node: (turn, index) for index, node in enumerate(nodes) if node is not None})
        alike = not core and all(
            node is None or (self.signs.of(node), tuple(self._link(turn, value) for value in node.inputs)) == wanted
            for node, wanted in zip(nodes, shape, strict=True)
        )
        if not alike:
            self.turns[turn] = before
        return alike

    def _view_like(self, sign: int, source: ir.Node | None) -> ir.Node | None:
        views = [] if source is None else [user for user in _users(source) if is_view(user)]
        return next((view for view in views if self.signs.of(view) == sign), None)

    def _starts(self, turn: int, shape: _Shape) -> dict[Made, ir.Value] | None:
        """Return what a first turn reads in place of the turn before, or None where it is not like the others."""
        nodes, after = self.turns[turn], self.turns[turn + 1]
        starts: dict[Made, ir.Value] = {}
        if len(nodes) != len(shape):
            return None
        for node, other, (_, links) in zip(nodes, after, shape, strict=True):
            if node is None or other is None or not _same_but_inputs(node, other):
                return None
            for value, link in zip(node.inputs, links, strict=True):
                if link and link[0] == "before" and value is not None:
                    if starts.setdefault((int(str(link[1])), int(str(link[2]))), value) is not value:
                        return None
                elif self._link(turn, value) != link:
                    return None
        typed = all(_type(value) == _type(_output(after, made)) for made, value in starts.items())
        return starts if typed else None


_Shape = list[tuple[int, tuple[_Link, ...]]]


def _users(node: ir.Node) -> list[ir.Node]:
    return list(dict.fromkeys(use.node for output in node.outputs for use in output.uses()))


def _output(turn: Turn, made: Made) -> ir.Value:
    node = turn[made[0]]
    assert node is not None
    return node.outputs[made[1]]


def _told_apart(found: Repetition) -> bool:
    """Return whether values that are one in the template are one in every turn."""
    outside = found.outside()
    return all(turns == outside[value] for _, _, value, turns in found.reads_outside())


def _same_but_inputs(a: ir.Node, b: ir.Node) -> bool:
    """Return whether two nodes have the same operator, attributes, number of inputs and types of results."""
    if a.op_type != b.op_type or a.domain != b.domain or len(a.inputs) != len(b.inputs):
        return False
    same = {name: str(each.value) for name, each in a.attributes.items()} == {
        name: str(each.value) for name, each in b.attributes.items()
    }
    return same and [_type(value) for value in a.outputs] == [_type(value) for value in b.outputs]

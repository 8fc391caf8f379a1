"""Tails: row work that goes on with the results of an array kernel while they are still in the buffer.

Which nodes that can be is decided by data flow alone: all they read is there before the array kernel or made by it, and
nobody else reads what then never leaves the buffer. Whether it pays is for the backend to say, which knows the machine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.infer import reads
from ..frontend.operators import OPERATORS
from .partition import Kernel, leaves
from .rows import Form, Tail, is_elementwise, operand, output_form, result

#: Kinds of array kernels whose results a tail can follow, scaled ones and raw sums.
HEADS = ("linear", "conv", "product")


#: In the place of a kernel whose nodes have all joined another one.
_NOTHING = Kernel("", "", "")


@dataclass(frozen=True)
class Split:
    """One way to divide a row kernel: what joins the array kernel, as a tail, and what stays, if anything does.

    ``views`` are kernels of their own that only name the results differently; they go along.
    """

    kernel: Kernel
    row: Kernel
    rest: Kernel | None
    views: tuple[Kernel, ...]


class Tails:
    """Finds, in kernels in the order they run, what may follow an array kernel in the buffer."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.place = {node: place for place, kernel in enumerate(kernels) for node in kernel.nodes}
        self.kernels = list(kernels)

    def copy(self) -> Tails:
        """Return the same kernels, to try something on."""
        other = copy(self)
        other.place, other.kernels = dict(self.place), list(self.kernels)
        return other

    def together(self, place: int) -> tuple[int, ...]:
        """Return the place of a linear and those of later ones that can run with it in one kernel, if there are any.

        They multiply the same vectors to as many columns, and the same row kernel goes on with their results.
        """
        head = self.kernels[place]
        source, shape = operand(head.nodes[0]), shape_of(head.nodes[0].outputs[0])
        alike = [use.node for use in source.uses() if shape_of(use.node.outputs[0]) == shape]
        others = {self.place[node] for node in alike if node in self.place}
        rows = self._readers(head)[1]
        found = [
            other
            for other in sorted(others)
            if other > place
            and self.kernels[other].kind == head.kind == "linear"
            and self._readers(self.kernels[other])[1] == rows
        ]
        return (place, *found) if found else ()

    def of(self, *places: int) -> Iterator[Split]:
        """Yield the ways to let the kernels at ``places``, as one, go on: by pieces (elementwise), by whole rows."""
        place, head = places[0], _joined([self.kernels[each] for each in places])
        if head.kind not in HEADS:
            return
        views, rows = self._readers(head)
        if len(rows) != 1 or -1 in rows:
            return
        row = self.kernels[next(iter(rows))]
        known = [*head.results, *(value for view in views for node in view.nodes for value in node.outputs)]
        followers = self._followers(row, known, place)
        for whole in (False, True):
            chosen = _best(self._cuts(head, row, views, followers, known, whole=whole))
            if chosen is not None and (not whole or not _pure(chosen.kernel)):
                yield chosen

    def choose(self, place: int, split: Split) -> None:
        """Let the kernel at ``place`` go on as a split says."""
        row = self.place[split.row.nodes[0]]
        for node in split.kernel.nodes:
            self.kernels[self.place[node]] = _NOTHING
        self.kernels[row] = split.rest or _NOTHING
        self.kernels[place] = split.kernel
        self.place.update(dict.fromkeys(split.kernel.nodes, place))

    def _readers(self, head: Kernel) -> tuple[list[Kernel], set[int]]:
        """Return the views on a kernel's results, and the places of the row kernels that read them; -1: others do."""
        views: list[Kernel] = []
        rows: set[int] = set()
        values = head.results
        for value in values:
            if value.is_graph_output() or value in head.kept:
                rows.add(-1)
            for node in dict.fromkeys(use.node for use in value.uses()):
                kernel = self.kernels[self.place[node]] if node in self.place else None
                if kernel is not None and kernel.kind == "view" and not kernel.kept:
                    views.append(kernel)
                    values += node.outputs
                else:
                    rows.add(self.place[node] if kernel is not None and kernel.kind == "row" else -1)
        return list({id(view): view for view in views}.values()), rows

    def _followers(self, row: Kernel, known: Collection[ir.Value], place: int) -> list[ir.Node]:
        """Return the nodes of a row kernel that go on with known values and read nothing that is not there yet.

        Nodes that read no known value come along where only these need them.
        """
        left = list(row.nodes)
        while True:
            found, follows = self._closure(left, known, place)
            inside = set(found)
            useless = {
                node for node in found if node not in follows and any(leaves(value, inside) for value in node.outputs)
            }
            if not useless:
                return found
            left = [node for node in left if node not in useless]

    def _closure(
        self, nodes: Iterable[ir.Node], known: Collection[ir.Value], place: int
    ) -> tuple[list[ir.Node], set[ir.Node]]:
        """Return those of some nodes all of whose operands are there, and which of them go on with known values."""
        there, fed = set(known), set(known)
        found: list[ir.Node] = []
        follows: set[ir.Node] = set()
        for node in nodes:
            needed = list(reads(node))
            if all(value in there or self._made(value) < place for value in needed):
                found.append(node)
                there.update(node.outputs)
                if any(value in fed for value in needed):
                    follows.add(node)
                    fed.update(node.outputs)
        return found, follows

    def _made(self, value: ir.Value) -> int:
        maker = value.producer()
        return self.place.get(maker, -1) if maker is not None else -1

    @staticmethod
    def _cuts(
        head: Kernel,
        row: Kernel,
        views: Sequence[Kernel],
        followers: Sequence[ir.Node],
        known: Collection[ir.Value],
        *,
        whole: bool,
    ) -> Iterator[Split]:
        """Yield the beginnings of ``followers`` that may be a tail, each with what stays of the row kernel."""
        nodes = [node for view in views for node in view.nodes]
        for count in range(1, len(followers) + 1):
            chosen = followers[:count]
            forms = _forms(chosen, row)
            if forms is None or (not whole and not is_elementwise(chosen, forms, views=True)):
                return
            inside = {*chosen, *nodes}
            if any(leaves(value, inside) for value in known):
                continue
            left = [node for node in row.nodes if node not in inside]
            rest = _rest(row, left)
            if left and rest is None:
                continue
            kept = {value for value in row.kept if value.producer() in inside} | head.kept
            tail = Tail(tuple(chosen), tuple(nodes), forms, whole)
            kernel = replace(head, nodes=[*head.nodes, *nodes, *chosen], tail=tail, kept=kept)
            yield Split(kernel, row, rest, tuple(views))


def _joined(heads: Sequence[Kernel]) -> Kernel:
    """Return array kernels as one."""
    if len(heads) == 1:
        return heads[0]
    nodes = [node for head in heads for node in head.nodes]
    reason = f"{heads[0].reason}; {len(heads)} linears that read the same vectors run together"
    return replace(heads[0], reason=reason, nodes=nodes, kept=set().union(*(head.kept for head in heads)))


def _forms(nodes: Sequence[ir.Node], row: Kernel) -> dict[ir.Value, Form] | None:
    """Return the forms of what some nodes of a row kernel make without the others, or None: its rows do not do."""
    forms: dict[ir.Value, Form] = {}
    for node in nodes:
        form = output_form(node, OPERATORS[node.op_type].kind, forms)
        if form is None or form.rows != row.forms[result(node)].rows:
            return None
        forms[result(node)] = form
    return forms


def _rest(row: Kernel, left: Sequence[ir.Node]) -> Kernel | None:
    """Return the row kernel of the nodes that are left, or None where they are no row kernel by themselves."""
    forms = _forms(left, row)
    if forms is None or all(OPERATORS[node.op_type].kind == "view" for node in left):
        return None
    return replace(row, nodes=list(left), forms=forms)


def _pure(kernel: Kernel) -> bool:
    tail = kernel.tail
    return tail is not None and is_elementwise(tail.nodes, tail.forms, views=True)


def _best(splits: Iterable[Split]) -> Split | None:
    """Return the split with the least traffic between buffer and memory; of equal ones the one that goes on longest."""
    return min(splits, key=lambda split: (_traffic(split), -len(split.kernel.nodes)), default=None)


def _traffic(split: Split) -> int:
    """Return the bytes that row work reads and writes after a split, each value once a kernel."""
    tail = split.kernel.tail
    assert tail is not None
    own = Kernel("row", "", "", list(tail.nodes), kept=split.kernel.kept)
    made = {*split.kernel.results, *(value for node in tail.views for value in node.outputs)}
    total = sum(_bytes(value) for value in [*own.inputs(), *own.outputs()] if value not in made)
    return total + (_moved(split.rest) if split.rest is not None else 0)


def saved(split: Split) -> int:
    """Return the bytes of row work's traffic that a split saves: what leaves the array kernel is among it."""
    return _moved(split.row) + sum(map(_bytes, split.kernel.results)) - _traffic(split)


def _moved(kernel: Kernel) -> int:
    return sum(_bytes(value) for value in [*kernel.inputs(), *kernel.outputs()])


def _bytes(value: ir.Value) -> int:
    size = math.prod(shape_of(value))
    return 0 if value.dtype is None or size == 1 else math.ceil(size * value.dtype.itemsize)

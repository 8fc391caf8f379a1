"""Scan and Loop with a known number of turns become their turns, which re-rolling finds again (``passes/repeat.py``).

So there is one way for repetition through the compiler, whoever wrote it, and every node of every turn can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, int_attribute, static_shape
from .infer import inner_nodes
from .limits import MAX_NODES

Values = list[ir.Value]


def unroll(node: ir.Node, editor: Editor) -> list[ir.Node] | None:
    """Put the turns of a Scan or a Loop in its place and return the new nodes, or None where it must stay.

    A Scan's scanned inputs need static shapes; a Loop needs a constant trip count of at least 1 and a condition that
    is constantly true. Neither may become more than :data:`~.limits.MAX_NODES` nodes.
    """
    writer = {"Scan": _scan, "Loop": _loop}.get(node.op_type) if node.domain == "" else None
    turns = writer(node) if writer is not None else None
    if turns is None or turns.count * (1 + sum(1 for _ in inner_nodes(node))) > MAX_NODES:
        return None
    return _Unroller(node, turns, editor).run()


@dataclass(frozen=True)
class _Scanned:
    """A tensor that every turn reads or writes one slice of: the first turn the first one, or the last."""

    axis: int
    reverse: bool

    def place(self, turn: int, count: int) -> int:
        """Return the slice of a turn."""
        return count - 1 - turn if self.reverse else turn


@dataclass(frozen=True)
class _Turns:
    """What a turn reads and writes, in the order of the body's inputs and outputs.

    ``head`` makes the values that a Loop's body gets before its states; ``skip`` outputs come before the states.
    """

    body: ir.Graph
    count: int
    states: tuple[ir.Value, ...]
    scanned: tuple[tuple[ir.Value, _Scanned], ...]
    written: tuple[_Scanned, ...]
    head: Callable[[int, Editor], Values]
    skip: int = 0


def _scan(node: ir.Node) -> _Turns | None:
    body = node.attributes["body"].as_graph()
    number = int_attribute(node, "num_scan_inputs", 0)
    inputs = [value for value in node.inputs if value is not None]
    if len(inputs) != len(node.inputs) or not 0 < number <= len(inputs):
        return None
    states, read = inputs[: len(inputs) - number], inputs[len(inputs) - number :]
    outputs = len(node.outputs) - len(states)
    scanned = _scans(node, "input", read)
    written = [
        _Scanned(axis, bool(reverse))
        for axis, reverse in zip(
            _ints(node, "scan_output_axes", outputs), _ints(node, "scan_output_directions", outputs), strict=True
        )
    ]
    if scanned is None:
        return None
    lengths = {_dims(value)[each.axis] for value, each in zip(read, scanned, strict=True)}
    if len(lengths) != 1 or not (count := lengths.pop()):
        return None
    pairs = tuple(zip(read, scanned, strict=True))
    return _Turns(body, count, tuple(states), pairs, tuple(written), lambda _turn, _editor: [])


def _scans(node: ir.Node, what: str, values: Sequence[ir.Value]) -> list[_Scanned] | None:
    axes = _ints(node, f"scan_{what}_axes", len(values))
    reverse = _ints(node, f"scan_{what}_directions", len(values))
    if any(static_shape(value) is None for value in values):
        return None
    return [
        _Scanned(axis % len(_dims(value)), bool(back)) for value, axis, back in zip(values, axes, reverse, strict=True)
    ]


def _dims(value: ir.Value) -> tuple[int, ...]:
    return static_shape(value) or ()


def _ints(node: ir.Node, name: str, count: int) -> list[int]:
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else [0] * count


def _loop(node: ir.Node) -> _Turns | None:
    body = node.attributes["body"].as_graph()
    trips = constant_array(node.inputs[0]) if node.inputs[0] is not None else None
    if trips is None or trips.size != 1 or not 0 < int(trips.reshape(-1)[0]) <= MAX_NODES:
        return None
    if not _is_true(node.inputs[1]) or not _goes_on(body):
        return None
    states = tuple(value for value in node.inputs[2:] if value is not None)
    written = (_Scanned(0, reverse=False),) * (len(node.outputs) - len(states))

    def head(turn: int, editor: Editor) -> Values:
        number = editor.constant(f"{node.name}.turn", np.array(turn, np.int64).reshape(_dims(body.inputs[0])))
        return [number, editor.constant(f"{node.name}.true", np.array(True).reshape(_dims(body.inputs[1])))]

    return _Turns(body, int(trips.reshape(-1)[0]), states, (), written, head, skip=1)


def _is_true(value: ir.Value | None) -> bool:
    array = constant_array(value)
    return value is None or (array is not None and bool(array.all()))


def _goes_on(body: ir.Graph) -> bool:
    """Return whether a Loop's body never ends the loop: it hands its condition on, or a constant that is true."""
    value: ir.Value | None = body.outputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type == "Identity":
        value = node.inputs[0]
    return value is not None and (value is body.inputs[1] or (constant_array(value) is not None and _is_true(value)))


class _Unroller:
    """Writes the turns of one node in front of it."""

    def __init__(self, node: ir.Node, turns: _Turns, editor: Editor) -> None:
        self.node, self.turns, self.editor = node, turns, editor
        self.nodes: list[ir.Node] = []

    def run(self) -> list[ir.Node]:
        """Write everything; return the new nodes in order."""
        states = list(self.turns.states)
        written: list[Values] = [[] for _ in self.turns.written]
        for turn in range(self.turns.count):
            outputs = self._turn(turn, states)[self.turns.skip :]
            states = outputs[: len(states)]
            for values, value in zip(written, outputs[len(states) :], strict=True):
                values.append(value)
        stacks = [self._stacked(*each) for each in zip(written, self.turns.written, strict=True)]
        results = [self._new("Identity", [value], ".last") for value in states] + stacks
        self.editor.substitute(self.node, results)
        return self.nodes

    def _turn(self, turn: int, states: Values) -> Values:
        count, body = self.turns.count, self.turns.body
        slices = [
            self._new("Gather", [value, self._index(each.place(turn, count))], f".in{turn}", axis=each.axis)
            for value, each in self.turns.scanned
        ]
        given = [*self.turns.head(turn, self.editor), *states, *slices]
        known: dict[ir.Value, ir.Value] = dict(zip(body.inputs, given, strict=True))
        for inner in body:
            self._copy(inner, known, f"{self.node.name}.{turn}/")
        return [known.get(value, value) for value in body.outputs]

    def _copy(self, inner: ir.Node, known: dict[ir.Value, ir.Value], prefix: str) -> None:
        inputs = [None if value is None else known.get(value, value) for value in inner.inputs]
        attributes = [_with_values(attribute, known) for attribute in inner.attributes.values()]
        new = ir.Node(
            inner.domain,
            inner.op_type,
            inputs,
            attributes,
            overload=inner.overload,
            num_outputs=len(inner.outputs),
            name=f"{prefix}{inner.name}",
        )
        new.metadata_props.update({**self.node.metadata_props, **inner.metadata_props})
        for old, value in zip(inner.outputs, new.outputs, strict=True):
            value.name = f"{prefix}{old.name}" if old.name else old.name
            value.type = old.type
            known[old] = value
        self._insert(new)

    def _stacked(self, values: Values, each: _Scanned) -> ir.Value:
        axes = self.editor.constant(f"{self.node.name}.axis", np.array([each.axis], np.int64))
        slices = [self._new("Unsqueeze", [value, axes], f".out{turn}") for turn, value in enumerate(values)]
        return self._new("Concat", slices[::-1] if each.reverse else slices, ".stack", axis=each.axis)

    def _index(self, place: int) -> ir.Value:
        return self.editor.constant(f"{self.node.name}.place", np.array(place, np.int64))

    def _new(self, op_type: str, inputs: Values, suffix: str, **attributes: int) -> ir.Value:
        listed = [ir.AttrInt64(name, number) for name, number in attributes.items()]
        new = ir.Node("", op_type, inputs, listed, name=f"{self.node.name}{suffix}")
        new.metadata_props.update(self.node.metadata_props)
        new.outputs[0].name = f"{self.node.name}{suffix}.{op_type}.{len(self.nodes)}"
        self._insert(new)
        return new.outputs[0]

    def _insert(self, new: ir.Node) -> None:
        self.editor.graph.insert_before(self.node, new)
        self.nodes.append(new)


def _with_values(attribute: ir.Attr, known: dict[ir.Value, ir.Value]) -> ir.Attr:
    """Return an attribute whose subgraphs, copied, read the values of one turn."""
    if attribute.type == ir.AttributeType.GRAPH:
        return ir.AttrGraph(attribute.name, _copied(attribute.as_graph(), known))
    if attribute.type == ir.AttributeType.GRAPHS:
        return ir.AttrGraphs(attribute.name, [_copied(graph, known) for graph in attribute.as_graphs()])
    return attribute


def _copied(graph: ir.Graph, known: dict[ir.Value, ir.Value]) -> ir.Graph:
    copy = graph.clone(allow_outer_scope_values=True)
    for node in copy.all_nodes():
        for place, value in enumerate(node.inputs):
            if value is not None and value in known:
                node.replace_input_with(place, known[value])
    for place, value in enumerate(copy.outputs):
        copy.outputs[place] = known.get(value, value)
    return copy

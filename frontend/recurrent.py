"""LSTM, GRU and RNN become the products and elementwise nodes of their turns, by the equations of the ONNX standard.

The products of all inputs with W are one linear over all turns; the product of the state with R is one a turn. What the
equations do not cover here (clipping, coupled gates, other activations, lengths by batch) stays for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, int_attribute, shape_of
from .limits import MAX_NODES

#: Gates a cell has, and the activations it uses where none are named.
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
#: Activations without parameters, which are operators of their own.
_PLAIN = ("Sigmoid", "Tanh", "Relu")
_MOST_NODES_A_TURN = 32


def recurrent(node: ir.Node, editor: Editor) -> bool:
    """Put turns in the place of an LSTM, a GRU or an RNN; return whether that was possible."""
    layer = _Layer.of(node)
    if layer is None or layer.turns * layer.directions * _MOST_NODES_A_TURN > MAX_NODES:
        return False
    sides = [_Side(layer, side, editor).run() for side in range(layer.directions)]
    outputs = [_joined(editor, node, [each[place] for each in sides], place) for place in range(len(sides[0]))]
    editor.substitute(node, outputs[: len(node.outputs)])
    return True


@dataclass(frozen=True)
class _Layer:
    """What a node says: sizes, directions, activations."""

    node: ir.Node
    turns: int
    batch: int
    hidden: int
    directions: int
    backwards: tuple[bool, ...]
    activations: tuple[tuple[str, ...], ...]
    by_batch: bool

    @classmethod
    def of(cls, node: ir.Node) -> _Layer | None:
        """Read a node; None where it says something that is not covered."""
        inputs, attributes = node.inputs, node.attributes
        x, w = inputs[0], inputs[1]
        if x is None or w is None or "clip" in attributes or int_attribute(node, "input_forget", 0):
            return None
        by_batch = bool(int_attribute(node, "layout", 0))
        batch, turns = shape_of(x)[:2] if by_batch else shape_of(x)[1::-1]
        directions, gates = shape_of(w)[0], GATES[node.op_type]
        direction = attributes["direction"].as_string() if "direction" in attributes else "forward"
        backwards = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction, ())
        used = _activations(node, directions)
        if not turns or len(backwards) != directions or used is None or not _all_turns(node, turns):
            return None
        return cls(node, turns, batch, shape_of(w)[1] // gates, directions, backwards, used, by_batch)

    def input(self, place: int) -> ir.Value | None:
        """Return an input that may be missing."""
        return self.node.inputs[place] if len(self.node.inputs) > place else None


def _activations(node: ir.Node, directions: int) -> tuple[tuple[str, ...], ...] | None:
    default = _ACTIVATIONS[node.op_type]
    named = node.attributes.get("activations")
    names = list(named.as_strings()) if named is not None else list(default) * directions
    known = {name.lower(): name for name in _PLAIN}
    plain = [known.get(name.lower(), "") for name in names]
    if "" in plain or len(plain) != len(default) * directions:
        return None
    return tuple(tuple(plain[side * len(default) :][: len(default)]) for side in range(directions))


def _all_turns(node: ir.Node, turns: int) -> bool:
    """Return whether every sequence has all turns: no lengths are given, or all the same one."""
    lengths = node.inputs[4] if len(node.inputs) > 4 else None
    given = constant_array(lengths)
    return lengths is None or (given is not None and bool((given == turns).all()))


class _Side:
    """One direction of a layer."""

    def __init__(self, layer: _Layer, side: int, editor: Editor) -> None:
        self.layer, self.side, self.editor = layer, side, editor
        self.turn = -1
        self.number = 0
        self.activations = layer.activations[side]

    def run(self) -> list[ir.Value]:
        """Write all turns; return Y, Y_h and Y_c (LSTM) of this direction, with an axis of 1 for it."""
        layer = self.layer
        projected = self._inputs()
        recurrence = self._weight(2)
        start = np.zeros((layer.batch, layer.hidden), np.float32)
        hidden = self._given(5) or self.editor.constant("zeros", start)
        cell = (self._given(6) or self.editor.constant("zeros", start)) if layer.node.op_type == "LSTM" else None
        results: dict[int, ir.Value] = {}
        order = range(layer.turns)[::-1] if layer.backwards[self.side] else range(layer.turns)
        step: Callable[..., tuple[ir.Value, ir.Value | None]] = getattr(self, f"_{layer.node.op_type.lower()}")
        biases, peepholes = self._recurrent_biases(), self._peepholes()
        for self.turn in order:
            x = self._op("Gather", projected, self._number(np.array(self.turn, np.int64)), axis=0)
            hidden, cell = step(x, hidden, cell, recurrence, biases, peepholes)
            results[self.turn] = hidden
        self.turn = -1
        return self._outputs([results[turn] for turn in range(layer.turns)], hidden, cell)

    def _outputs(self, results: list[ir.Value], hidden: ir.Value, cell: ir.Value | None) -> list[ir.Value]:
        by_batch = self.layer.by_batch
        place = self._number(np.array([1 if by_batch else 0], np.int64))
        stacked = self._op("Concat", *[self._op("Unsqueeze", each, place) for each in results], axis=int(by_batch))
        side = self._number(np.array([2 if by_batch else 1], np.int64))
        last = [self._op("Unsqueeze", each, place) for each in (hidden, cell) if each is not None]
        return [self._op("Unsqueeze", stacked, side), *last]

    def _inputs(self) -> ir.Value:
        """Return all inputs times W, with every bias that does not depend on the turn: [turns, batch, gates]."""
        x = self.layer.input(0)
        assert x is not None
        if self.layer.by_batch:
            x = self._op("Transpose", x, perm=[1, 0, 2])
        product = self._op("MatMul", x, self._weight(1))
        bias = self._bias()
        return product if bias is None else self._op("Add", product, bias)

    def _weight(self, place: int) -> ir.Value:
        """Return W or R of this direction, [inputs, gates]."""
        value = self.layer.input(place)
        assert value is not None
        array = constant_array(value)
        if array is not None:
            return self.editor.constant(f"{value.name}.{self.side}", array[self.side].T, value.dtype)
        return self._op("Transpose", self._pick(value), perm=[1, 0])

    def _pick(self, value: ir.Value) -> ir.Value:
        array = constant_array(value)
        if array is not None:
            return self.editor.constant(f"{value.name}.{self.side}", array[self.side], value.dtype)
        return self._op("Gather", value, self._number(np.array(self.side, np.int64)), axis=0)

    def _given(self, place: int) -> ir.Value | None:
        """Return the first state, [batch, hidden], if there is one."""
        value = self.layer.input(place)
        if value is None:
            return None
        if not self.layer.by_batch:
            return self._pick(value)
        return self._op("Gather", value, self._number(np.array(self.side, np.int64)), axis=1)

    def _bias(self) -> ir.Value | None:
        """Return the sum of both halves of B; a GRU whose reset comes after the product keeps one part back."""
        value = self.layer.input(3)
        if value is None:
            return None
        both = self._pick(value)
        size = GATES[self.layer.node.op_type] * self.layer.hidden
        first, second = self._cut(both, 0, size), self._cut(both, size, size)
        if not self._late_reset():
            return self._op("Add", first, second)
        kept = 2 * self.layer.hidden
        zeros = self._number(np.zeros(self.layer.hidden, np.float32))
        return self._op("Add", first, self._op("Concat", self._cut(second, 0, kept), zeros, axis=0))

    def _late_reset(self) -> bool:
        return self.layer.node.op_type == "GRU" and bool(int_attribute(self.layer.node, "linear_before_reset", 0))

    def _recurrent_biases(self) -> ir.Value | None:
        """Return the bias that a GRU adds to the product with its candidate's part of R, if it does."""
        value = self.layer.input(3)
        hidden = self.layer.hidden
        return self._cut(self._pick(value), 5 * hidden, hidden) if value is not None and self._late_reset() else None

    def _peepholes(self) -> list[ir.Value]:
        value = self.layer.input(7)
        if value is None:
            return []
        whole, hidden = self._pick(value), self.layer.hidden
        return [self._cut(whole, place * hidden, hidden) for place in range(3)]

    def _rnn(self, x: ir.Value, hidden: ir.Value, cell: None, weight: ir.Value, *_: object) -> tuple[ir.Value, None]:
        """H = f(X W + H R + b)."""
        return self._op(self.activations[0], self._op("Add", self._op("MatMul", hidden, weight), x)), cell

    def _gru(
        self, x: ir.Value, hidden: ir.Value, cell: None, weight: ir.Value, bias: ir.Value | None, _: object
    ) -> tuple[ir.Value, None]:
        """z, r = f(..); the candidate h = g(X W + (r H) R + b), or with r (H R + b); H = (1 - z) h + z H."""
        f, g = self.activations
        size = self.layer.hidden
        late = self._late_reset()
        part = weight if late else self._cut(weight, 0, 2 * size, axis=1)
        product = self._op("MatMul", hidden, part)
        sums = self._op("Add", self._cut(product, 0, 2 * size), self._cut(x, 0, 2 * size))
        gates = self._op(f, sums)
        update, reset = self._cut(gates, 0, size), self._cut(gates, size, size)
        if late:
            inner = self._cut(product, 2 * size, size)
            inner = self._op("Mul", reset, inner if bias is None else self._op("Add", inner, bias))
        else:
            inner = self._op("MatMul", self._op("Mul", reset, hidden), self._cut(weight, 2 * size, size, axis=1))
        candidate = self._op(g, self._op("Add", inner, self._cut(x, 2 * size, size)))
        one = self._number(np.array(1.0, np.float32))
        kept = self._op("Mul", update, hidden)
        return self._op("Add", self._op("Mul", self._op("Sub", one, update), candidate), kept), cell

    def _lstm(
        self, x: ir.Value, hidden: ir.Value, cell: ir.Value, weight: ir.Value, _: object, peepholes: list[ir.Value]
    ) -> tuple[ir.Value, ir.Value]:
        """i, o, f = f(X W + H R + p C + b); C = f C + i g(..); H = o h(C)."""
        f, g, h = self.activations
        sums = self._op("Add", self._op("MatMul", hidden, weight), x)
        i, o, forget, c = (self._cut(sums, place * self.layer.hidden, self.layer.hidden) for place in range(4))
        if peepholes:
            i = self._op("Add", i, self._op("Mul", peepholes[0], cell))
            forget = self._op("Add", forget, self._op("Mul", peepholes[2], cell))
        kept = self._op("Mul", self._op(f, forget), cell)
        cell = self._op("Add", kept, self._op("Mul", self._op(f, i), self._op(g, c)))
        if peepholes:
            o = self._op("Add", o, self._op("Mul", peepholes[1], cell))
        return self._op("Mul", self._op(f, o), self._op(h, cell)), cell

    def _cut(self, value: ir.Value, start: int, size: int, axis: int = -1) -> ir.Value:
        """Return part of the last (or another) axis."""
        array = constant_array(value)
        if array is not None:
            part = array[..., start : start + size]
            return self.editor.constant(f"{value.name}.{start}", part, value.dtype)
        numbers = [self._number(np.array([each], np.int64)) for each in (start, start + size, axis)]
        return self._op("Slice", value, *numbers)

    def _number(self, array: np.ndarray) -> ir.Value:
        return self.editor.constant(f"{self.layer.node.name}.number", array)

    def _op(self, op_type: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        listed = [
            ir.AttrInt64(name, given) if isinstance(given, int) else ir.AttrInt64s(name, given)
            for name, given in attributes.items()
        ]
        self.number += 1
        where = f".{self.side}" if self.turn < 0 else f".{self.side}.{self.turn}"
        suffix = f"{where}.{op_type}.{self.number}"
        return self.editor.insert(self.layer.node, op_type, inputs, suffix=suffix, attributes=listed)


def _joined(editor: Editor, node: ir.Node, sides: list[ir.Value], place: int) -> ir.Value:
    """Return an output of all directions: side by side along the axis that counts them."""
    if len(sides) == 1:
        return editor.insert(node, "Identity", sides, suffix=f".out{place}")
    by_batch = int_attribute(node, "layout", 0)
    axis = (2 if place == 0 else 1) if by_batch else (1 if place == 0 else 0)
    return editor.insert(node, "Concat", sides, suffix=f".out{place}", attributes=[ir.AttrInt64("axis", axis)])

"""Small, safe edits of an onnx_ir graph: constants, inserted nodes, one value in another's place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from .routing import Routings

INTERN_LIMIT = 1024  # elements: equal constants up to this size become one initializer


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Return the dims of ``value`` if every one is a known number, else None."""
    if value.shape is None or not value.shape.is_static():
        return None
    return value.shape.numpy()


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """Return the dims of a value that is known to be static; ValueError where it is not."""
    dims = static_shape(value)
    if dims is None:
        raise ValueError(f"value '{value.name}' has no static shape")
    return dims


def free_name(graph: ir.Graph, wished: str) -> str:
    """Return ``wished``, or that with a number behind it where a value of the graph is called so already."""
    taken = set(graph.initializers) | {str(value.name) for value in graph.inputs}
    taken |= {str(value.name) for node in graph.all_nodes() for value in node.outputs}
    name, number = wished, 0
    while name in taken:
        number += 1
        name = f"{wished}_{number}"
    return name


def is_constant(value: ir.Value | None) -> bool:
    """Return whether ``value`` is an initializer that no caller of the graph can replace."""
    return value is not None and value.const_value is not None and value.is_initializer()


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """Return the numbers of a constant (memory-mapped where it lies on disk), or None for anything else."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute of ``node``, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute of ``node``, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def _nothing(_old: ir.Value, _new: ir.Value) -> None:
    """Take no notice."""


class Editor:
    """Edits of one graph; nodes it inserts are remembered until :meth:`take_inserted`.

    ``sequences`` holds the tensors of every sequence that is known.
    ``on_substitute`` is told of every value that takes the place of another. ``routings`` is there where mixtures of
    experts are to be found.
    """

    def __init__(self, graph: ir.Graph, routings: Routings | None = None) -> None:
        self.graph, self.routings = graph, routings
        self._interned: dict[tuple[object, ...], ir.Value] = {}
        self._inserted: list[ir.Node] = []
        self.sequences: dict[ir.Value, list[ir.Value]] = {}
        self.on_substitute: Callable[[ir.Value, ir.Value], None] = _nothing
        for value in tuple(graph.initializers.values()):
            self._intern(value)

    def _intern(self, value: ir.Value) -> None:
        """Remember a small initializer, or let an equal one that is known take its place."""
        tensor = value.const_value
        if tensor is None or tensor.size > INTERN_LIMIT or tensor.dtype == ir.DataType.STRING:
            return
        if value.is_graph_output():
            return
        known = self._interned.setdefault((tensor.dtype, tensor.shape.numpy(), tensor.tobytes()), value)
        if known is not value:
            value.replace_all_uses_with(known)
            del self.graph.initializers[str(value.name)]

    def constant(
        self, name: str, array: np.ndarray, dtype: ir.DataType | None = None, *, shared: bool = True
    ) -> ir.Value:
        """Return an initializer that holds ``array``.

        Args:
            name: its wished name; a number is added where that is taken.
            array: the numbers; kept as they are, so a view of a memory map stays one.
            dtype: element type where numpy's alone does not tell (4-bit numbers).
            shared: whether an equal small constant may be returned in its stead.
        """
        tensor = ir.Tensor(array, dtype=dtype) if dtype is not None else ir.Tensor(array)
        key: tuple[object, ...] = ()
        if shared and array.size <= INTERN_LIMIT:
            key = (tensor.dtype, array.shape, array.tobytes())
            if key in self._interned:
                return self._interned[key]
        value = self._register(name, tensor)
        if key:
            self._interned[key] = value
        return value

    def _register(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        unique, number = name, 0
        while unique in self.graph.initializers:
            number += 1
            unique = f"{name}_{number}"
        tensor.name = unique
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=unique, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def insert(
        self,
        origin: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        suffix: str = "",
        attributes: Iterable[ir.Attr] = (),
        place: int = 0,
    ) -> ir.Value:
        """Put a node in front of ``origin``, named after it, and return its output at ``place``, the last it has."""
        node = ir.Node("", op_type, inputs, attributes, num_outputs=place + 1, name=f"{origin.name}{suffix}")
        node.metadata_props.update(origin.metadata_props)
        for number, output in enumerate(node.outputs):
            dropped = f".unused{number}" if number < place else ""
            output.name = f"{origin.outputs[0].name}{suffix or '.' + op_type}{dropped}"
        self.adopt(origin, node)
        return node.outputs[place]

    def adopt(self, origin: ir.Node, node: ir.Node) -> None:
        """Put a node in front of ``origin``."""
        self.graph.insert_before(origin, node)
        self._inserted.append(node)

    def take_inserted(self) -> list[ir.Node]:
        """Return the nodes inserted since the last call, in graph order."""
        taken, self._inserted = self._inserted, []
        return taken

    def can_stand_for(self, value: ir.Value, old: ir.Value) -> bool:
        """Return whether ``value`` may take the place of ``old`` without changing the graph's signature."""
        if not old.is_graph_output():
            return True
        producer = value.producer()
        return producer is not None and producer.graph is self.graph and not value.is_graph_output()

    def substitute(self, node: ir.Node, values: Sequence[ir.Value]) -> None:
        """Let ``values`` take the place of all outputs of ``node``, names of graph outputs included; remove it."""
        for old, new in zip(node.outputs, values, strict=True):
            kept = old.is_graph_output() or (new.producer() is not None and new.producer() in self._inserted)
            self.on_substitute(old, new)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if kept:
                name, old.name = old.name, None
                new.name = name
        self.graph.remove(node, safe=True)

"""Which inputs of a model are caches that grow: what they hold of the past is joined with what a step adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..isa.errors import FlexcError
from .dims import parse
from .edit import int_attribute

_SAME = {"Identity", "Concat"}  # a Concat of one operand, as legacy exporters write it


@dataclass(frozen=True)
class Cache:
    """A growing cache: ``join`` puts ``past`` and what a step adds together along ``axis``, output ``present``."""

    past: ir.Value
    axis: int
    join: ir.Node
    present: str

    @property
    def new(self) -> ir.Value:
        """What the step adds."""
        value = self.join.inputs[1]
        assert value is not None
        return value


def find_caches(graph: ir.Graph) -> list[Cache]:
    """Return the growing caches: an input joined at its end, along a dynamic dim, with something; that is an output."""
    inputs = set(graph.inputs)
    caches = []
    for node in graph:
        if node.op_type != "Concat" or node.domain != "" or len(node.inputs) != 2:
            continue
        past = source(node.inputs[0])
        shape = past.shape if past is not None else None
        present = _output_name(node.outputs[0], past.dtype) if past is not None else ""
        if past is None or shape is None or past not in inputs or not present:
            continue
        axis = int_attribute(node, "axis", 0) % len(shape)
        if isinstance(shape[axis], ir.SymbolicDim):
            caches.append(Cache(past, axis, node, present))
    return caches


def source(value: ir.Value | None) -> ir.Value | None:
    """Return what a value is a mere name of."""
    while value is not None and (node := value.producer()) is not None:
        if node.domain != "" or node.op_type not in _SAME or len(node.inputs) != 1:
            break
        value = node.inputs[0]
    return value


def _output_name(value: ir.Value, dtype: ir.DataType | None) -> str:
    """Return the name of the graph output that a value is, by that name or another; empty where it is none.

    A Cast to ``dtype``, which the value has, is another name (some models keep their caches in a type of their own).
    """
    if value.is_graph_output():
        return str(value.name)
    nodes = [use.node for use in value.uses()]
    same = [node for node in nodes if node.op_type == "Identity" or int_attribute(node, "to", 0) == dtype]
    return next((name for node in same if (name := _output_name(node.outputs[0], dtype))), "")


def long_dims(graph: ir.Graph, caches: Sequence[Cache]) -> dict[str, dict[int, str]]:
    """Return, for inputs by name, the axes that grow with the past: ``past``, or ``total`` for past and step together.

    A total is a dim of an attention mask, or named by a formula in which the past occurs; the names themselves are not
    believed (exporters name equal sizes differently, and ``past + 1`` where a step has more).
    """
    found: dict[str, dict[int, str]] = {}
    for cache in caches:
        found.setdefault(str(cache.past.name), {})[cache.axis] = "past"
    pasts = {symbol(cache.past, cache.axis) for cache in caches}
    others = [value for value in graph.inputs if str(value.name) not in found]
    elsewhere = {text for value in others if not _is_mask(value) for text in _texts(value)}
    for value in others:
        for axis, text in enumerate(_texts(value)):
            derived = text not in pasts and bool(pasts & set(parse(text).symbols))
            masked = _is_mask(value) and text not in elsewhere and axis == len(value.shape or ()) - 1
            if text and (derived or masked):
                found.setdefault(str(value.name), {})[axis] = "total"
            elif text in pasts:
                found.setdefault(str(value.name), {})[axis] = "past"
    return found


def _is_mask(value: ir.Value) -> bool:
    name = str(value.name).lower()
    return "mask" in name and "encoder" not in name


def _texts(value: ir.Value) -> list[str]:
    return [symbol(value, axis) for axis in range(len(value.shape or ()))]


def symbol(value: ir.Value, axis: int) -> str:
    """Return the name of a dim as the model writes it, ``?`` where it has none; empty where it is a number."""
    dim = value.shape[axis] if value.shape is not None else 0
    return (dim.value or "?") if isinstance(dim, ir.SymbolicDim) else ""


def set_dims(graph: ir.Graph, dims: Mapping[str, Mapping[int, int]]) -> None:
    """Make some dims of inputs numbers: input -> axis -> size."""
    for value in graph.inputs:
        sizes = dims.get(str(value.name), {})
        if value.shape is not None and sizes:
            value.shape = ir.Shape([sizes.get(axis, dim) for axis, dim in enumerate(value.shape)])


def without(caches: Sequence[Cache], graph: ir.Graph, where: str) -> Iterator[FlexcError]:
    """Yield inputs that are as long as the past by name, but are joined with nothing; those of an encoder are not."""
    known, pasts = {cache.past for cache in caches}, {symbol(cache.past, cache.axis) for cache in caches} - {"?"}
    for value in graph.inputs:
        name = str(value.name).lower()
        if (
            value not in known
            and name.startswith(("past", "cache"))
            and "mask" not in name
            and pasts & set(_texts(value))
        ):
            yield FlexcError(
                f"input '{value.name}' is not joined with what a step adds: no Concat of both is an output",
                where=where,
                remedy="export the model with the joined caches as outputs (present), or without --cache",
            )

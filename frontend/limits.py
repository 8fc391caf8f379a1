"""Limits on what a file may ask for, so that a hostile or broken one is refused quickly and in little memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from ..isa.errors import FlexcError, raise_all
from .edit import static_shape
from .rules import ELEMENT_TYPES

MAX_NODES = 100_000
"""Nodes of a graph, functions expanded and subgraphs included. The largest exports seen have some 20,000."""

MAX_ELEMENTS = 1 << 34
"""Elements of one tensor: the largest embeddings in use have some 2^32."""

_TOO_MANY = "export fewer layers or a shorter sequence, or keep loops rolled"

_Function = tuple[str, str, str]


def check_node_count(model: ir.Model, where: str) -> None:
    """Refuse a model that has too many nodes once its functions are expanded, without expanding them.

    Raises:
        FlexcError: more than :data:`MAX_NODES` nodes, or a function that calls itself.
    """
    sizes = _function_sizes(model, where)
    count = 0
    for node in model.graph.all_nodes():
        count += sizes.get(node.op_identifier(), 1)
        refuse_many_nodes(count, where)


def refuse_many_nodes(count: int, where: str) -> None:
    """Refuse a model of `count` nodes or more when that is too many.

    Raises:
        FlexcError: it is more than :data:`MAX_NODES`.
    """
    if count > MAX_NODES:
        text = f"has more than {MAX_NODES} nodes, functions expanded"
        raise FlexcError(text, where=where, remedy=_TOO_MANY)


def _function_sizes(model: ir.Model, where: str) -> dict[_Function, int]:
    """Count the nodes of every function, those that it calls expanded."""
    sizes: dict[_Function, int] = {}
    for start in model.functions:
        _measure(model, start, sizes, where)
    return sizes


def _measure(model: ir.Model, start: _Function, sizes: dict[_Function, int], where: str) -> None:
    """Measure one function after those that it calls; the path of open calls stands on a stack of our own."""
    open_calls = [start]
    while open_calls:
        current = open_calls[-1]
        bodies = [node.op_identifier() for node in model.functions[current].all_nodes()]
        missing = [each for each in bodies if each in model.functions and each not in sizes]
        if not missing or current in sizes:
            sizes[current] = min(sum(sizes.get(each, 1) for each in bodies), MAX_NODES + 1)
            open_calls.pop()
        elif missing[0] in open_calls:
            text = f"function '{missing[0][1]}' calls itself"
            raise FlexcError(text, where=where, remedy="ONNX allows no recursion: export the model again")
        else:
            open_calls.append(missing[0])


def check_sizes(graph: ir.Graph, where: str) -> None:
    """Refuse tensors that are larger than any that is computed in practice, and inputs and outputs without elements.

    What has no elements in between is a constant once the graph is simplified.

    Raises:
        FlexcError: all such tensors, by name.
    """
    raise_all([problem for value in _values(graph) if (problem := _size_problem(value, where)) is not None])


def check_types(graph: ir.Graph, where: str) -> None:
    """Refuse inputs and outputs of element types that the machine cannot hold.

    Raises:
        FlexcError: all of them.
    """
    ends = [("input", value) for value in graph.inputs] + [("output", value) for value in graph.outputs]
    known = ", ".join(sorted(ELEMENT_TYPES))
    raise_all(
        [
            FlexcError(
                f"has element type {value.dtype.name}: the machine holds {known}",
                where=f"{where}: {kind} '{value.name}'",
                remedy="export the model with one of these",
            )
            for kind, value in ends
            if value.dtype is not None and value.dtype.name not in ELEMENT_TYPES
        ]
    )


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _size_problem(value: ir.Value, where: str) -> FlexcError | None:
    shape = static_shape(value)
    if shape is None or not (value.uses() or value.is_graph_output()):
        return None
    place = f"{where}: '{value.name}'"
    elements = math.prod(shape)
    if min(shape, default=1) < 0:
        return FlexcError(f"has a negative dim: {list(shape)}", where=place, remedy="export the model again")
    if elements > MAX_ELEMENTS:
        text = f"has {elements} elements, shape {list(shape)}; at most {MAX_ELEMENTS} are allowed"
        return FlexcError(text, where=place, remedy="check the shapes given, or the file")
    if elements == 0 and (value.is_graph_input() or value.is_graph_output()):
        return FlexcError(f"has no elements, shape {list(shape)}", where=place, remedy="give shapes without zeros")
    return None

"""Binding dynamic input dims to the numbers the user gives (``--shape NAME=1x256``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..isa.errors import FlexcError, did_you_mean, raise_all


def bind_shapes(graph: ir.Graph, shapes: Mapping[str, Sequence[int]], where: str) -> None:
    """Make the shape of every graph input static.

    A symbol bound through one input holds for every other input that has it.

    Args:
        graph: its inputs get static shapes.
        shapes: input name -> all its dims.
        where: name of the model in error messages.

    Raises:
        FlexcError: an unknown name, a shape that contradicts the model, or inputs left dynamic (all listed).
    """
    inputs = {str(value.name): value for value in graph.inputs}
    raise_all([_unknown(name, list(inputs), where) for name in shapes if name not in inputs])
    for value in inputs.values():
        if not isinstance(value.type, ir.TensorType):
            raise FlexcError(
                f"input '{value.name}' is not a tensor", where=where, remedy="export the model with tensor inputs only"
            )
    symbols: dict[str, tuple[int, str]] = {}
    raise_all([problem for name in shapes for problem in _bind(inputs[name], shapes[name], symbols, where)])
    for value in graph.inputs:
        if value.shape is not None:
            known = {symbol: number for symbol, (number, _) in symbols.items()}
            value.shape = ir.Shape([_resolve(dim, known) for dim in value.shape])
    _refuse_dynamic(graph, where)


def _unknown(name: str, inputs: Sequence[str], where: str) -> FlexcError:
    hint = did_you_mean(name, inputs)
    listed = ", ".join(inputs) if inputs else "none"
    text = f"a shape is given for '{name}', which is no input of the model"
    return FlexcError(text, where=where, remedy=hint or f"inputs: {listed}")


def _resolve(dim: int | ir.SymbolicDim, known: Mapping[str, int]) -> int | ir.SymbolicDim:
    return dim if isinstance(dim, int) else known.get(dim.value or "", dim)


def _bind(value: ir.Value, dims: Sequence[int], symbols: dict[str, tuple[int, str]], where: str) -> list[FlexcError]:
    """Bind one input; return what is wrong with the given dims."""
    given = "x".join(map(str, dims))
    place = f"shape {given} given for input '{value.name}'"
    if any(dim < 1 for dim in dims):
        return [FlexcError(f"{place} has a dim below 1", where=where, remedy="give positive whole numbers")]
    declared = value.shape
    if declared is not None and len(declared) != len(dims):
        text = f"{place} has {len(dims)} dims, the model declares {len(declared)}: {_text(value)}"
        return [FlexcError(text, where=where, remedy=f"give all dims, as in {_example(value)}")]
    problems = []
    for axis, (new, old) in enumerate(zip(dims, declared or [None] * len(dims), strict=True)):
        if isinstance(old, int) and old != new:
            text = f"{place}: dim {axis} is {new}, the model fixes it to {old}"
            remedy = f"give {old}, or export the model with that dim dynamic"
            problems.append(FlexcError(text, where=where, remedy=remedy))
        elif isinstance(old, ir.SymbolicDim) and old.value:
            bound, owner = symbols.setdefault(old.value, (new, str(value.name)))
            if bound != new:
                text = f"{place}: dim {axis} makes '{old.value}' {new}, input '{owner}' makes it {bound}"
                problems.append(FlexcError(text, where=where, remedy="give the same number in both"))
    value.shape = ir.Shape(dims)
    return problems


def _text(value: ir.Value) -> str:
    if value.shape is None:
        return "[rank unknown]"
    return "[" + ", ".join(_name(dim) for dim in value.shape) + "]"


def _name(dim: int | ir.SymbolicDim) -> str:
    return str(dim) if isinstance(dim, int) else dim.value or "?"


def _example(value: ir.Value) -> str:
    dims = value.shape if value.shape is not None else (1, 256)
    return f"--shape {value.name}=" + "x".join(str(dim) if isinstance(dim, int) else "16" for dim in dims)


def _refuse_dynamic(graph: ir.Graph, where: str) -> None:
    open_inputs = [value for value in graph.inputs if value.shape is None or not value.shape.is_static()]
    if open_inputs:
        listed = "; ".join(f"'{value.name}' {_text(value)}" for value in open_inputs)
        examples = " ".join(_example(value) for value in open_inputs)
        text = f"dynamic input shapes must be bound to numbers: {listed}"
        raise FlexcError(text, where=where, remedy=f"add, with your sizes, {examples}")

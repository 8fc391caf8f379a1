"""Binding dynamic input dims to the numbers the user gives (``--dim seq=128``, ``--shape NAME=1x256``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from ..isa.errors import FlexcError, did_you_mean, raise_all
from .dims import Name, parse

_EXAMPLE = 16  # the size that remedies show


def bind_shapes(
    graph: ir.Graph, shapes: Mapping[str, Sequence[int]], where: str, dims: Mapping[str, int] | None = None
) -> None:
    """Make the shape of every graph input static.

    A symbol bound through one input, or by name, holds for every other input that has it; so do dims derived from
    symbols (``past + seq``), in both directions where all symbols but one are known.

    Args:
        graph: its inputs get static shapes.
        shapes: input name -> all its dims.
        where: name of the model in error messages.
        dims: symbol (or derived name, as the model writes it) -> number.

    Raises:
        FlexcError: an unknown name, a shape or number that contradicts the model or another, or inputs left dynamic
            (all listed, with their symbols).
    """
    inputs = {str(value.name): value for value in graph.inputs}
    for value in inputs.values():
        if not isinstance(value.type, ir.TensorType):
            raise FlexcError(
                f"input '{value.name}' is not a tensor", where=where, remedy="export the model with tensor inputs only"
            )
    raise_all([_unknown(name, list(inputs), where) for name in shapes if name not in inputs])
    binding = _Binding(inputs, where)
    raise_all([*binding.by_name(dims or {}), *(each for name in shapes for each in binding.by_shape(name, shapes))])
    raise_all(list(binding.settle()))
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([binding.resolve(dim) for dim in value.shape])
    _refuse_dynamic(graph, binding.known, where)


class _Binding:
    """What is known of symbols, and who said so."""

    def __init__(self, inputs: Mapping[str, ir.Value], where: str) -> None:
        self.inputs, self.where = inputs, where
        self.known: dict[str, int] = {}
        self.said: dict[str, str] = {}
        self.equations: list[tuple[Name, int, str]] = []

    def names(self) -> dict[str, list[str]]:
        """Return every symbol and derived name of the inputs, and the inputs that use it."""
        found: dict[str, list[str]] = {}
        for name, value in self.inputs.items():
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value:
                    for text in dict.fromkeys((*parse(dim.value).symbols, dim.value)):
                        found.setdefault(text, []).append(name)
        return found

    def by_name(self, dims: Mapping[str, int]) -> Iterator[FlexcError]:
        """Bind symbols by name; yield what is wrong."""
        names = self.names()
        for name, number in dims.items():
            if name not in names:
                listed = "; ".join(f"{each} in {', '.join(used)}" for each, used in names.items()) or "none"
                hint = did_you_mean(name, list(names)) or f"dynamic dims: {listed}"
                yield FlexcError(f"--dim {name}: no input has a dim of that name", where=self.where, remedy=hint)
            elif number < 0:
                text = f"--dim {name}={number} is below 0"
                yield FlexcError(text, where=self.where, remedy="give a whole number of elements")
            else:
                self.bind(parse(name), number, f"--dim {name}")

    def by_shape(self, name: str, shapes: Mapping[str, Sequence[int]]) -> Iterator[FlexcError]:
        """Bind the dims of one input; yield what is wrong with those given."""
        value, dims = self.inputs[name], shapes[name]
        place = f"shape {'x'.join(map(str, dims))} given for input '{name}'"
        if any(dim < 0 for dim in dims):
            yield FlexcError(f"{place} has a dim below 0", where=self.where, remedy="give whole numbers of elements")
            return
        declared = value.shape
        if declared is not None and len(declared) != len(dims):
            text = f"{place} has {len(dims)} dims, the model declares {len(declared)}: {_text(value)}"
            yield FlexcError(text, where=self.where, remedy=f"give all dims, as in {_example(value)}")
            return
        bound: list[int | ir.SymbolicDim] = []
        for axis, (new, old) in enumerate(zip(dims, declared or [None] * len(dims), strict=True)):
            if isinstance(old, int) and old != new:
                text = f"{place}: dim {axis} is {new}, the model fixes it to {old}"
                remedy = f"give {old}, or export the model with that dim dynamic"
                yield FlexcError(text, where=self.where, remedy=remedy)
            if isinstance(old, ir.SymbolicDim) and old.value:
                self.bind(parse(old.value), new, f"dim {axis} of input '{name}'")
                bound.append(old)
            else:
                bound.append(new)
        value.shape = ir.Shape(bound)

    def bind(self, name: Name, number: int, source: str) -> None:
        """Note that a dim is a number; contradictions are found by :meth:`settle`."""
        if name.text not in self.known and not name.derived:
            self.known[name.text], self.said[name.text] = number, source
        else:
            self.equations.append((name, number, source))

    def settle(self) -> Iterator[FlexcError]:
        """Work out symbols from derived dims until nothing new comes; yield every contradiction."""
        solved = True
        while solved:
            solved = False
            for name, number, source in self.equations:
                found = name.solve(number, self.known)
                if found is not None and found[1] >= 0:
                    self.known[found[0]], self.said[found[0]], solved = found[1], source, True
        for name, number, source in self.equations:
            value = name.value(self.known)
            if value is None and all(symbol in self.known for symbol in name.symbols):
                value = -1
            if value is None:
                self.known[name.text] = number
            elif value != number:
                yield self._contradiction(name, number, source, value)

    def _contradiction(self, name: Name, number: int, source: str, value: int) -> FlexcError:
        others = ", ".join(f"{self.said[each]} makes '{each}' {self.known[each]}" for each in name.symbols)
        means = f", so '{name.text}' is {value}" if name.derived else ""
        return FlexcError(
            f"{source} makes '{name.text}' {number}, but {others}{means}",
            where=self.where,
            remedy="give numbers that agree; if the model means two sizes by one name, export it with a name for each",
        )

    def resolve(self, dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
        """Return the number of a dim where it is known."""
        if isinstance(dim, int) or not dim.value:
            return dim
        value = parse(dim.value).value(self.known)
        return dim if value is None or value < 0 else value


def _unknown(name: str, inputs: Sequence[str], where: str) -> FlexcError:
    hint = did_you_mean(name, inputs)
    listed = ", ".join(inputs) if inputs else "none"
    text = f"a shape is given for '{name}', which is no input of the model"
    return FlexcError(text, where=where, remedy=hint or f"inputs: {listed}")


def _text(value: ir.Value) -> str:
    if value.shape is None:
        return "[rank unknown]"
    return "[" + ", ".join(_name(dim) for dim in value.shape) + "]"


def _name(dim: int | ir.SymbolicDim) -> str:
    return str(dim) if isinstance(dim, int) else dim.value or "?"


def _example(value: ir.Value) -> str:
    dims = value.shape if value.shape is not None else (1, 256)
    return f"--shape {value.name}=" + "x".join(str(dim) if isinstance(dim, int) else str(_EXAMPLE) for dim in dims)


def _refuse_dynamic(graph: ir.Graph, known: Mapping[str, int], where: str) -> None:
    open_inputs = [value for value in graph.inputs if value.shape is None or not value.shape.is_static()]
    if open_inputs:
        listed = "; ".join(f"'{value.name}' {_text(value)}" for value in open_inputs)
        text = f"dynamic input shapes must be bound to numbers: {listed}"
        raise FlexcError(text, where=where, remedy=f"add, with your sizes, {' '.join(_words(open_inputs, known))}")


def _words(values: Sequence[ir.Value], known: Mapping[str, int]) -> list[str]:
    """Return the words of a command line that bind all dims: by symbol, and by shape where a dim has no name."""
    symbols: dict[str, None] = {}
    shapes = []
    for value in values:
        dims = [dim for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)]
        if value.shape is None or not all(dim.value for dim in dims):
            shapes.append(_example(value))
        else:
            symbols.update((symbol, None) for dim in dims for symbol in parse(str(dim.value)).symbols)
    missing = [f"{name}={_EXAMPLE}" for name in symbols if name not in known]
    return [*(f"--dim {each}" if " " not in each else f'--dim "{each}"' for each in missing), *shapes]

"""What a model declares at its ends, as onnxruntime says it; and which inputs are caches, masks or positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flexc.argument_types import array_of
from flexc.compiler import Model
from flexc.emulation import Arrays
from flexc.frontend.caches import find_caches, long_dims
from flexc.frontend.own_pasts import write_joins_out
from flexc.frontend.source import read
from flexc.isa.errors import FlexcError, did_you_mean, raise_all

#: Element types that onnxruntime names otherwise than numpy.
_TYPES = {"float16": "float16", "float32": "float", "float64": "double", "bool": "bool"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output: its dims are numbers, symbols, or None where nothing is declared."""

    name: str
    shape: list[int | str | None]
    type: str
    dtype: np.dtype[Any] = field(repr=False)


@dataclass(frozen=True)
class Signature:
    """The ends of a model.

    ``caches`` are the inputs that grow and the outputs that they become; ``axes`` the axis along which; ``long`` other
    inputs, such as attention masks, that are as long as a cache after the step, and the axis.
    """

    inputs: tuple[NodeArg, ...]
    outputs: tuple[NodeArg, ...]
    caches: Mapping[str, str]
    axes: Mapping[str, int]
    long: Mapping[str, int]

    def checked(self, feed: Mapping[str, npt.ArrayLike]) -> Arrays:
        """Return the arrays of a feed, whose names, types and known dims are the model's; inputs may be left out.

        Raises:
            FlexcError: all that does not fit.
        """
        arguments = {each.name: each for each in self.inputs}
        arrays = {name: array_of(name, value) for name, value in feed.items()}
        raise_all([problem for name, array in arrays.items() if (problem := _misfit(name, array, arguments))])
        return arrays

    def dims(self, arrays: Arrays) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
        """Return the numbers that arrays give to symbols, and the shapes of inputs that have dims without one.

        Dims that are as long as a cache are left out: they follow from its capacity.
        """
        symbols: dict[str, int] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for argument in self.inputs:
            if argument.name not in arrays:
                continue
            size = arrays[argument.name].shape
            skipped = self.axes.get(argument.name, self.long.get(argument.name))
            for axis, dim in enumerate(argument.shape):
                if isinstance(dim, str) and axis != skipped and symbols.setdefault(dim, size[axis]) != size[axis]:
                    raise FlexcError(
                        f"input '{argument.name}' makes '{dim}' {size[axis]}, another input {symbols[dim]}"
                    )
            if skipped is None and None in argument.shape:
                shapes[argument.name] = size
        return symbols, shapes

    def step(self, arrays: Arrays) -> int:
        """Return how many positions a feed adds: the first dynamic dim, after the batch, of other inputs."""
        for argument in self.inputs:
            if argument.name in arrays and argument.name not in self.caches and argument.name not in self.long:
                shape = arrays[argument.name].shape
                dynamic = [axis for axis, dim in enumerate(argument.shape) if axis and not isinstance(dim, int)]
                if dynamic or len(shape) > 1:
                    return int(shape[dynamic[0] if dynamic else 1])
        return 1

    def padded(self, arrays: Arrays, total: int, capacity: int) -> Arrays:
        """Return masks and the like as long as the capacity, zero behind what a feed holds.

        Raises:
            FlexcError: one is not as long as the caches will be after the step.
        """
        found = {}
        for name, axis in self.long.items():
            if name in arrays:
                array = arrays[name]
                if array.shape[axis] != total:
                    text = f"input '{name}' has {array.shape[axis]} positions; past and step together have {total}"
                    raise FlexcError(text)
                sizes = [capacity if place == axis else size for place, size in enumerate(array.shape)]
                found[name] = np.zeros(sizes, array.dtype)
                found[name][tuple(slice(0, size) for size in array.shape)] = array
        return found

    def past(self, arrays: Arrays) -> int | None:
        """Return how many positions the caches of a feed hold, None where it has none of them.

        Raises:
            FlexcError: only some are there, or they differ in length.
        """
        given = {name: arrays[name].shape[self.axes[name]] for name in self.caches if name in arrays}
        if not given:
            return None
        missing = [name for name in self.caches if name not in given]
        if missing:
            raise FlexcError(
                f"input '{missing[0]}' is missing", remedy="give all caches, or none to go on from the last run"
            )
        if len(set(given.values())) > 1:
            listed = ", ".join(f"{name}: {length}" for name, length in given.items())
            raise FlexcError(f"the caches hold different numbers of positions ({listed})")
        return int(next(iter(given.values())))


def read_signature(model: Model) -> Signature:
    """Return the ends of a model; weights are not read.

    Raises:
        FlexcError: a model that cannot be read, or an end that is no tensor.
    """
    graph = read(model)[0].graph
    held = set(graph.initializers)
    inputs = tuple(_argument(value) for value in graph.inputs if value.name not in held)
    outputs = tuple(_argument(value) for value in graph.outputs)
    write_joins_out(graph)
    caches = find_caches(graph)
    long = long_dims(graph, caches) if caches else {}
    pasts = {str(cache.past.name): cache for cache in caches}
    return Signature(
        inputs,
        outputs,
        {name: cache.present for name, cache in pasts.items()},
        {name: cache.axis for name, cache in pasts.items()},
        {name: next(iter(axes)) for name, axes in long.items() if name not in pasts},
    )


def _argument(value: ir.Value) -> NodeArg:
    if not isinstance(value.type, ir.TensorType):
        raise FlexcError(f"'{value.name}' is not a tensor", remedy="export the model with tensors only")
    dtype = np.dtype(value.type.dtype.numpy())
    shape = [dim if isinstance(dim, int) else dim.value for dim in value.shape or ()]
    return NodeArg(str(value.name), shape, f"tensor({_TYPES.get(dtype.name, dtype.name)})", dtype)


def _misfit(name: str, array: npt.NDArray[Any], arguments: Mapping[str, NodeArg]) -> FlexcError | None:
    if name not in arguments:
        hint = did_you_mean(name, list(arguments)) or f"inputs: {', '.join(arguments)}"
        return FlexcError(f"the model has no input '{name}'", remedy=hint)
    wanted = arguments[name]
    if array.dtype != wanted.dtype:
        return FlexcError(
            f"input '{name}' is {wanted.dtype}, not {array.dtype}", remedy=f"give .astype({wanted.dtype})"
        )
    fixed = [(dim, size) for dim, size in zip(wanted.shape, array.shape, strict=False) if isinstance(dim, int)]
    if array.ndim != len(wanted.shape) or any(dim != size for dim, size in fixed):
        return FlexcError(f"input '{name}' is {wanted.shape}, not {list(array.shape)}")
    return None

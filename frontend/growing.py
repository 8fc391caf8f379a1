"""A cache that grows becomes one of fixed capacity, of which a number of positions, known at run time, is valid.

What a step adds is written into the cache at its place (ScatterND); everything that was as long as the past and the
step together is as long as the capacity, and what it holds beyond the valid positions must not count: it is masked
before Softmax, and made neutral before anything else adds up or compares along that axis. Results are those of the
model as exported, at every length up to the capacity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

import onnx_ir as ir
from onnx_ir.passes import common

from ..isa.errors import FlexcError, raise_all
from .bind import bind_shapes
from .caches import Cache, find_caches, long_dims, set_dims, symbol, without
from .length_rules import Rules
from .lengths import Lengths
from .own_pasts import write_joins_out
from .probe import Facts, probe
from .states import STATE_KEY

VALID = "past_length"  # the input that says how many positions are valid before a step
CACHE_KEY = "flexc.cache"  # metadata of the model, JSON: the input that says so, and outputs as long as a cache: axis
_APART = (3, 10)  # between the lengths that are compared
_TRIAL = 5  # a length that no shape of a model is likely to have by chance


def hold_caches(
    model: ir.Model, capacity: int, shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int], where: str
) -> tuple[Mapping[str, Sequence[int]], Mapping[str, int]]:
    """Rewrite the growing caches of a model, in place, for a fixed capacity.

    Afterwards the past inputs and the present outputs are ``capacity`` positions long, and one more input,
    ``past_length`` (int64 [1]), says how many of them are valid before the step. Attention masks are as long, too:
    what they hold beyond the valid positions and the step's own does not matter.

    Args:
        model: prepared, its shapes not yet bound.
        capacity: positions, those of the step included.
        shapes: shapes of inputs, as for ``bind_shapes``; dims that grow with the past need none.
        dims: numbers for symbols, likewise.
        where: name of the model in error messages.

    Returns:
        the shapes and dims that are left to bind.

    Raises:
        FlexcError: the model has no growing cache, the capacity does not exceed a step, or what depends on the length
            cannot be followed.
    """
    graph = model.graph
    write_joins_out(graph)
    caches = find_caches(graph)
    if not caches:
        raise FlexcError(
            "has no cache that grows: no dynamic input is joined by Concat with something that is then an output",
            where=where,
            remedy="leave --cache out; caches of fixed size stay in the machine as they are",
        )
    raise_all(list(without(caches, graph, where)))
    sizes = _Sizes(graph, caches, shapes, dims, where)
    step = sizes.step(model)
    if capacity <= step:
        raise FlexcError(
            f"--cache {capacity}: a step takes {step} positions", where=where, remedy="give a larger capacity"
        )
    pasts = _pasts(capacity - step)
    facts = [probe(model, partial(sizes.set, past=past, step=step), where) for past in pasts]
    problem, past = next(((each.problem, n) for each, n in zip(facts, pasts, strict=True) if each.problem), (None, 0))
    if problem is not None:
        raise FlexcError(
            f"does not work with {past} positions before a step of {step}: {problem.message}",
            where=problem.where or where,
            remedy="tables of positions may end before; choose a smaller --cache",
        )
    outputs = _long_outputs(graph, Lengths(facts, pasts))
    valid = _add_input(graph)
    Rules(model, Lengths(facts, pasts), {cache.join: cache for cache in caches}, valid, where).run()
    _declare(graph, caches, sizes, capacity, step)
    held = {cache.present for cache in caches}
    layout = {
        "length": str(valid.name),
        "outputs": {name: axis for name, axis in outputs.items() if name not in held},
    }
    model.metadata_props[CACHE_KEY] = json.dumps(layout, sort_keys=True)
    graph.sort()
    common.RemoveUnusedNodesPass()(model)  # what was worked out from the length of the past would no longer fit
    return sizes.shapes, sizes.left


def _pasts(longest: int) -> tuple[int, int, int]:
    """Return three lengths of the past, the longest first where there is room below it."""
    away = -1 if longest > _APART[1] else 1
    return longest, longest + away * _APART[0], longest + away * _APART[1]


class _Sizes:
    """The sizes of inputs at any length of the past."""

    def __init__(
        self,
        graph: ir.Graph,
        caches: Sequence[Cache],
        shapes: Mapping[str, Sequence[int]],
        dims: Mapping[str, int],
        where: str,
    ) -> None:
        self.caches, self.where = caches, where
        self.long = long_dims(graph, caches)
        self.shapes = shapes
        names = {str(value.name): value for value in graph.inputs}
        bound = {text for name, axes in self.long.items() for axis in axes if (text := symbol(names[name], axis))}
        self.left = {name: number for name, number in dims.items() if name not in bound}

    def set(self, graph: ir.Graph, past: int, step: int) -> None:
        """Give every input of a graph its shape."""
        lengths = {"past": past, "total": past + step}
        set_dims(
            graph, {name: {axis: lengths[kind] for axis, kind in axes.items()} for name, axes in self.long.items()}
        )
        bind_shapes(graph, self.shapes, self.where, self.left)

    def step(self, model: ir.Model) -> int:
        """Return how many positions a step adds."""
        facts = probe(model, lambda graph: self.set(graph, _TRIAL, 1), self.where)
        steps = {_length(cache, facts) for cache in self.caches} - {0}
        if len(steps) != 1:
            found = ", ".join(map(str, sorted(steps))) or "none that can be told"
            raise FlexcError(f"how many positions a step adds to its caches: {found}", where=self.where)
        return steps.pop()


def _length(cache: Cache, facts: Facts) -> int:
    shape = facts.shapes.get(str(cache.new.name))
    return shape[cache.axis] if shape is not None else 0


def _long_outputs(graph: ir.Graph, lengths: Lengths) -> dict[str, int]:
    """Return the outputs that grow with the past, and the axis."""
    axes = {str(value.name): lengths.long_axes(value) for value in graph.outputs}
    return {name: next(iter(each)) for name, each in axes.items() if each}


def _add_input(graph: ir.Graph) -> ir.Value:
    taken = {str(value.name) for value in graph.inputs}
    name = VALID if VALID not in taken else f"flexc_{VALID}"
    value = ir.Value(name=name, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.append(value)
    return value


def _declare(graph: ir.Graph, caches: Sequence[Cache], sizes: _Sizes, capacity: int, step: int) -> None:
    """Give long inputs their final size; note which outputs the caches become."""
    pasts = {str(cache.past.name) for cache in caches}
    lengths = {"past": capacity - step, "total": capacity}
    set_dims(
        graph,
        {
            name: {axis: capacity if name in pasts else lengths[kind] for axis, kind in axes.items()}
            for name, axes in sizes.long.items()
        },
    )
    for cache in caches:
        cache.past.metadata_props[STATE_KEY] = cache.present

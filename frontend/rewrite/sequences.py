"""Sequences whose tensors are known one by one: what goes in by SequenceConstruct or a split comes out again as it is.

Older exporters write lists of tensors so (``torch.unbind``, ``torch.stack`` of a list). What makes a sequence stays in
the graph until nothing reads it; what reads one gets its tensors. A sequence that leaves the graph, or whose tensors
depend on run-time data, is refused as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..edit import shape_of, static_shape
from .site import Site, SiteRule

_Tensors: TypeAlias = "list[ir.Value]"


def _held(site: Site, place: int = 0) -> _Tensors | None:
    """Return the tensors of a sequence that the node reads, None where they are not known."""
    value = site.maybe(place)
    return site.editor.sequences.get(value) if value is not None else None


def _at(site: Site, place: int, count: int, *, end: bool = False) -> int | None:
    """Return a constant position, counted from the front; where it is left out the last, or behind it."""
    if site.maybe(place) is None:
        return count if end else count - 1
    given = site.numbers(place)
    if given is None:
        return None
    position = int(given.reshape(-1)[0])
    position += count if position < 0 else 0
    return position if 0 <= position < count + end else None


def _makes(tensors: Callable[[Site], _Tensors | None]) -> SiteRule:
    """Let a node whose tensors are known make a sequence."""

    def rule(site: Site) -> bool:
        made = site.node.outputs[0]
        found = None if made.is_graph_output() else tensors(site)
        if found is None:
            return False
        site.editor.sequences[made] = found
        kinds = [value.dtype for value in found if value.dtype is not None]
        made.type = ir.SequenceType(ir.TensorType(kinds[0] if kinds else ir.DataType.FLOAT))
        return True

    rule.__doc__ = tensors.__doc__
    return rule


def _construct(site: Site) -> _Tensors | None:
    """A list of its operands."""
    return [value for value in site.node.inputs if value is not None]


def _empty(_site: Site) -> _Tensors | None:
    """A list of nothing."""
    return []


def _insert(site: Site) -> _Tensors | None:
    """The list with one more."""
    held = _held(site)
    position = None if held is None else _at(site, 2, len(held), end=True)
    return None if held is None or position is None else [*held[:position], site.given(1), *held[position:]]


def _erase(site: Site) -> _Tensors | None:
    """The list without one."""
    held = _held(site)
    position = None if held is None else _at(site, 1, len(held))
    return None if held is None or position is None else [*held[:position], *held[position + 1 :]]


def _same(site: Site) -> _Tensors | None:
    """The list itself."""
    return _held(site)


def _split(site: Site) -> _Tensors | None:
    """Slices, without the axis where that is not kept."""
    dims, given = static_shape(site.x), site.numbers(1)
    if dims is None or (site.maybe(1) is not None and given is None):
        return None
    axis = site.integer("axis", 0) % len(dims)
    keep = site.maybe(1) is not None or bool(site.integer("keepdims", 1))
    ends = np.cumsum(_lengths(dims[axis], given)).tolist()
    parts = [site.slice(site.x, axis, start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    rest = [size for place, size in enumerate(dims) if place != axis]
    return parts if keep else [site.reshape(part, rest) for part in parts]


def _lengths(size: int, given: np.ndarray | None) -> Sequence[int]:
    if given is None:
        return [1] * size
    if given.ndim:
        return [int(each) for each in given]
    whole, rest = divmod(size, int(given))
    return [int(given)] * whole + [rest] * bool(rest)


def _pick(site: Site) -> bool:
    """The tensor at a constant position."""
    held = _held(site)
    position = None if held is None else _at(site, 1, len(held))
    if held is None or position is None:
        return False
    return site.done(site.op("Identity", held[position]))


def _length(site: Site) -> bool:
    """A constant."""
    held = _held(site)
    return held is not None and site.done(site.op("Identity", site.constant(np.array(len(held), np.int64))))


def _joined(site: Site) -> bool:
    """Concat of the tensors, along a new axis where that is asked for."""
    held = _held(site)
    if not held or any(static_shape(value) is None for value in held):
        return False
    rank = len(shape_of(held[0]))
    if not site.integer("new_axis", 0):
        return site.done(site.op("Concat", *held, axis=site.integer("axis", 0)))
    axis = site.integer("axis", 0) % (rank + 1)
    dims = [list(shape_of(value)) for value in held]
    wide = [site.reshape(value, [*size[:axis], 1, *size[axis:]]) for value, size in zip(held, dims, strict=True)]
    return site.done(site.op("Concat", *wide, axis=axis))


EARLY: dict[str, SiteRule] = {
    "SequenceConstruct": _makes(_construct),
    "SequenceEmpty": _makes(_empty),
    "SequenceInsert": _makes(_insert),
    "SequenceErase": _makes(_erase),
    "SplitToSequence": _makes(_split),
    "Identity": _makes(_same),
    "SequenceAt": _pick,
    "SequenceLength": _length,
    "ConcatFromSequence": _joined,
}

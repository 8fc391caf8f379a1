"""How a node carries channels from one of its values to the others: what must move when a value's channels move.

A rule is asked about one value of a node, where the channels lie in it, and says where they lie in the node's other
values. It raises :class:`Bound` where their order matters to the node, or is not followed through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from ...frontend.edit import constant_array, int_attribute, is_constant, shape_of
from ...frontend.operators import OPERATORS
from ...frontend.rules import reduce_axes


@dataclass(frozen=True)
class Place:
    """Where a value holds the channels of a class.

    Attributes:
        axis: of the channels; of those within a head, where heads have an axis of their own.
        start: the first of them on that axis, which may hold others, too.
        head: the axis of the heads, where they have one.
    """

    axis: int
    start: int = 0
    head: int | None = None


Tie = tuple[int, Place]
"""(port, place): port i is input i of the node, port ~i its output i."""


class Bound(Exception):
    """The channels must stay in their order."""


def value_at(node: ir.Node, port: int) -> ir.Value:
    """Return the value at a port of a node."""
    value = node.inputs[port] if port >= 0 else node.outputs[~port]
    assert value is not None, "only ports with a value are asked about"
    return value


def carry(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    """Return where else in a node `size` channels lie that are at `place` of the value at `port`.

    Raises:
        Bound: their order matters, or is not followed through such a node.
    """
    operator = OPERATORS.get(node.op_type) if node.domain == "" else None
    rule = _RULES.get(node.op_type) or (_BY_KIND.get(operator.kind) if operator is not None else None)
    if rule is None:
        raise Bound(node.op_type)
    return rule(node, port, place, size)


def _elementwise(node: ir.Node, _port: int, place: Place, _size: int, ports: Sequence[int] | None = None) -> list[Tie]:
    """Operands of the same extent are permuted alike, what is broadcast along the channels does not notice."""
    ports = [*range(len(node.inputs)), ~0] if ports is None else ports
    rank, ties = len(shape_of(node.outputs[0])), []
    shift = rank - len(shape_of(value_at(node, _port)))
    axis, head = place.axis + shift, None if place.head is None else place.head + shift
    full = shape_of(node.outputs[0])
    for port in ports:
        if port >= 0 and node.inputs[port] is None:
            continue
        shape = shape_of(value_at(node, port))
        padded = (1,) * (rank - len(shape)) + shape
        if padded[axis] == 1:
            continue
        if padded[axis] != full[axis] or (head is not None and padded[head] != full[head]):
            raise Bound("broadcast over heads")
        back = rank - len(shape)
        ties.append((port, Place(axis - back, place.start, None if head is None else head - back)))
    return ties


def _expand(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    return _elementwise(node, port, place, size, ports=(0, ~0))


def _matmul(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    """Rows of the left operand are rows of the result, columns of the right one its columns.

    Channels that are summed over are followed into a constant only: they are what a linear reads.
    """
    right, ranks = value_at(node, 1), {each: len(shape_of(value_at(node, each))) for each in (0, 1, ~0)}
    if min(ranks[0], ranks[1]) < 2:
        raise Bound("a product of vectors")
    from_end = ranks[port] - place.axis
    if port == 0 and from_end == 1:
        if place != Place(ranks[0] - 1) or not is_constant(right) or shape_of(right) != (size, shape_of(right)[-1]):
            raise Bound("a product of activations")
        return [(1, Place(0))]
    others = {(0, 2): ~0, (1, 1): ~0, (~0, 2): 0, (~0, 1): 1}
    if (port, from_end) not in others:
        raise Bound("not the rows or columns of a product")
    other = others[port, from_end]
    shift, head = ranks[other] - ranks[port], place.head
    if head is not None and (head + shift < 0 or _dim(node, other, head + shift) != _dim(node, port, head)):
        raise Bound("broadcast over heads")
    return [(other, Place(place.axis + shift, place.start, None if head is None else head + shift))]


def _dim(node: ir.Node, port: int, axis: int) -> int:
    return shape_of(value_at(node, port))[axis]


def _conv(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    weight, groups = shape_of(value_at(node, 1)), int_attribute(node, "group", 1)
    if place.axis != 1 or place.head is not None or not is_constant(node.inputs[1]):
        raise Bound("not the channels of a convolution")
    made = [(1, replace(place, axis=0)), *_bias(node, replace(place, axis=0)), (~0, place)]
    if groups > 1:
        if weight[1] != 1 or weight[0] != groups:
            raise Bound("channels of groups")
        return [(0, place), *made]
    if port == ~0:
        return made
    if place.start or weight[1] != size:
        raise Bound("some of the inputs of a convolution")
    return [(1, Place(1))]


def _bias(node: ir.Node, place: Place) -> list[Tie]:
    return [(port, place) for port in range(2, len(node.inputs)) if node.inputs[port] is not None]


def _pool(_node: ir.Node, _port: int, place: Place, _size: int) -> list[Tie]:
    if place.axis != 1 or place.head is not None:
        raise Bound("not the channels of a pool")
    return [(0, place), (~0, place)]


def _norm(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    """Statistics along the channels do not notice their order; scale and bias follow them."""
    shape = shape_of(value_at(node, port))
    last = len(shape) - 1
    if int_attribute(node, "axis", -1) % len(shape) != last or place != Place(last) or shape[last] != size:
        raise Bound("not the normalised axis")
    return [(0, place), (~0, place), (1, Place(0)), *_bias(node, Place(0))]


def _reduce(node: ir.Node, port: int, place: Place, _size: int) -> list[Tie]:
    axes, rank = reduce_axes(node), len(shape_of(value_at(node, 0)))
    if axes is None or node.op_type.startswith("Arg"):
        raise Bound("axes not known")
    kept = (
        list(range(rank)) if int_attribute(node, "keepdims", 1) else [each for each in range(rank) if each not in axes]
    )
    if port < 0:
        return [(0, _moved(place, kept)), (~0, place)]
    heads = place.axis if place.head is None else place.head
    if (place.axis in axes) != (heads in axes):
        raise Bound("a sum over heads or within them")
    if place.axis in axes:
        return []
    return [(~0, _moved(place, _inverse(kept))), (0, place)]


def _moved(place: Place, axes: Sequence[int] | dict[int, int]) -> Place:
    """Return a place whose axes go where `axes` says."""
    return Place(axes[place.axis], place.start, None if place.head is None else axes[place.head])


def _inverse(axes: Sequence[int]) -> dict[int, int]:
    return {axis: index for index, axis in enumerate(axes)}


def _transpose(node: ir.Node, port: int, place: Place, _size: int) -> list[Tie]:
    perm = node.attributes.get("perm")
    axes = list(perm.as_ints()) if perm else list(range(len(shape_of(node.outputs[0]))))[::-1]
    return [(0, _moved(place, axes))] if port < 0 else [(~0, _moved(place, _inverse(axes)))]


def _view(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    """Reshape and its like: axes that keep their extent, channels that are split into heads or joined again."""
    other = 0 if port < 0 else ~0
    return [(other, reshaped(shape_of(value_at(node, port)), shape_of(value_at(node, other)), place, size))]


def reshaped(old: Sequence[int], new: Sequence[int], place: Place, size: int) -> Place:
    """Return where channels lie after a reshape.

    Raises:
        Bound: they are mixed with other axes.
    """
    axis = _same_axis(old, new, place.axis)
    if place.head is not None:
        head = _same_axis(old, new, place.head)
        if axis is not None and head is not None:
            return Place(axis, 0, head)
        joined = _axis_of(new, prod(old[: place.head]), old[place.head] * old[place.axis])
        if joined is None or place.axis != place.head + 1:
            raise Bound("heads are mixed with other axes")
        return Place(joined)
    if axis is not None:
        return Place(axis, place.start)
    for head in range(len(new) - 1):
        split = prod(new[:head]) == prod(old[: place.axis]) and new[head] * new[head + 1] == size
        if split and old[place.axis] == size:
            return Place(head + 1, 0, head)
    raise Bound("channels are mixed with other axes")


def _same_axis(old: Sequence[int], new: Sequence[int], axis: int) -> int | None:
    return _axis_of(new, prod(old[:axis]), old[axis])


def _axis_of(shape: Sequence[int], before: int, extent: int) -> int | None:
    """Return the axis of an extent that has so many elements before it, or None."""
    found = [axis for axis, dim in enumerate(shape) if dim == extent and prod(shape[:axis]) == before]
    return found[0] if found else None


def _split(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    rank = len(shape_of(value_at(node, port)))
    along = int_attribute(node, "axis", 0) % rank
    return _pieces(place, size, along, 0, [~index for index in range(len(node.outputs))], node, port)


def _concat(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    rank = len(shape_of(value_at(node, port)))
    along = int_attribute(node, "axis", 0) % rank
    return _pieces(place, size, along, ~0, list(range(len(node.inputs))), node, port)


def _pieces(
    place: Place, size: int, along: int, whole: int, pieces: Sequence[int], node: ir.Node, port: int
) -> list[Tie]:
    """Tie a whole and the pieces that it is cut into, or made of, along an axis."""
    if along == place.head:
        raise Bound("cut between heads")
    if along != place.axis:
        return [(each, place) for each in (whole, *pieces)]
    starts = np.cumsum([0, *(_dim(node, piece, along) for piece in pieces)]).tolist()
    if port != whole:
        place = replace(place, start=place.start + starts[pieces.index(port)])
    if place.head is not None and len(pieces) > 1:
        raise Bound("cut within heads")
    for piece, start, end in zip(pieces, starts[:-1], starts[1:], strict=True):
        if start <= place.start and place.start + size <= end:
            return [(whole, place), (piece, replace(place, start=place.start - start))]
    raise Bound("cut among the channels")


def _slice(node: ir.Node, port: int, place: Place, size: int) -> list[Tie]:
    begin, end = _cut_of(node, place.axis)
    full = (begin, end) == (0, _dim(node, 0, place.axis))
    if place.head is not None and not (full and _cut_of(node, place.head) == (0, _dim(node, 0, place.head))):
        raise Bound("cut within heads")
    if full:
        return [(0, place), (~0, place)]
    if port < 0:
        return [(0, replace(place, start=place.start + begin))]
    if begin <= place.start and place.start + size <= end:
        return [(~0, replace(place, start=place.start - begin))]
    if end <= place.start or place.start + size <= begin:
        return []
    raise Bound("cut among the channels")


def _cut_of(node: ir.Node, axis: int) -> tuple[int, int]:
    """Return [begin, end) of a Slice along an axis."""
    extent, rank = _dim(node, 0, axis), len(shape_of(value_at(node, 0)))
    given = [constant_array(value) for value in node.inputs[1:]]
    if any(array is None for array in given):
        raise Bound("bounds not known")
    lists = [np.ravel(array).tolist() for array in given if array is not None]
    begins, ends = lists[:2]
    axes = [each % rank for each in lists[2]] if len(lists) > 2 else list(range(len(begins)))
    steps = lists[3] if len(lists) > 3 else [1] * len(begins)
    if axis not in axes:
        return 0, extent
    place = axes.index(axis)
    if steps[place] != 1:
        raise Bound("a step")
    begin, end, _ = slice(begins[place], ends[place]).indices(extent)
    return begin, end


def _gather(node: ir.Node, port: int, place: Place, _size: int) -> list[Tie]:
    """Picking along another axis; the table of an embedding is left alone."""
    data, indices = value_at(node, 0), value_at(node, 1)
    if is_constant(data) or port == 1:
        raise Bound("a table")
    along, more = int_attribute(node, "axis", 0) % len(shape_of(data)), len(shape_of(indices)) - 1
    after = [axis for axis in range(len(shape_of(data))) if axis != along]
    target = {axis: axis if axis < along else axis + more for axis in after}
    source = {out: axis for axis, out in target.items()}
    known = target if port == 0 else source
    if place.axis not in known or (place.head is not None and place.head not in known):
        raise Bound("channels are picked")
    return [(~0 if port == 0 else 0, _moved(place, known))]


_Rule = Callable[[ir.Node, int, Place, int], list[Tie]]

_RULES: dict[str, _Rule] = {
    "MatMul": _matmul, "Conv": _conv, "GlobalAveragePool": _pool, "LayerNormalization": _norm,
    "RMSNormalization": _norm, "Transpose": _transpose, "Expand": _expand, "Slice": _slice, "Split": _split,
    "Gather": _gather,
}  # fmt: skip

_BY_KIND: dict[str, _Rule] = {
    "row": _elementwise, "reduce": _reduce, "view": _view, "concat": _concat, "pool": _pool,
}  # fmt: skip
"""The rules of operators of one kind (see `frontend/operators.py`), where an operator has none of its own."""

"""What cuts out of, picks from or joins behind something that is as long as a cache may become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from .edit import constant_array, int_attribute
from .lengths import Line

if TYPE_CHECKING:
    from .length_rules import Rules


def cut(rules: Rules, node: ir.Node) -> None:
    """A cut with a fixed beginning keeps it; one that moves with the length picks positions known at run time."""
    data, lengths = node.inputs[0], rules.lengths
    if any(lengths.arrays(value) is None for value in node.inputs[1:] if value is not None):
        if data is not None and lengths.long_axes(data):
            raise rules.refuse(node, "cuts at bounds known at run time only")
        return
    varying = any(lengths.known(value) and lengths.varies(value) for value in node.inputs if value is not None)
    if varying or _cuts(rules, node)[1]:
        rules.replace(node, sliced(rules, node))


def sliced(rules: Rules, node: ir.Node) -> ir.Value:
    """Return what takes the place of a cut."""
    data, lengths = node.inputs[0], rules.lengths
    assert data is not None
    fixed, moving = _cuts(rules, node)
    result = rules.number(data, node)
    if fixed:
        bounds = [rules.run_time.constant(np.array(column)) for column in zip(*fixed, strict=True)]
        result = rules.run_time.node("Slice", [result, *bounds])
    for axis, start, count, step in moving:
        index = rules.run_time.positions(start, count, step)
        result = rules.picked(result, index, axis, len(lengths.shape(data)))
    return result


def _cuts(rules: Rules, node: ir.Node) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]:
    """Return (start, end, axis, step) of cuts at a fixed place, and (axis, first, count, step) of those that move."""
    lengths, fixed, moving = rules.lengths, [], []
    data, out = node.inputs[0], node.outputs[0]
    assert data is not None
    sizes, counts = lengths.shapes(data), lengths.shapes(out)
    starts, ends, axes, steps = _bounds(rules, node, len(sizes[0]))
    for place, axis in enumerate(axes):
        begins = [_first(each[place], size[axis], steps[place]) for each, size in zip(starts, sizes, strict=True)]
        slope = lengths.slope(begins)
        if slope == 0:
            end = (
                ends[place]
                if steps[place] > 0
                else -sizes[0][axis] - 1
                if ends[place] < -sizes[0][axis]
                else ends[place]
            )
            fixed.append((begins[0], end, axis, steps[place]))
        elif slope == 1 and len({count[axis] for count in counts}) == 1:
            moving.append((axis, lengths.at_zero(begins[0]), counts[0][axis], steps[place]))
        else:
            raise rules.refuse(node, "cuts a piece whose place and size both depend on the length")
    return fixed, moving


def _bounds(rules: Rules, node: ir.Node, rank: int) -> tuple[list[list[int]], list[int], list[int], list[int]]:
    """Return starts at every length; ends, axes and steps at the capacity."""
    lists = []
    for value in node.inputs[1:]:
        arrays = rules.lengths.arrays(value) if value is not None else None
        lists.append(None if arrays is None else [[int(each) for each in array.reshape(-1)] for array in arrays])
    starts, ends = lists[0], lists[1]
    assert starts is not None
    assert ends is not None
    count = len(starts[0])
    axes = lists[2][0] if len(lists) > 2 and lists[2] is not None else list(range(count))
    steps = lists[3][0] if len(lists) > 3 and lists[3] is not None else [1] * count
    return starts, ends[0], [axis % rank for axis in axes], steps


def _first(start: int, size: int, step: int) -> int:
    """Return where a cut begins in a dim of that size (ONNX, Slice)."""
    start = start + size if start < 0 else start
    return min(max(start, 0), size if step > 0 else size - 1)


def pick(rules: Rules, node: ir.Node) -> None:
    """A constant index from the end counts from the last valid position."""
    data, index = node.inputs[0], node.inputs[1]
    assert data is not None
    axis = int_attribute(node, "axis", 0) % max(1, len(rules.lengths.shape(data)))
    array = constant_array(index)
    if axis in rules.lengths.long_axes(data) and array is not None and (array < 0).any():
        if (array >= 0).any():
            raise rules.refuse(node, "picks from the beginning and from the end of a cache at once")
        base = np.asarray(array.astype(np.int64) + rules.lengths.surplus(data, axis))
        node.replace_input_with(1, rules.run_time.line(Line(base, np.asarray(1)), base))


def pick_forward(rules: Rules, node: ir.Node) -> None:
    """Indices count from the beginning."""
    array = constant_array(node.inputs[1])
    if array is not None and (array < 0).any():
        raise rules.refuse(node, "picks from the end of a cache")


def join(rules: Rules, node: ir.Node) -> None:
    """What follows something that is as long as the past goes where that ends."""
    axis = int_attribute(node, "axis", 0) % len(rules.lengths.shape(node.outputs[0]))
    values = [value for value in node.inputs if value is not None]
    long = [axis in rules.lengths.long_axes(value) for value in values]
    if not any(long) or len(values) == 1:
        return
    if long != [True] + [False] * (len(values) - 1):
        raise rules.refuse(node, "joins what grows behind something else")
    joined, place = values[0], rules.lengths.surplus(values[0], axis)
    if not rules.is_past(joined):
        joined = _with_room(rules, node, axis)
    for value in values[1:]:
        joined = rules.written(joined, value, axis, place)
        place += rules.lengths.shape(value)[axis]
    rules.replace(node, joined)


def _with_room(rules: Rules, node: ir.Node, axis: int) -> ir.Value:
    """Return the first operand of a Concat followed by zeros in the place of the others."""
    data = node.inputs[0]
    assert data is not None
    first, total = rules.lengths.shape(data), rules.lengths.shape(node.outputs[0])
    empty = np.zeros([total[axis] - first[axis] if each == axis else size for each, size in enumerate(total)])
    room = rules.run_time.constant(empty.astype(rules.lengths.dtype(data)))
    return rules.run_time.node("Concat", [data, room], [ir.AttrInt64("axis", axis)])

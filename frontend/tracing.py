"""Where the elements of a value come from: back through whatever only moves them, place by place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import constant_array, int_attribute, shape_of, static_shape

_SAME_ORDER = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_COUNTS = {"TopK", "ArgMax", "ArgMin", "NonZero", "Shape", "Size"}  # their whole numbers are 0 or more
_KEEP_SIGN = {"Add", "Concat", "Max", "Min", "Mul", "ReduceSum"}  # of numbers that are 0 or more they make such
_PICK = {"Gather": (0,), "GatherElements": (0,), "ScatterElements": (0, 2), "Where": (1, 2)}
_DEEPEST = 32


@dataclass(frozen=True)
class Origin:
    """A value whose elements are those of another: ``at`` has its shape and says at which flat place of ``value``."""

    value: ir.Value
    at: np.ndarray

    @property
    def in_order(self) -> bool:
        """Whether these are all elements of the value, one after the other."""
        return np.array_equal(self.at.reshape(-1), np.arange(np.prod(shape_of(self.value), dtype=np.int64)))


def trace(value: ir.Value, until: ir.Value | None = None) -> Origin:
    """Return where the elements of a value come from: a value that ``until`` is, or that no mere movement makes.

    A Cast of whole numbers and truth values counts as movement.
    """
    at = _places(shape_of(value))
    while value is not until and (step := _moved(value)) is not None:
        value, back = step
        at = back.reshape(-1)[at]
    return Origin(value, at)


def _places(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)


def _moved(value: ir.Value) -> tuple[ir.Value, np.ndarray] | None:
    """Return what a value is moved from, and from which flat places, in the value's shape."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.domain == "" and node.inputs else None
    if node is None or source is None or static_shape(source) is None:
        return None
    if node.op_type in _SAME_ORDER:
        rounds = node.op_type == "Cast" and source.dtype is not None and source.dtype.is_floating_point()
        return None if rounds else (source, _places(shape_of(value)))
    rule = _MOVES.get(node.op_type)
    back = rule(node, _places(shape_of(source)), value) if rule is not None else None
    return None if back is None else (source, back)


def _transposed(node: ir.Node, places: np.ndarray, _value: ir.Value) -> np.ndarray:
    return places.transpose(node.attributes.get_ints("perm") or range(places.ndim)[::-1])


def _expanded(_node: ir.Node, places: np.ndarray, value: ir.Value) -> np.ndarray:
    return np.broadcast_to(places, shape_of(value))


def _gathered(node: ir.Node, places: np.ndarray, _value: ir.Value) -> np.ndarray | None:
    index = constant_array(node.inputs[1])
    return None if index is None else places.take(index, axis=int_attribute(node, "axis", 0))


def _sliced(node: ir.Node, places: np.ndarray, _value: ir.Value) -> np.ndarray | None:
    given = [constant_array(each) for each in node.inputs[1:]]
    if len(given) < 2 or any(each is None for each in given):
        return None
    starts, ends, *rest = (each.tolist() for each in given if each is not None)
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            return None
        places = places.take(range(*slice(start, end, step).indices(places.shape[axis])), axis=axis)
    return places


def _split(node: ir.Node, places: np.ndarray, value: ir.Value) -> np.ndarray:
    axis = int_attribute(node, "axis", 0)
    sizes = [shape_of(output)[axis] for output in node.outputs]
    number = list(node.outputs).index(value)
    return np.split(places, np.cumsum(sizes)[:-1], axis=axis)[number]


_MOVES: dict[str, Callable[[ir.Node, np.ndarray, ir.Value], np.ndarray | None]] = {
    "Transpose": _transposed,
    "Expand": _expanded,
    "Gather": _gathered,
    "Slice": _sliced,
    "Split": _split,
}


def never_negative(value: ir.Value | None, depth: int = _DEEPEST) -> bool:
    """Return whether the whole numbers of a value are 0 or more whatever the inputs: places, counts, sums of them."""
    array = constant_array(value)
    if array is not None:
        return bool(array.size == 0 or array.min() >= 0)
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or not depth or (value is not None and not _is_whole(value)):
        return False
    if node.op_type in _COUNTS:
        return True
    if node.op_type in _SAME_ORDER or node.op_type in _MOVES:
        return never_negative(node.inputs[0], depth - 1)
    places = _PICK.get(node.op_type, range(len(node.inputs)) if node.op_type in _KEEP_SIGN else ())
    return bool(places) and all(never_negative(node.inputs[place], depth - 1) for place in places)


def _is_whole(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()

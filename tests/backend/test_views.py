"""Views do what numpy does with its own strided arrays, on the same memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexc.backend.views import Storage, View, collapse

Pair = tuple[View, npt.NDArray[np.int32]]


def read(view: View, memory: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return what a view shows of a memory."""
    return np.ndarray(view.shape, np.int32, memory.data, view.offset, view.strides)


@st.composite
def changed(draw: st.DrawFn) -> tuple[View, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Draw (view, what numpy makes of the same steps, memory) after random transposes, slices and repetitions."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4)))
    memory = np.arange(math.prod(shape), dtype=np.int32)
    view, array = View.dense(Storage("m", "dram", memory.nbytes), "i32", shape), memory.reshape(shape)
    for step in draw(st.lists(st.sampled_from([transpose, slice_, broadcast, reshape]), max_size=5)):
        view, array = step(draw, view, array)
    return view, array, memory


def transpose(draw: st.DrawFn, view: View, array: npt.NDArray[np.int32]) -> Pair:
    perm = draw(st.permutations(range(array.ndim)))
    return view.transpose(perm), array.transpose(perm)


def slice_(draw: st.DrawFn, view: View, array: npt.NDArray[np.int32]) -> Pair:
    if not array.ndim:
        return view, array
    axis = draw(st.integers(0, array.ndim - 1))
    start, other = draw(st.integers(0, array.shape[axis] - 1)), draw(st.integers(0, array.shape[axis] - 1))
    step = draw(st.integers(1, 2)) * (1 if other >= start else -1)
    picked = range(start, other + (1 if step > 0 else -1), step)
    return view.slice(axis, start, len(picked), step), np.take(array, list(picked), axis)


def broadcast(draw: st.DrawFn, view: View, array: npt.NDArray[np.int32]) -> Pair:
    shape = tuple(draw(st.sampled_from([1, 2])) if size == 1 else size for size in array.shape)
    if array.ndim < 5:
        shape = (*draw(st.sampled_from([(), (1,), (3,)])), *shape)
    return view.broadcast(shape), np.broadcast_to(array, shape)


def reshape(draw: st.DrawFn, view: View, array: npt.NDArray[np.int32]) -> Pair:
    shape = regrouped(draw, array.size)
    new = view.reshape(shape)
    return (view, array) if new is None else (new, array.reshape(shape))


def regrouped(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Draw a shape of so many elements."""
    shape: list[int] = []
    while size > 1:
        shape.append(draw(st.sampled_from([each for each in range(2, size + 1) if size % each == 0])))
        size //= shape[-1]
    if len(shape) < 4 and draw(st.booleans()):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


@settings(max_examples=40)
@given(changed())
def test_views_are_numpys(case: tuple[View, npt.NDArray[np.int32], npt.NDArray[np.int32]]) -> None:
    view, array, memory = case
    assert view.shape == array.shape
    assert view.size == array.size
    np.testing.assert_array_equal(read(view, memory), array)


@settings(max_examples=40)
@given(st.composite(regrouped)(48))
def test_a_dense_view_takes_any_shape(shape: tuple[int, ...]) -> None:
    memory = np.arange(48, dtype=np.int32)
    view = View.dense(Storage("m", "dram", 192), "i32", (2, 24)).reshape(shape)
    assert view is not None
    np.testing.assert_array_equal(read(view, memory).reshape(-1), memory)


@pytest.mark.parametrize(
    ("shape", "strides", "wanted"),
    [
        ((4, 6), (4, 16), (24,)),  # turned round: rows lie next to each other
        ((4, 6), (32, 4), (24,)),  # a gap after every row
        ((4, 6), (0, 4), (24,)),  # repeated rows
        ((4, 6), (24, 4), (5, 5)),  # not as many elements
    ],
)
def test_a_reshape_that_needs_a_copy_is_refused(shape: Any, strides: Any, wanted: Any) -> None:
    assert View(Storage("m", "dram", 999), "i32", shape, strides).reshape(wanted) is None


def test_dense_in_another_order_of_dimensions() -> None:
    view = View.dense(Storage("m", "dram", 0), "f32", (2, 3, 5), order=(1, 0, 2))
    assert view.strides == (20, 40, 4)


@settings(max_examples=40)
@given(changed())
def test_collapse_visits_the_same_elements_in_order(
    case: tuple[View, npt.NDArray[np.int32], npt.NDArray[np.int32]],
) -> None:
    view, array, memory = case
    dims = collapse(view.shape, [view.strides, [2 * each for each in view.strides]])
    assert all(size > 1 and own[1] == 2 * own[0] for size, own in dims)
    flat = View(view.storage, "i32", tuple(size for size, _ in dims), tuple(own[0] for _, own in dims), view.offset)
    np.testing.assert_array_equal(read(flat, memory).reshape(-1), array.reshape(-1))

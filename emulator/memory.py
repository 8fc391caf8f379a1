"""The memories of the machine, for several independent runs (windows) side by side, and the views that operands are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..isa.errors import FlexcError
from ..isa.instruction import LEVELS
from ..isa.program import Program, Tensor
from ..isa.streams import DTYPES, Step, Stream
from ..isa.tensors import extent

#: An operand of all windows: [windows, rows, columns]; operands in ``const`` have one window, which all share.
Array: TypeAlias = npt.NDArray[Any]
#: What an operand is at the present position in the loops; ``cells`` operands are ranges of units.
Getter: TypeAlias = Callable[[], "Array | range | None"]

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype({"b8": np.bool_, "f16": np.float16, "f32": np.float32}.get(name, f"{name[0]}{size}"))
    for name, size in DTYPES.items()
}
_ALIGN = 64
_Axes: TypeAlias = tuple[tuple[int, int], ...]  # size and stride in bytes of each


class Position:
    """Where in the loops a run is; getters look at it whenever they are called.

    ``iterations`` holds the iteration of every level, ``running`` its iterations since the outermost loop began; both
    are 0 outside a loop of that level. ``trips`` and ``totals`` are what they stay below.
    """

    def __init__(self) -> None:
        self.iterations = [0] * LEVELS
        self.running = [0] * LEVELS
        self.trips = [1] * LEVELS
        self.totals = [1] * LEVELS

    def places(self, step: Step) -> int:
        """Return how many positions a step takes."""
        return min(self.totals[step.level], step.period) if step.period else self.trips[step.level]


class Memories:
    """``const`` once, and ``dram``, ``buf`` and ``acc`` for each of ``windows`` runs, all bytes zero at first.

    ``dram`` may be given, [windows, bytes], to go on with what other programs of the same machine left there.
    """

    def __init__(self, program: Program, windows: int, dram: npt.NDArray[np.uint8] | None = None) -> None:
        self.windows = windows
        self._resident = _resident(program)
        const = np.ascontiguousarray(program.const) if program.const.size else np.zeros(1, np.uint8)
        self.const: npt.NDArray[np.uint8] = const.reshape(1, -1).view()
        self.const.flags.writeable = False
        self.dram = _zeros(windows, program.dram_bytes) if dram is None else dram
        self.buf = _zeros(windows, program.machine.buffer.bytes)
        self.acc = _zeros(windows, program.machine.accumulator_bytes)

    def clear(self, *, keep_states: bool = False) -> None:
        """Set every byte that can be written to zero, so that a run never sees the one before; but for its states."""
        for memory in (self.buf, self.acc):
            memory.fill(0)
        start = 0
        for low, high in self._resident if keep_states else ():
            self.dram[:, start:low] = 0
            start = high
        self.dram[:, start:] = 0

    def tensor(self, tensor: Tensor) -> Array:
        """Return the elements of a tensor, [windows, *shape].

        Raises:
            FlexcError: an element lies outside its memory.
        """
        elements = tuple(zip(tensor.shape, tensor.strides, strict=True))
        return self._ndarray(tensor.space, tensor.dtype, tensor.address, elements)

    def getter(self, stream: Stream, position: Position) -> Getter:
        """Return a quick way to the view of a stream at a position that changes.

        One array holds the views of all iterations, so that a view costs one indexing, and so that bounds are checked
        here, once.

        Raises:
            FlexcError: an element lies outside its memory in some iteration.
        """
        steps = [step for step in stream.steps if step.stride and position.places(step) > 1]
        if stream.space == "cells":
            return _cells_getter(stream, steps, position)
        moves = tuple((position.places(step), step.stride) for step in steps)
        elements = ((stream.rows, stream.row_pitch), (stream.cols, stream.col_pitch))
        return _indexer(self._ndarray(stream.space, stream.dtype, stream.base, elements, moves), steps, position)

    def _ndarray(self, space: str, dtype: str, address: int, elements: _Axes, moves: _Axes = ()) -> Array:
        """Return an array with an axis for each of ``moves``, the windows, and each of ``elements``."""
        memory: npt.NDArray[np.uint8] = getattr(self, space)
        axes = (*moves, (memory.shape[0], memory.strides[0]), *elements)
        shape, strides = tuple(size for size, _ in axes), tuple(stride for _, stride in axes)
        try:
            return np.ndarray(shape, NUMPY_TYPES[dtype], memory.data, address, strides)
        except (ValueError, TypeError) as error:
            inner = "x".join(str(size) for size, _ in (*moves, *elements))
            what = f"{inner} {dtype} from {address:#x}, strides {[stride for _, stride in (*moves, *elements)]}"
            raise FlexcError(f"{what} lies outside {space}, which has {memory.shape[1]} bytes") from error


def _resident(program: Program) -> list[tuple[int, int]]:
    """Return the stretches of dram that states take, in the order of their addresses."""
    states = {state.input for state in program.states}
    return sorted(extent(each) for each in program.inputs if each.name in states)


def _zeros(windows: int, size: int) -> npt.NDArray[np.uint8]:
    return np.zeros((windows, -(-max(size, 1) // _ALIGN) * _ALIGN), np.uint8)


def _indexer(every: Array, steps: Sequence[Step], position: Position) -> Getter:
    """Return the function that picks the present view; the usual cases without any bookkeeping."""
    iterations, running = position.iterations, position.running
    if not steps:
        return lambda: every
    if any(step.period for step in steps):
        rings = tuple((running if step.period else iterations, step.level, step.period or 1 << 62) for step in steps)
        return lambda: every[tuple([counter[level] % period for counter, level, period in rings])]
    levels = tuple(step.level for step in steps)
    if len(levels) == 1:
        (level,) = levels
        return lambda: every[iterations[level]]
    return lambda: every[tuple([iterations[level] for level in levels])]


def _cells_getter(stream: Stream, steps: Sequence[Step], position: Position) -> Getter:
    length, pitch = stream.rows * stream.row_pitch, stream.row_pitch
    if not steps:
        units = range(stream.base, stream.base + length, pitch)
        return lambda: units

    def moving() -> range:
        base = stream.address(position.iterations, position.running)
        return range(base, base + length, pitch)

    return moving

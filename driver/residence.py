"""The memory of one machine that several programs use in turn: what stays there, and what is handed out of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flexc.api import Program
from flexc.emulation import Arrays
from flexc.emulator.memory import NUMPY_TYPES
from flexc.emulator.run import Executor
from flexc.isa.program import Tensor

Array = npt.NDArray[Any]


class Residence:
    """DRAM that programs with the same states share.

    What is handed out of a growing cache is a view of it, and must not change afterwards. It never does: a run only
    writes behind what is valid; where it would write elsewhere, the emulator first takes new memory.

    Attributes:
        valid: positions that are valid in growing caches.
        held: growing caches by the name of their input, as they were handed out last.
    """

    def __init__(self) -> None:
        self.valid = 0
        self.held: Arrays = {}
        self._dram = np.zeros((1, 0), np.uint8)
        self._executors: dict[int, tuple[Program, Executor]] = {}

    def forget(self, program: Program) -> None:
        """Drop what was prepared for a program."""
        self._executors.pop(id(program), None)

    def run(self, program: Program, feeds: Arrays, given: Arrays) -> Arrays:
        """Run a program whose states go on from the last run, but for those given; return all outputs."""
        self._fit(program)
        self._settle(program, given)
        return self._carry_out(program, feeds, ())

    def _settle(self, program: Program, given: Arrays) -> None:
        """Write states that are given into their place, where they are not there already."""
        for tensor in program.image.inputs:
            if tensor.name in given and not np.array_equal(self._view(tensor), given[tensor.name]):
                self._view(tensor)[...] = given[tensor.name]

    def grow(
        self, program: Program, feeds: Arrays, given: Arrays, axes: Mapping[str, int], past: int, total: int
    ) -> Arrays:
        """Run a step of a program with growing caches; what it returns of them are views of the machine's memory.

        Args:
            program: whose states have room for ``total`` positions.
            feeds: the inputs besides the caches; states of fixed size may be left out, to go on from the last run.
            given: the caches, ``past`` positions each; nothing, to go on from the last run.
            axes: of every cache, the axis of positions.
            past: how many positions are valid before the step.
            total: how many are valid after it.
        """
        self._fit(program)
        caches = [each for each in program.image.inputs if each.name in axes]
        foreign = [each for each in caches if each.name in given and not self._holds(each, given[each.name], axes)]
        if foreign or past < self.valid:
            self._renew()
        for each in foreign:
            first(self._view(each), axes[each.name], past)[...] = given[each.name]
        becomes = {state.input: state.output for state in program.image.states}
        fixed = {name: array for name, array in feeds.items() if name in becomes}
        self._settle(program, fixed)
        rest = {name: array for name, array in feeds.items() if name not in becomes}
        outputs = self._carry_out(program, rest, {becomes[each.name] for each in caches})
        self.valid = total
        for each in caches:
            view = first(self._view(each), axes[each.name], total)
            view.flags.writeable = False
            outputs[becomes[each.name]] = self.held[each.name] = view
        return outputs

    def _holds(self, tensor: Tensor, array: Array, axes: Mapping[str, int]) -> bool:
        """Return whether the memory begins with what an array holds; it does where the array is that memory."""
        length = array.shape[axes[tensor.name]]
        if length > self.valid:
            return False
        own = first(self._view(tensor), axes[tensor.name], length)
        same = (
            own.__array_interface__["data"][0] == array.__array_interface__["data"][0] and own.strides == array.strides
        )
        return same or np.array_equal(own, array)

    def _fit(self, program: Program) -> None:
        """Take more memory where a program needs it."""
        size = -(-max(program.image.dram_bytes, 1) // 64) * 64
        if size > self._dram.shape[1]:
            self._renew(size)

    def _renew(self, size: int = 0) -> None:
        """Go on in new memory that holds the same; what was handed out stays as it is."""
        dram = np.zeros((1, max(size, self._dram.shape[1])), np.uint8)
        dram[:, : self._dram.shape[1]] = self._dram
        self._dram = dram

    def _view(self, tensor: Tensor) -> Array:
        return np.ndarray(tensor.shape, NUMPY_TYPES[tensor.dtype], self._dram.data, tensor.address, tensor.strides)

    def _carry_out(self, program: Program, feeds: Arrays, without: Collection[str]) -> Arrays:
        if id(program) not in self._executors:
            self._executors[id(program)] = (program, Executor(program.image))
        executor = self._executors[id(program)][1]
        executor.use(self._dram)
        given = {name: array[np.newaxis] for name, array in feeds.items()}
        outputs = executor.run(given, resume=True, without=without)
        return {name: array[0] for name, array in outputs.items()}


def first(array: Array, axis: int, count: int) -> Array:
    """Return the first elements of an array along an axis."""
    return array[(slice(None),) * axis + (slice(0, count),)]

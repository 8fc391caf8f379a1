"""Running programs for their values: every instruction in order, all windows of a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..isa.errors import FlexcError, did_you_mean
from ..isa.program import Program, Tensor
from .array import ArrayModel, FastArray
from .bind import Binding, Observer
from .cells import WeightCache
from .host import Host
from .memory import NUMPY_TYPES, Memories
from .parallel import one_blas_thread
from .walk import build

Tensors: TypeAlias = dict[str, npt.NDArray[Any]]
#: Makes what carries out the array's instructions, given the cache of decoded weights.
ArrayFactory: TypeAlias = Callable[[WeightCache], ArrayModel]
#: Makes what carries out a program on its memories.
BindingFactory: TypeAlias = Callable[[Program, Memories, ArrayModel, Host, Observer | None], Binding]


class Executor:
    """A program made ready to run, any number of times; decoded weights and host sessions are kept between runs."""

    def __init__(self, program: Program, array: ArrayFactory = FastArray, binding: BindingFactory = Binding) -> None:
        """Prepare a program.

        Raises:
            FlexcError: its control flow is malformed.
        """
        self.program = program
        self.tree = build(program)
        self._cache = WeightCache(program.machine.array.columns)
        self._host = Host(program)
        self._array = array
        self._binding = binding
        self._last: Binding | None = None
        self._dram: npt.NDArray[np.uint8] | None = None

    def use(self, dram: npt.NDArray[np.uint8]) -> None:
        """Run in this DRAM, [windows, bytes], from now on: programs that share it find each other's states there."""
        if self._dram is not dram:
            self._last, self._dram = None, dram

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        observer: Observer | None = None,
        *,
        resume: bool = False,
        without: Collection[str] = (),
    ) -> Tensors:
        """Run all windows of ``feeds`` at once; values are [windows, *shape] both ways.

        Outputs named in ``without`` are left where they are. A state that is not fed starts at zero; or, with
        ``resume``, as the last run of as many windows left it.

        Raises:
            FlexcError: an input is missing, unknown or of the wrong type or shape; an operand lies outside its memory;
                a host segment fails.
        """
        windows = _check_feeds(self.program, feeds)
        binding = self._bound(windows) if self._plain(observer) else self._bind(windows, observer)
        memories = binding.memories
        memories.clear(keep_states=resume)
        for tensor in self.program.inputs:
            if tensor.name in feeds:
                np.copyto(memories.tensor(tensor), feeds[tensor.name])
        with np.errstate(all="ignore"), one_blas_thread():
            binding.run(self.tree.root)
        return {each.name: _output(memories, each) for each in self.program.outputs if each.name not in without}

    def _plain(self, observer: Observer | None) -> bool:
        """Whether nobody watches, so that the actions of the last run can be used again."""
        return observer is None and self._binding is Binding

    def _bound(self, windows: int) -> Binding:
        """Return the last binding where it is for as many windows, or a new one."""
        if self._last is None or self._last.memories.windows != windows:
            self._last = None  # give the old memories back before taking new ones
            self._last = self._bind(windows, None)
        return self._last

    def _bind(self, windows: int, observer: Observer | None) -> Binding:
        memories = Memories(self.program, windows, self._dram)
        return self._binding(self.program, memories, self._array(self._cache), self._host, observer)


def run(program: Program, feeds: Mapping[str, npt.NDArray[Any]], observer: Observer | None = None) -> Tensors:
    """Run a program once; see :meth:`Executor.run`."""
    return Executor(program).run(feeds, observer)


def _output(memories: Memories, tensor: Tensor) -> npt.NDArray[Any]:
    values = memories.tensor(tensor)
    return np.broadcast_to(values, (memories.windows, *tensor.shape)).copy()


def _check_feeds(program: Program, feeds: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the number of windows that the feeds have, or raise FlexcError."""
    names = [tensor.name for tensor in program.inputs]
    states = {state.input for state in program.states}
    for name in feeds:
        if name not in names:
            raise FlexcError(f"the program has no input '{name}'", remedy=did_you_mean(name, names))
    for tensor in program.inputs:
        if tensor.name in feeds:
            _check_feed(tensor, feeds[tensor.name])
        elif tensor.name not in states:
            raise FlexcError(f"input '{tensor.name}' is missing")
    windows = {len(feed) for feed in feeds.values()}
    if len(windows) > 1:
        raise FlexcError(f"the inputs have different numbers of windows: {sorted(windows)}")
    return windows.pop() if windows else 1


def _check_feed(tensor: Tensor, feed: npt.NDArray[Any]) -> None:
    wanted = NUMPY_TYPES[tensor.dtype]
    if feed.dtype != wanted or feed.ndim != len(tensor.shape) + 1 or feed.shape[1:] != tensor.shape or not len(feed):
        shape = ", ".join(["windows", *map(str, tensor.shape)])
        got = f"{feed.dtype}{list(feed.shape)}"
        raise FlexcError(f"input '{tensor.name}' must be {wanted}[{shape}], at least one window, not {got}")

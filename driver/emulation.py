"""Running programs: windows in batches on the emulator, and what a window costs in cycles and energy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flexc.emulator.array import FastArray
from flexc.emulator.energy import Energy, energy_of
from flexc.emulator.run import ArrayFactory, Executor
from flexc.emulator.timing import Timing, time_program
from flexc.isa.program import Program

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

#: Called with the number of a batch's first window, its inputs and its outputs, all [windows, *shape].
Sink: TypeAlias = Callable[[int, Arrays, Arrays], None]

BATCH = 8
"""Windows run at once unless memory is short: enough to share decoded weights and Python's own time."""

WORKERS = 2
"""Batches run side by side, in threads: most of the time is spent inside numpy, which lets others go on."""

_BATCH_BYTES = 1 << 30


@dataclass(frozen=True)
class LayerCost:
    """What one op of a program costs in a window; `nm` is empty for what does not run on the array."""

    name: str
    op: str
    engine: str
    nm: str
    cycles: int
    energy_pj: float
    macs: int


@dataclass(frozen=True)
class Cost:
    """What one window costs: the timing of a program and its energy, and what follows from both."""

    program: Program
    timing: Timing
    energy: Energy

    @classmethod
    def of(cls, program: Program) -> Cost:
        """Time a program.

        Raises:
            FlexcError: its control flow is malformed, or an instruction waits for a token that never comes.
        """
        timing = time_program(program)
        return cls(program, timing, energy_of(timing, program.machine))

    @property
    def cycles(self) -> int:
        """Cycles of a window."""
        return self.timing.cycles

    @property
    def time_s(self) -> float:
        """Seconds of a window at the machine's clock; the host's own time is not in it."""
        return self.cycles / self.program.machine.clock.frequency_hz

    @property
    def macs(self) -> int:
        """Products made on the array; padding of tiles is in it."""
        return self.timing.counters.get("mac", 0)

    @property
    def utilisation(self) -> float:
        """Products made over those that all macros could make in these cycles."""
        return self.macs / max(1, self.cycles * self.program.machine.peak_macs_per_cycle)

    @property
    def busy(self) -> dict[str, float]:
        """Share of the cycles that each engine is at work."""
        return {engine: count / max(1, self.cycles) for engine, count in sorted(self.timing.busy.items())}

    @cached_property
    def layers(self) -> tuple[LayerCost, ...]:
        """The cost of every op of the program, in the order they run."""
        rows = []
        for index, op in enumerate(self.program.debug.ops):
            timing = self.timing.ops[index]
            macs, energy = timing.counters.get("mac", 0), self.energy.op_pj(index)
            rows.append(LayerCost(op.name, op.op_type, op.engine, op.nm, timing.cycles, energy, macs))
        return tuple(rows)


@dataclass(frozen=True)
class Result:
    """What a run gives: the outputs, shaped as the inputs were given, and the cost of a window."""

    outputs: Arrays
    windows: int
    cycles: int
    time_s: float
    energy_pj: float
    energy_by_event: Mapping[str, float]
    macs: int
    utilisation: float
    busy: Mapping[str, float]
    layers: tuple[LayerCost, ...]

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.outputs.items())
        return f"<flexc.Result: {outputs}; {self.cycles} cycles, {self.energy_pj:.6g} pJ, {len(self.layers)} layers>"

    @classmethod
    def of(cls, outputs: Arrays, windows: int, cost: Cost) -> Result:
        """Put outputs and cost together."""
        return cls(
            outputs,
            windows,
            cost.cycles,
            cost.time_s,
            cost.energy.total_pj,
            dict(cost.energy.by_event),
            cost.macs,
            cost.utilisation,
            cost.busy,
            cost.layers,
        )


def batch_size(program: Program, windows: int) -> int:
    """Return how many windows to run at once: what fits into memory, and leaves no worker idle."""
    machine = program.machine
    a_window = program.dram_bytes + machine.buffer.bytes + machine.accumulator_bytes
    fitting = _BATCH_BYTES // max(1, WORKERS * a_window)
    return max(1, min(BATCH, fitting, -(-windows // WORKERS)))


def batches(feeds: Sequence[Arrays], size: int, first: int = 0) -> Iterator[tuple[int, Arrays]]:
    """Yield (number of the first window, inputs [windows, *shape]) for stretches of at most `size` windows."""
    for start in range(first, len(feeds), size):
        chosen = [feeds[index] for index in range(start, min(start + size, len(feeds)))]
        yield start, {name: np.stack([feed[name] for feed in chosen]) for name in chosen[0]}


def run_windows(
    program: Program,
    feeds: Sequence[Arrays],
    sinks: Sequence[Sink],
    *,
    first: int = 0,
    array: ArrayFactory = FastArray,
    progress: Callable[[str], None] = lambda _text: None,
) -> None:
    """Run every window from `first` on; hand inputs and outputs to the sinks, in order, a batch at a time.

    Nothing is kept here.

    Raises:
        FlexcError: an input does not fit, or the program fails while it runs.
    """
    for start, batch, outputs in run_batches(program, feeds, first, array):
        progress(f"window {start + len(next(iter(outputs.values())))} of {len(feeds)}")
        for sink in sinks:
            sink(start, batch, outputs)
    progress("")


def run_batches(
    program: Program, feeds: Sequence[Arrays], first: int = 0, array: ArrayFactory = FastArray
) -> Iterator[tuple[int, Arrays, Arrays]]:
    """Yield (first window, inputs, outputs) of all batches in order; a few run while others are looked at."""
    idle: SimpleQueue[Executor] = SimpleQueue()
    for _ in range(WORKERS):
        idle.put(Executor(program, array))

    def work(batch: Arrays) -> Arrays:
        executor = idle.get()
        try:
            return executor.run(batch)
        finally:
            idle.put(executor)

    running: deque[tuple[int, Arrays, Future[Arrays]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for start, batch in batches(feeds, batch_size(program, len(feeds) - first), first):
            running.append((start, batch, pool.submit(work, batch)))
            if len(running) > WORKERS:
                begin, given, future = running.popleft()
                yield begin, given, future.result()
        for begin, given, future in running:
            yield begin, given, future.result()

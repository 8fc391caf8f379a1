"""Duration rules: how many cycles an instruction takes, from its operands and the machine. The one truth about time.

Every rule takes :class:`Operands` and returns a :class:`Duration`, in cycles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .instruction import Duration, Operands
from .streams import Stream

if TYPE_CHECKING:
    from .machine import Machine

DRAM_SPACES = ("const", "dram")


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def burst_bytes(stream: Stream, machine: Machine) -> int:
    """Return the bytes that a transfer moves over the DRAM bus: every contiguous run rounded up to whole bursts."""
    number, length = stream.runs()
    return number * _ceil(length, machine.dram.burst_bytes) * machine.dram.burst_bytes


def latency_cycles(machine: Machine) -> int:
    """Return the DRAM latency in cycles, rounded up."""
    return _ceil(round(machine.dram.latency_ns * machine.clock.frequency_hz), 10**9)


def transfer(dram: Iterable[Stream], buffer: Iterable[Stream], machine: Machine) -> Duration:
    """Return the duration of a transfer: latency, then the DRAM bus or the buffer's port, whichever takes longer."""
    over_bus = sum(burst_bytes(stream, machine) for stream in dram)
    bus = _ceil(over_bus * machine.clock.frequency_hz, round(machine.dram.bandwidth_bytes_per_s))
    port = _ceil(sum(stream.bytes for stream in buffer), machine.buffer.port_bytes_per_cycle)
    latency = latency_cycles(machine) if over_bus else 0
    total = max(1, latency + max(bus, port))
    return Duration(busy=total, done=total, latency=latency, bus=bus)


def _split(streams: Iterable[Stream]) -> tuple[list[Stream], list[Stream]]:
    every = list(streams)
    return [s for s in every if s.space in DRAM_SPACES], [s for s in every if s.space == "buf"]


def copy(operands: Operands) -> Duration:
    """A DMA transfer."""
    dram, buffer = _split(operands.streams.values())
    return transfer(dram, buffer, operands.machine)


def gather(operands: Operands) -> Duration:
    """A DMA transfer of the rows picked, each a run of its own, and of the indices."""
    picked = picked_rows(operands)
    dram, buffer = _split([operands.streams["dst"], picked, operands.streams["index"]])
    return transfer(dram, buffer, operands.machine)


def picked_rows(operands: Operands) -> Stream:
    """Return a stream with the size of what a gather reads of its table: as many separate rows as it writes."""
    return _rows_apart(operands.streams["table"], operands.streams["dst"].rows)


def scatter(operands: Operands) -> Duration:
    """A DMA transfer of the rows written, each a run of its own, and of the indices."""
    streams = operands.streams
    dram, buffer = _split([streams["src"], written_rows(operands), streams["index"]])
    return transfer(dram, buffer, operands.machine)


def written_rows(operands: Operands) -> Stream:
    """Return a stream with the size of what a scatter writes: as many separate rows as its source has."""
    return _rows_apart(operands.streams["dst"], operands.streams["src"].rows)


def _rows_apart(table: Stream, rows: int) -> Stream:
    """Return rows of a table that do not lie side by side."""
    apart = 2 * table.cols * table.itemsize
    return Stream(table.space, table.dtype, table.base, rows, table.cols, apart, table.itemsize)


def load_weights(operands: Operands) -> Duration:
    """One column a cycle into all macros, or as fast as the weight bus of a cluster brings them; 0 when resident.

    What a resident machine has in its cells from the start is what the object file brings (``const``); tiles made at
    run time it writes like any other.
    """
    array, source = operands.machine.array, operands.streams["src"]
    if array.resident and source.space == "const":
        return Duration(0, 0)
    a_cluster = _ceil(source.rows, array.clusters) * source.cols * source.itemsize
    cycles = max(array.load_cycles, _ceil(a_cluster, array.weight_bus_bytes_per_cycle))
    return Duration(cycles, cycles)


def settle(operands: Operands) -> Duration:
    """The distribution network settles on new vectors."""
    return Duration(operands.machine.array.settle_cycles, operands.machine.array.settle_cycles)


def cycles_per_vector(n: int, m: int, depth: int, slices: int, machine: Machine) -> int:
    """Return the cycles that one vector holds the array.

    The largest of 1, the row bus (M activations a block of N slots, 8 a slot a cycle) and the activation bus of a
    cluster, which the slices (different parts of a vector for different macros) share.
    """
    array = machine.array
    a_cluster = _ceil(slices, array.clusters) * depth
    rows = max(1, machine.cycles_per_vector(n, m))
    return max(rows, _ceil(a_cluster, array.activation_bus_bytes_per_cycle))


def mac(operands: Operands) -> Duration:
    """V vectors one after the other; the last one drains while the cells may already be written again."""
    groups, array = operands.groups, operands.machine.array
    assert groups is not None
    slices = operands.values["slices"]
    assert isinstance(slices, int)
    each = cycles_per_vector(groups.n, groups.m, groups.depth, slices, operands.machine)
    interval = each * array.initiation_interval
    vectors = operands.streams["acc"].rows
    return Duration(busy=vectors * interval, done=(vectors - 1) * interval + array.drain_cycles + each - 1)


def accumulate(operands: Operands) -> Duration:
    """One read-modify-write of 32 sums a cycle beside each macro."""
    return Duration(operands.streams["dst"].rows, operands.streams["dst"].rows)


def lanes(machine: Machine) -> int:
    """Return the fp32 lanes of all clusters' vector units."""
    return machine.vector.lanes * machine.array.clusters


@dataclass(frozen=True)
class VectorRule:
    """Elements of operand ``over`` over the lanes, rounded up, times the cycles of its simple and slow functions."""

    simple: int = 0
    functions: int = 0
    over: str = "dst"

    def each(self, operands: Operands) -> int:
        """Return the cycles an element."""
        unit = operands.machine.vector
        return self.simple * unit.simple_cycles + self.functions * unit.function_cycles

    def __call__(self, operands: Operands) -> Duration:
        groups = _ceil(operands.streams[self.over].elements, lanes(operands.machine))
        cycles = max(1, groups * self.each(operands))
        return Duration(cycles, cycles)


def _levels(number: int) -> int:
    """Return log2, rounded up."""
    return (number - 1).bit_length()


@dataclass(frozen=True)
class RankRule(VectorRule):
    """Passes over a row, each a comparison and a mark: one for every place asked for, or a whole sorting network.

    A bitonic network of n inputs has log2(n) * (log2(n) + 1) / 2 stages (Batcher, AFIPS 1968).
    """

    def each(self, operands: Operands) -> int:
        stages = _levels(operands.streams["a"].cols)
        passes = max(1, min(operands.streams["dst"].cols, stages * (stages + 1) // 2))
        return 2 * passes * operands.machine.vector.simple_cycles


@dataclass(frozen=True)
class ScanRule(VectorRule):
    """A pass for every doubling of the distance over which sums reach (Hillis and Steele, CACM 1986)."""

    def each(self, operands: Operands) -> int:
        return max(1, _levels(operands.streams["a"].cols)) * operands.machine.vector.simple_cycles


def vector_matmul(operands: Operands) -> Duration:
    """Rows x columns x K multiply-adds over the lanes."""
    macs = operands.streams["dst"].elements * operands.streams["a"].cols
    cycles = max(1, _ceil(macs, lanes(operands.machine)) * operands.machine.vector.mac_cycles)
    return Duration(cycles, cycles)


def host(operands: Operands) -> Duration:
    """The segment's inputs and outputs cross the DRAM bus; the host's own time is not modelled."""
    machine = operands.machine
    bus = _ceil(operands.segment_bytes * machine.clock.frequency_hz, round(machine.dram.bandwidth_bytes_per_s))
    latency = latency_cycles(machine)
    return Duration(latency + bus, latency + bus, latency, bus)


def nothing(_operands: Operands) -> Duration:
    """Takes no time on its engine."""
    return Duration(0, 0)

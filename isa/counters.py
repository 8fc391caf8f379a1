"""Counter rules: which countable events one executed instruction causes. Joules are counters times the energy table.

Every counter has one definition, here. ``COUNTERS`` lists them with their meaning; the machine's energy table has a
price for each. Every instruction, on whatever engine, also counts one ``control_instruction``.
"""

from __future__ import annotations

from collections.abc import Iterable

from .durations import DRAM_SPACES, VectorRule, burst_bytes, picked_rows, written_rows
from .instruction import Counters, Operands
from .streams import Stream

#: Counter -> (field of the machine's ``energy`` section, what is counted).
COUNTERS = {
    "mac": ("mac_pj", "products of a configured cell with its activation: the cell and its share of the column tree"),
    "index_mux_2": ("index_mux_2_pj", "of these, selected by an index from blocks of 2"),
    "index_mux_4": ("index_mux_4_pj", "of these, selected by an index from blocks of 4"),
    "index_mux_8": ("index_mux_8_pj", "of these, selected by an index from blocks of 8"),
    "index_mux_16": ("index_mux_16_pj", "of these, selected by an index from blocks of 16"),
    "zero_slot": ("zero_slot_pj", "cells outside the configured slots that idle during a MAC"),
    "row_byte": ("row_byte_pj", "activation bytes driven along the rows of a macro"),
    "distribution_byte": ("distribution_byte_pj", "activation bytes through the distribution multiplexers"),
    "partial_sum": ("partial_sum_pj", "sums entering a sub-macro's partial-sum buffer"),
    "merge": ("merge_pj", "columns merged over the sub-macros of a macro"),
    "accumulate": ("accumulate_pj", "int32 additions beside a macro"),
    "cell_write": ("cell_write_pj", "weight words written into cells"),
    "buffer_read_byte": ("buffer_read_byte_pj", "bytes read from the on-chip buffer"),
    "buffer_write_byte": ("buffer_write_byte_pj", "bytes written to the on-chip buffer"),
    "register_byte": ("register_byte_pj", "bytes read from and written to accumulators"),
    "noc_byte_hop": ("noc_byte_hop_pj", "activation and weight bytes brought to a cluster, where there are several"),
    "dram_byte": ("dram_byte_pj", "bytes over the DRAM bus, whole bursts"),
    "vector_op": ("vector_op_pj", "lane cycles of the vector unit: a slow function counts its cycles"),
    "control_instruction": ("control_instruction_pj", "instructions issued"),
}


def _memory(reads: Iterable[Stream], writes: Iterable[Stream]) -> Counters:
    counts = {"buffer_read_byte": 0, "buffer_write_byte": 0, "register_byte": 0}
    for name, streams in (("buffer_read_byte", reads), ("buffer_write_byte", writes)):
        for stream in streams:
            if stream.space == "acc":
                counts["register_byte"] += stream.bytes
            elif stream.space == "buf":
                counts[name] += stream.bytes
    return counts


def copy(operands: Operands) -> Counters:
    """Bytes at both ends of a transfer."""
    source, target = operands.streams["src"], operands.streams["dst"]
    dram = [stream for stream in (source, target) if stream.space in DRAM_SPACES]
    return _memory([source], [target]) | {"dram_byte": sum(burst_bytes(each, operands.machine) for each in dram)}


def gather(operands: Operands) -> Counters:
    """Bytes of the rows picked, of the indices and of what is written."""
    reads = [picked_rows(operands), operands.streams["index"]]
    target = operands.streams["dst"]
    dram = [stream for stream in (*reads, target) if stream.space in DRAM_SPACES]
    return _memory(reads, [target]) | {"dram_byte": sum(burst_bytes(each, operands.machine) for each in dram)}


def scatter(operands: Operands) -> Counters:
    """Bytes of the rows, of the indices and of what is written."""
    reads, target = [operands.streams["src"], operands.streams["index"]], written_rows(operands)
    dram = [stream for stream in (*reads, target) if stream.space in DRAM_SPACES]
    return _memory(reads, [target]) | {"dram_byte": sum(burst_bytes(each, operands.machine) for each in dram)}


def load_weights(operands: Operands) -> Counters:
    """One cell write a word; nothing for constant weights on a machine where these are resident."""
    groups, source = operands.groups, operands.streams["src"]
    if operands.machine.array.resident and source.space == "const":
        return {}
    assert groups is not None
    array = operands.machine.array
    counts = _memory([source], [])
    hops = source.bytes if array.clusters > 1 else 0
    return counts | {"cell_write": source.rows * array.columns * groups.slots, "noc_byte_hop": hops}


def mac(operands: Operands) -> Counters:
    """What V vectors cause in each of the macros that take part."""
    groups, array = operands.groups, operands.machine.array
    assert groups is not None
    act, macros, vectors = operands.streams["act"], operands.streams["cells"].rows, operands.streams["acc"].rows
    columns = vectors * macros * array.columns
    every = array.sub_macros * array.rows
    counts = {
        "mac": columns * groups.slots,
        "zero_slot": columns * (every - groups.slots),
        "row_byte": vectors * macros * groups.depth,
        "distribution_byte": vectors * macros * groups.depth,
        "partial_sum": columns * array.sub_macros,
        "merge": columns,
        "accumulate": columns,
        "register_byte": 2 * 4 * columns,
        "buffer_read_byte": act.bytes,
        "noc_byte_hop": act.bytes * min(array.clusters, macros) if array.clusters > 1 else 0,
    }
    if groups.m > 1:
        counts[f"index_mux_{groups.m}"] = columns * groups.slots
    return counts


def accumulate(operands: Operands) -> Counters:
    """Read both sums, add, write one."""
    target = operands.streams["dst"]
    return {"accumulate": target.elements, "register_byte": 3 * target.bytes}


class Vector:
    """Lane cycles of a vector operation, and the bytes of its operands."""

    def __init__(self, rule: VectorRule) -> None:
        self.rule = rule

    def __call__(self, operands: Operands) -> Counters:
        reads = [stream for name, stream in operands.streams.items() if name != "dst"]
        lane_cycles = operands.streams[self.rule.over].elements * self.rule.each(operands)
        return _memory(reads, [operands.streams["dst"]]) | {"vector_op": lane_cycles}


def vector_matmul(operands: Operands) -> Counters:
    """A multiplication and an addition each multiply-add; each operand is read once."""
    macs = operands.streams["dst"].elements * operands.streams["a"].cols
    reads = [operands.streams["a"], operands.streams["b"]]
    return _memory(reads, [operands.streams["dst"]]) | {"vector_op": 2 * macs}


def host(operands: Operands) -> Counters:
    """The segment's inputs and outputs over the DRAM bus."""
    return {"dram_byte": operands.segment_bytes}


def nothing(_operands: Operands) -> Counters:
    """Causes no event beyond its own issue."""
    return {}

"""The sections of a machine description: every countable thing of the chip, with its unit in its name.

No section has default values: the numbers stand in the machine files (``isa/machines/*.toml``) and nowhere else.
Sources: *rtl* the published Verilog of the macro; *sim* simulated or synthesised from it, or CACTI 7; *silicon*
published chip figures at 28 nm, 0.9 V, INT8; *own* a decision of this project. A range behind an energy says how far
published figures spread at 28 nm.
"""

from __future__ import annotations

from dataclasses import dataclass

from .machine_fields import Choice, Flag, Subset, Text, count, quantity, stated

PACKINGS = ("packed", "aligned")
SELECTS = ("incell", "literal", "phased", "shared")
BLOCK_SIZES = (2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The one clock of the chip and the process its figures are for."""

    frequency_hz: int = count("clock frequency of every engine", "Hz")
    node_nm: float = quantity("process node that the energy, leakage and area figures are for", "nm", zero=False)


@dataclass(frozen=True, kw_only=True)
class Array:
    """The compute-in-memory macros, the wires that feed them and the accumulators beside them."""

    macros: int = count("macros on the chip", "macros", high=4096)
    clusters: int = count("clusters that the macros are split into evenly; each has a bus of its own", high=256)
    sub_macros: int = count("sub-macros of a macro; merging always adds all of them", low=1, high=16, source="rtl")
    rows: int = count("rows of a sub-macro", "rows", high=256, source="rtl")
    columns: int = count("columns of a macro: outputs of a tile", "columns", high=256, source="rtl")
    weight_sets: int = count(
        "weights a cell holds, of which one computes; from 2 on, one set can be written while another computes; "
        "0 means without limit",
        "sets",
        low=0,
        high=64,
    )
    resident: bool = stated(
        Flag(doc="every weight is in the cells from the start and never reloaded: an idealisation, to be labelled so")
    )
    load_cycles: int = count("write one weight set of a macro, a column a cycle", "cycles", low=0, source="rtl")
    settle_cycles: int = count("from the last weight written to the first activation", "cycles", low=0)
    drain_cycles: int = count("activation on the bus to merged result", "cycles", source="sim")
    initiation_interval: int = count(
        "between two vectors: 2 as published, 1 with an unregistered acknowledge", "cycles", high=8
    )
    row_bus_bytes: int = count(
        "activations that one row can take in a cycle, over all sub-macros", "bytes", source="rtl"
    )
    packing: str = stated(
        Choice(
            doc="whether blocks take consecutive slots of a column (packed) or start at a row (aligned)", words=PACKINGS
        )
    )
    select: str = stated(
        Choice(
            doc="how a slot gets its activation: by an index in each cell (incell); by one pair select for all columns "
            "of a row, in one phase (literal) or in M/2 phases (phased); by one pattern for all columns (shared)",
            words=SELECTS,
        )
    )
    block_sizes: tuple[int, ...] = stated(
        Subset(doc="block sizes M that distribution supports beside dense", numbers=BLOCK_SIZES)
    )
    accumulator_vectors: int = count("vectors of int32 sums that the accumulators beside a macro hold", "vectors")
    merge_bits: int = count("width of a merged, signed sum", "bits", low=8, high=32, source="rtl")
    activation_bus_bytes_per_cycle: int = count(
        "activation bus of a cluster, broadcast to its macros", "bytes/cycle", source="rtl"
    )
    weight_bus_bytes_per_cycle: int = count("weight bus of a cluster", "bytes/cycle")


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """The on-chip SRAM between DRAM and the engines."""

    bytes: int = count("capacity, all banks together", "bytes")
    banks: int = count("banks of equal size", "banks", high=64)
    port_bytes_per_cycle: int = count("what a DMA transfer can read or write, all banks together", "bytes/cycle")


@dataclass(frozen=True, kw_only=True)
class Dram:
    """The memory outside the chip."""

    kind: str = stated(Text(doc="what it is, for the reader", pattern=".+", says="one line of text, not empty"))
    bandwidth_bytes_per_s: int = count("sustained bandwidth, all channels together", "bytes/s")
    latency_ns: float = quantity("from request to first byte", "ns")
    burst_bytes: int = count("smallest transfer: every contiguous run is rounded up to it", "bytes", high=4096)
    channels: int = count("DMA channels, each an engine with a queue of its own", "channels", high=2)
    capacity_bytes: int = count("capacity", "bytes")


@dataclass(frozen=True, kw_only=True)
class Vector:
    """The fp32 vector unit: what it costs; its values are always IEEE float32."""

    lanes: int = count("fp32 lanes a cluster", "lanes", high=65536)
    simple_cycles: int = count("add, multiply, compare, convert, maximum: an element a lane", "cycles")
    function_cycles: int = count("divide, square root, exp, log, tanh, erf, sigmoid: an element a lane", "cycles")
    mac_cycles: int = count("fused multiply-add: one a lane", "cycles")


@dataclass(frozen=True, kw_only=True)
class Control:
    """The in-order processor that hands instructions to the engines' queues; the encoding sets the upper bounds."""

    queue_depth: int = count("instructions that wait before an engine", "instructions", high=4096)
    issue_cycles: int = count("to hand out one instruction", "cycles", low=0)
    semaphores: int = count("counters that tokens between engines are kept in", high=64)
    streams: int = count("affine address registers", high=64)
    loop_levels: int = count("zero-overhead loops in one another", high=8)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Picojoules an event. Absolute joules carry about a factor 2, ratios on one table about 20 %."""

    mac_pj: float = quantity(
        "a product in a cell, with its share of the column's adder tree", "pJ", source="silicon, 0.055-0.26; split own"
    )
    index_mux_2_pj: float = quantity(
        "of a product selected from 2 activations, the selection", "pJ", source="sim, x/2..x2"
    )
    index_mux_4_pj: float = quantity(
        "of a product selected from 4 activations, the selection", "pJ", source="sim, x/2..x2"
    )
    index_mux_8_pj: float = quantity(
        "of a product selected from 8 activations, the selection", "pJ", source="sim, x/2..x2"
    )
    index_mux_16_pj: float = quantity(
        "of a product selected from 16 activations, the selection", "pJ", source="sim, x/2..x2"
    )
    zero_slot_pj: float = quantity("a cell that takes part and holds padding", "pJ", source="own, 0-0.03")
    row_byte_pj: float = quantity("an activation byte driven along one row", "pJ", source="own, 0.1-0.6")
    distribution_byte_pj: float = quantity(
        "an activation byte through the distribution multiplexers", "pJ", source="sim, own, 0.01-0.05"
    )
    partial_sum_pj: float = quantity("a sum entering a sub-macro's partial-sum buffer", "pJ", source="gates, 0.03-0.3")
    merge_pj: float = quantity("an output merged over the sub-macros", "pJ", source="gates, 0.03-0.3")
    cell_write_pj: float = quantity("a weight word written into a cell", "pJ", source="silicon and sim, 0.08-0.4")
    accumulate_pj: float = quantity(
        "an int32 addition beside a macro", "pJ", source="Horowitz, ISSCC 2014, scaled, 0.04-0.1"
    )
    buffer_read_byte_pj: float = quantity("a byte read from the buffer", "pJ", source="sim, by bank size, x0.7..x3")
    buffer_write_byte_pj: float = quantity("a byte written to the buffer", "pJ", source="sim, by bank size, x0.7..x3")
    register_byte_pj: float = quantity("a byte read from or written to a register file", "pJ", source="sim, 0.05-0.15")
    noc_byte_hop_pj: float = quantity(
        "a byte carried one hop between clusters", "pJ", source="Krishna, DAC 2012; SENECA; 0.4-1.6"
    )
    dram_byte_pj: float = quantity(
        "a byte over the DRAM bus", "pJ", source="by kind: HBM from O'Connor, MICRO 2017; LPDDR from Accelergy"
    )
    vector_op_pj: float = quantity(
        "an fp32 lane cycle, registers and issue included", "pJ", source="Horowitz, ISSCC 2014, scaled; own; 0.8-5"
    )
    control_instruction_pj: float = quantity("an instruction fetched and issued", "pJ", source="SENECA, scaled, 6-25")


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Milliwatts that flow all the time."""

    macro_mw: float = quantity("of one macro", "mW")
    buffer_kb_mw: float = quantity("of 1024 bytes of the buffer", "mW", source="sim, 0.03-0.2")


@dataclass(frozen=True, kw_only=True)
class Area:
    """Silicon of a macro, from generic gates: good for comparing forms of the macro, not for a floor plan."""

    gate_um2: float = quantity("one two-input NAND gate (1 GE)", "um2", zero=False, source="silicon")
    macro_ge: float = quantity("the macro as published, cells included", "GE", source="sim")
    cell_ge: float = quantity("one cell of it", "GE", source="sim")
    index_mux_8_percent: float = quantity("what an in-cell 8:1 multiplexer adds to a cell", "%", source="sim")
    index_mux_16_percent: float = quantity("what an in-cell 16:1 multiplexer adds to a cell", "%", source="sim")
    weight_set_mm2: float = quantity("what each further weight set adds to a macro", "mm2")


#: The sections of a machine file, in the order in which they are written.
SECTIONS: dict[str, type] = {
    "clock": Clock,
    "array": Array,
    "buffer": Buffer,
    "dram": Dram,
    "vector": Vector,
    "control": Control,
    "energy": Energy,
    "leakage": Leakage,
    "area": Area,
}

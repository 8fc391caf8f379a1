"""The machine: one validated description that every room reads, and what follows from its geometry.

A machine is data (a TOML file, see ``docs/machine.md``); no number of it stands in code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FlexcError, raise_all
from .machine_sections import SECTIONS, Area, Array, Buffer, Clock, Control, Dram, Energy, Leakage, Vector
from .machine_toml import Source, find_source, preset_names, read_machine, write_machine

__all__ = ["Machine", "load_machine", "preset_names"]

INT8_PRODUCT = 128 * 128  # the largest magnitude of a product of two signed bytes
PRICES = ("energy", "leakage", "area")  # what a program costs, not whether it fits


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A FlexCiM chip: macros, buffer, DRAM, vector unit, control, and what each event costs.

    A weight pattern N:M keeps ``n`` weights of each block of ``m`` inputs; dense is ``n = m = 1``.
    """

    name: str
    description: str
    clock: Clock
    array: Array
    buffer: Buffer
    dram: Dram
    vector: Vector
    control: Control
    energy: Energy
    leakage: Leakage
    area: Area

    @classmethod
    def from_toml(cls, text: str, *, where: str = "machine") -> Machine:
        """Read a machine from TOML text; files it inherits from are looked for in the working directory.

        Raises:
            FlexcError: the text is not TOML, or fields are unknown, missing or illegal; all problems at once.
        """
        return cls._from_source(Source(text, where, Path("machine.toml")))

    @classmethod
    def _from_source(cls, source: Source) -> Machine:
        values = read_machine(source)
        sections: dict[str, Any] = {name: section(**values[name]) for name, section in SECTIONS.items()}
        machine = cls(**values[""], **sections)
        raise_all([FlexcError(message, where=source.at(*key.split("."))) for key, message in _contradictions(machine)])
        return machine

    def to_toml(self) -> str:
        """Write the whole machine as TOML, nothing inherited; reading it back gives an equal machine."""
        top = {"name": self.name, "description": self.description}
        return write_machine({"": top} | {name: vars(getattr(self, name)) for name in SECTIONS})

    def fingerprint(self) -> str:
        """Return a SHA-256, in hex, of all that makes a program fit a machine.

        That is clock, geometry, engines and memories; neither the name nor the energy, leakage and area tables.
        """
        fitting = {name: vars(getattr(self, name)) for name in SECTIONS if name not in PRICES}
        return hashlib.sha256(write_machine(fitting).encode()).hexdigest()

    @property
    def slots(self) -> int:
        """Cells of one column of a macro, over its sub-macros: the products summed into one output a cycle."""
        return self.array.rows * self.array.sub_macros

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products that all macros make in a cycle at most, of weights that are there."""
        return self.array.macros * self.array.columns * self.slots

    @property
    def accumulator_bytes(self) -> int:
        """Bytes of the accumulators beside all macros: an int32 a vector, macro and column."""
        return 4 * self.array.accumulator_vectors * self.array.macros * self.array.columns

    @property
    def leakage_mw(self) -> float:
        """Power that leaks all the time, of the whole chip."""
        return self.array.macros * self.leakage.macro_mw + self.buffer.bytes / 1024 * self.leakage.buffer_kb_mw

    def check_pattern(self, n: int, m: int) -> None:
        """Refuse a pattern that the distribution network cannot form.

        Raises:
            FlexcError: M is not a block size of this machine, or N is not in 1..M.
        """
        if (n, m) == (1, 1):
            return
        sizes = ", ".join(map(str, self.array.block_sizes))
        if m not in self.array.block_sizes:
            raise FlexcError(f"machine '{self.name}' cannot run {n}:{m}", remedy=f"choose M among {sizes}")
        if not 1 <= n <= m:
            raise FlexcError(f"{n}:{m} is not a pattern", remedy=f"N weights are kept of M: choose N from 1 to {m}")

    def slots_per_block(self, n: int, m: int) -> int:
        """Return the slots that one block takes.

        With an index in each cell, or one pattern for all columns, these are its N weights. The literal macro shares
        each pair select between columns of different patterns and needs M - floor(M / (N + 1)) (Hall's theorem).
        """
        self.check_pattern(n, m)
        return m - m // (n + 1) if self.array.select == "literal" else n

    def blocks_per_tile(self, n: int, m: int) -> int:
        """Return the blocks that one column of a macro holds.

        Packed, blocks take consecutive slots. Aligned, a row holds floor(sub_macros / slots) whole blocks, or a block
        takes ceil(slots / sub_macros) whole rows.
        """
        each, array = self.slots_per_block(n, m), self.array
        if array.packing == "packed":
            return self.slots // each
        if each <= array.sub_macros:
            return array.sub_macros // each * array.rows
        return array.rows // _ceil(each, array.sub_macros)

    def k_tile(self, n: int, m: int) -> int:
        """Return the inputs (of the dense matrix) that one tile covers: M a block."""
        return self.blocks_per_tile(n, m) * m

    def index_bits(self, m: int) -> int:
        """Return the bits that name one of M positions: log2(M), none when dense."""
        return m.bit_length() - 1

    def cycles_per_vector(self, n: int, m: int) -> int:
        """Return the cycles that one vector keeps a tile busy, as the row bus and the selection allow.

        A row of ``sub_macros`` slots needs M activations for each block: ceil(sub_macros * M / (row_bus_bytes *
        slots a block)), at least 1. Phased selection offers one pair of each block at a time, so M / 2 cycles.
        """
        needed = _ceil(self.array.sub_macros * m, self.array.row_bus_bytes * self.slots_per_block(n, m))
        phases = m // 2 if self.array.select == "phased" else 1
        return max(1, phases, needed)

    def tile_bytes(self, n: int, m: int, blocks: int) -> int:
        """Return the stored bytes of a tile of so many blocks a column.

        Every column holds a byte a weight, then its indices packed into whole bytes.
        """
        self.check_pattern(n, m)
        weights = blocks * n
        return self.array.columns * (weights + _ceil(weights * self.index_bits(m), 8))

    @property
    def macro_mm2(self) -> float:
        """Silicon of one macro: the published one, in-cell multiplexers for the largest M, and further weight sets.

        A multiplexer from 4 or fewer is taken as free, and an unlimited number of weight sets (an idealisation) as one.
        """
        widest = max(self.array.block_sizes) if self.array.select == "incell" else 0
        percent = {8: self.area.index_mux_8_percent, 16: self.area.index_mux_16_percent}.get(widest, 0.0)
        gates = self.area.macro_ge + self.slots * self.array.columns * self.area.cell_ge * percent / 100
        return gates * self.area.gate_um2 * 1e-6 + max(0, self.array.weight_sets - 1) * self.area.weight_set_mm2


def load_machine(name_or_path: str | Path) -> Machine:
    """Return a preset by its name, or a machine from a TOML file.

    Raises:
        UsageError: there is no such preset, and it does not look like a file.
        FlexcError: the file cannot be read, or its fields are unknown, missing or illegal; all problems at once.
    """
    return Machine._from_source(find_source(name_or_path, Path()))


def _contradictions(machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield fields that are legal alone but not together: the one to blame, and why."""
    array, buffer = machine.array, machine.buffer
    if array.macros % array.clusters:
        yield "array.clusters", f"{array.macros} macros do not split evenly into {array.clusters} clusters"
    if array.resident and array.weight_sets:
        yield "array.weight_sets", f"resident weights need unlimited sets (0), not {array.weight_sets}"
    if not array.resident and not array.weight_sets:
        yield "array.weight_sets", "unlimited weight sets (0) are only for a machine with resident = true"
    if machine.slots < max(array.block_sizes):
        yield "array.block_sizes", f"a column of {machine.slots} slots cannot hold a block of {max(array.block_sizes)}"
    widest = (machine.slots * INT8_PRODUCT).bit_length() + 1
    if array.merge_bits < widest:
        yield "array.merge_bits", f"{machine.slots} INT8 products need {widest} bits, not {array.merge_bits}"
    if buffer.bytes % buffer.banks:
        yield "buffer.banks", f"{buffer.bytes} bytes do not split evenly into {buffer.banks} banks"

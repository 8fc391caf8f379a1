"""The machine: its presets, and what follows from its geometry."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexc.isa.errors import FlexcError
from flexc.isa.machine import Machine, load_machine, preset_names
from flexc.isa.machine_sections import SECTIONS

PATTERNS = [(1, 1), *((n, m) for m in (2, 4, 8, 16) for n in range(1, m + 1))]


def edge(**array: Any) -> Machine:
    """The edge preset with some fields of its array replaced."""
    machine = load_machine("edge")
    return dataclasses.replace(machine, array=dataclasses.replace(machine.array, **array))


def speedup(machine: Machine, n: int, m: int) -> float:
    """Inputs a cycle against dense."""
    return machine.k_tile(n, m) / machine.cycles_per_vector(n, m) / machine.slots


@pytest.mark.parametrize(
    ("n", "m", "bits", "blocks", "inputs", "cycles", "gain", "stored"),
    [
        (1, 1, 0, 128, 128, 1, 1, 8),
        (1, 2, 1, 128, 256, 1, 2, 4.5),
        (1, 4, 2, 128, 512, 1, 4, 2.5),
        (2, 4, 2, 64, 256, 1, 2, 5),
        (3, 4, 2, 42, 168, 1, 1.31, 7.5),
        (1, 8, 3, 128, 1024, 1, 8, 1.375),
        (2, 8, 3, 64, 512, 1, 4, 2.75),
        (3, 8, 3, 42, 336, 1, 2.62, 4.125),
        (4, 8, 3, 32, 256, 1, 2, 5.5),
        (1, 16, 4, 128, 2048, 2, 8, 0.75),
        (2, 16, 4, 64, 1024, 1, 8, 1.5),
        (4, 16, 4, 32, 512, 1, 4, 3),
        (8, 16, 4, 16, 256, 1, 2, 6),
    ],
)
def test_patterns(n: int, m: int, bits: int, blocks: int, inputs: int, cycles: int, gain: float, stored: float) -> None:
    machine = load_machine("edge")
    assert machine.index_bits(m) == bits
    assert machine.blocks_per_tile(n, m) == blocks
    assert machine.k_tile(n, m) == inputs
    assert machine.cycles_per_vector(n, m) == cycles
    assert speedup(machine, n, m) == pytest.approx(gain, abs=0.006)
    # a column's indices are rounded up to whole bytes
    assert 0 <= machine.tile_bytes(n, m, blocks) * 8 - stored * inputs * 32 < 8 * 32


def test_tile_bytes_round_up_each_column() -> None:
    machine = load_machine("edge")
    assert machine.tile_bytes(1, 1, 128) == 32 * 128
    assert machine.tile_bytes(3, 8, 42) == 32 * (126 + 48)  # 378 index bits
    assert machine.tile_bytes(1, 8, 1) == 32 * (1 + 1)


@pytest.mark.parametrize(
    ("n", "m", "blocks"),
    [(1, 1, 128), (1, 4, 128), (2, 4, 64), (3, 4, 32), (4, 8, 32), (5, 8, 16), (8, 8, 16), (9, 16, 10), (16, 16, 8)],
)
def test_aligned_blocks_stay_on_rows(n: int, m: int, blocks: int) -> None:
    assert edge(packing="aligned").blocks_per_tile(n, m) == blocks


def test_aligned_threes_waste_a_quarter() -> None:
    aligned = edge(packing="aligned")
    assert aligned.blocks_per_tile(3, 8) * 3 / aligned.slots == 0.75


@pytest.mark.parametrize(
    ("n", "m", "slots", "gain"), [(1, 2, 1, 2), (1, 4, 2, 2), (1, 8, 4, 2), (2, 4, 3, 1.33), (4, 8, 7, 1.14)]
)
def test_the_literal_macro_pays_halls_bound(n: int, m: int, slots: int, gain: float) -> None:
    literal = edge(select="literal")
    assert literal.slots_per_block(n, m) == slots
    assert speedup(literal, n, m) == pytest.approx(gain, rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (2, 4), (1, 8), (4, 8), (1, 16), (8, 16)])
def test_phased_selection_keeps_capacity_and_pays_in_time(n: int, m: int) -> None:
    phased = edge(select="phased")
    assert phased.k_tile(n, m) / phased.slots == m / n
    assert speedup(phased, n, m) == 2 / n


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_a_shared_pattern_costs_what_free_ones_do(n: int, m: int) -> None:
    shared, incell = edge(select="shared"), edge()
    assert shared.k_tile(n, m) == incell.k_tile(n, m)
    assert shared.cycles_per_vector(n, m) == incell.cycles_per_vector(n, m)


@pytest.mark.parametrize("select", ["incell", "literal", "phased", "shared"])
@pytest.mark.parametrize("packing", ["packed", "aligned"])
def test_blocks_never_take_more_than_the_column(select: str, packing: str) -> None:
    machine = edge(select=select, packing=packing)
    for n, m in PATTERNS:
        assert 0 < machine.blocks_per_tile(n, m) * machine.slots_per_block(n, m) <= machine.slots
        assert machine.cycles_per_vector(n, m) >= math.ceil(m / (8 * machine.slots_per_block(n, m)))


@pytest.mark.parametrize(
    ("n", "m", "says"),
    [
        (2, 32, "cannot run 2:32\nhelp: choose M among 2, 4, 8, 16"),
        (1, 1000, "cannot run"),
        (5, 4, "5:4 is not a pattern\nhelp: N weights are kept of M: choose N from 1 to 4"),
        (0, 4, "0:4 is not a pattern"),
    ],
)
def test_patterns_that_no_machine_forms_are_refused(n: int, m: int, says: str) -> None:
    with pytest.raises(FlexcError) as caught:
        load_machine("edge").k_tile(n, m)
    assert says in str(caught.value)


def test_presets() -> None:
    assert preset_names() == ["edge", "resident", "server"]
    small, resident, server = map(load_machine, preset_names())
    assert [each.name for each in (small, resident, server)] == preset_names()
    assert [each.array.macros for each in (small, resident, server)] == [4, 16, 256]
    assert [each.buffer.bytes >> 10 for each in (small, resident, server)] == [256, 512, 32 << 10]
    assert resident.array.resident
    assert not small.array.resident
    assert [each.peak_macs_per_cycle for each in (small, resident, server)] == [16384, 65536, 1 << 20]
    # cell words on the chip: 256 macros x 4096 cells x 16 sets
    assert server.array.macros * server.slots * server.array.columns * server.array.weight_sets == 16 << 20


def test_server_energy_is_edge_scaled_to_seven_nanometres() -> None:
    small, server = load_machine("edge").energy, load_machine("server").energy
    sram = {"cell_write_pj", "register_byte_pj"}
    # the buffer's banks and the DRAM are of another kind, not only of another node
    for name in vars(small).keys() - {"buffer_read_byte_pj", "buffer_write_byte_pj", "dram_byte_pj"}:
        factor = 0.6 if name in sram else 0.4
        assert getattr(server, name) == pytest.approx(getattr(small, name) * factor), name


def test_leakage_and_area_of_edge() -> None:
    machine = load_machine("edge")
    assert machine.leakage_mw == pytest.approx(4 * 2.5 + 256 * 0.1)
    assert machine.macro_mm2 == pytest.approx((4.1e6 + 4096 * 743 * 0.45) * 0.614e-6)
    assert edge(weight_sets=3).macro_mm2 == pytest.approx(machine.macro_mm2 + 0.04)
    assert edge(block_sizes=(2, 4)).macro_mm2 == edge(select="literal").macro_mm2 == pytest.approx(4.1 * 0.614)


@pytest.mark.parametrize("name", preset_names())
def test_toml_round_trip_is_exact(name: str) -> None:
    machine = load_machine(name)
    again = Machine.from_toml(machine.to_toml())
    assert again == machine
    assert again.to_toml() == machine.to_toml()
    assert hash(again) == hash(machine)


@given(
    st.floats(min_value=0, max_value=1e290),
    st.text(max_size=20).filter(str.isprintable),
    st.sets(st.sampled_from((2, 4, 8, 16)), min_size=1),
)
def test_any_machine_round_trips(price: float, text: str, sizes: set[int]) -> None:
    machine = edge(block_sizes=tuple(sorted(sizes)))
    energy = dataclasses.replace(machine.energy, mac_pj=price)
    machine = dataclasses.replace(machine, description=text, energy=energy)
    assert Machine.from_toml(machine.to_toml()) == machine


def test_the_fingerprint_knows_geometry_and_not_prices() -> None:
    machine = load_machine("edge")
    prices = dataclasses.replace(
        machine,
        name="renamed",
        description="",
        energy=dataclasses.replace(machine.energy, mac_pj=1.0),
        leakage=dataclasses.replace(machine.leakage, macro_mw=0.0),
        area=dataclasses.replace(machine.area, gate_um2=1.0),
    )
    assert prices.fingerprint() == machine.fingerprint()
    assert edge(macros=8).fingerprint() != machine.fingerprint()
    assert len({load_machine(name).fingerprint() for name in preset_names()}) == 3


def test_no_number_of_a_machine_stands_in_code() -> None:
    for section in SECTIONS.values():
        assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(section))

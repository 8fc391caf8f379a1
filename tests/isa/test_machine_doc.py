"""docs/machine.md says what the code says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flexc.isa.machine import load_machine
from flexc.isa.machine_doc import field_tables
from flexc.isa.machine_sections import SECTIONS

START, END = "<!-- fields -->\n", "<!-- end of fields -->"


def test_field_tables_are_current(root: Path, golden: Callable[[str, str], None]) -> None:
    head, rest = (root / "docs/machine.md").read_text(encoding="utf-8").split(START)
    golden("docs/machine.md", head + START + field_tables() + END + rest.partition(END)[2])


def test_every_field_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \| ", field_tables(), re.MULTILINE))
    machine = load_machine("edge")
    assert rows == {key for section in SECTIONS for key in vars(getattr(machine, section))}


def test_the_pattern_table_is_the_machines(root: Path) -> None:
    machine = load_machine("edge")
    page = (root / "docs/machine.md").read_text(encoding="utf-8")
    pattern_row = r"^\| (dense|\d+:\d+) \| (\d) \| (\d+) \| (\d+) \| (\d) \| ([\d.]+) \| ([\d.]+) \|$"
    rows = re.findall(pattern_row, page, re.MULTILINE)
    assert len(rows) == 13
    for pattern, bits, blocks, inputs, cycles, gain, stored in rows:
        n, m = (1, 1) if pattern == "dense" else map(int, pattern.split(":"))
        assert int(bits) == machine.index_bits(m)
        assert int(blocks) == machine.blocks_per_tile(n, m)
        assert int(inputs) == machine.k_tile(n, m)
        assert int(cycles) == machine.cycles_per_vector(n, m)
        assert float(gain) == pytest.approx(machine.k_tile(n, m) / machine.cycles_per_vector(n, m) / 128, abs=0.006)
        assert float(stored) == n / m * (8 + machine.index_bits(m))

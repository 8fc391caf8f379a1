"""What is wrong with a machine file, said so that its writer can mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexc.isa.errors import FlexcError, ProblemList, UsageError
from flexc.isa.machine import Machine, load_machine

HEAD = 'inherit = "edge"\nname = "mine"\n'


def problem(text: str) -> FlexcError:
    """What reading the text raises."""
    with pytest.raises(FlexcError) as caught:
        Machine.from_toml(text, where="mine.toml")
    return caught.value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("[array]\nmacro = 8", "mine.toml:4: unknown key 'array.macro'\nhelp: did you mean 'macros'?"),
        ("macros = 8", "mine.toml:3: unknown key 'macros'\nhelp: did you mean 'array.macros'?"),
        ("[aray]\nmacros = 8", "mine.toml:3: unknown section [aray]\nhelp: did you mean 'array'?"),
        ("[zzz]", "help: sections: clock, array, buffer, dram, vector, control, energy, leakage, area"),
        ("array = 3", "mine.toml:3: array is a section, not a value\nhelp: write [array]"),
        ("[[array]]\nmacros = 8", "array is a section, not a value"),
        ("[array]\nmacros = 'four'", 'mine.toml:4: array.macros = "four" is not a whole number (in macros)'),
        ("[array]\nmacros = true", "array.macros = true is not a whole number"),
        ("[array]\nmacros = 4.5", "array.macros = 4.5 is not a whole number"),
        ("[clock]\nfrequency_hz = 500e6", "must be written as a whole number: 500000000 (in Hz)"),
        ("[array]\n\nmacros = 0", "mine.toml:5: array.macros = 0 is out of range; allowed: 1 to 4096"),
        ("[array]\nmacros = 99999999999999999999", "array.macros = a number beyond 64 bits is out of range"),
        ("array.macros = 0", "mine.toml:3: array.macros = 0 is out of range"),
        ("[dram]\nburst_bytes = -1", "dram.burst_bytes = -1 is out of range"),
        ("[array]\npacking = 'loose'", 'array.packing = "loose" is not known; allowed: packed, aligned'),
        ("[array]\nselect = []", "array.select = [] is not known; allowed: incell, literal, phased, shared"),
        ("[array]\nresident = 1", "array.resident = 1 is neither true nor false"),
        ("[array]\nblock_sizes = [3]", "array.block_sizes = [3] holds something else than 2, 4, 8, 16"),
        ("[array]\nblock_sizes = [2.0]", "holds something else than"),
        ("[array]\nblock_sizes = [4, 2]", "is not in rising order, each number once"),
        ("[array]\nblock_sizes = 4", "is not a list of some of 2, 4, 8, 16"),
        ("[energy]\nmac_pj = -0.1", "energy.mac_pj = -0.1 is out of range; allowed: >= 0 (in pJ)"),
        ("[energy]\nmac_pj = nan", "energy.mac_pj = nan is out of range"),
        ("[energy]\nmac_pj = inf", "energy.mac_pj = inf is out of range"),
        ("[energy]\nmac_pj = '1'", 'energy.mac_pj = "1" is not a number'),
        ("[energy]\nmac_pj = 2026-11-01", "energy.mac_pj = 2026-11-01 is not a number"),
        ("[clock]\nnode_nm = 0", "clock.node_nm = 0 is out of range; allowed: > 0"),
        ('[dram]\nkind = ""', 'dram.kind = "" is not one line of text, not empty'),
        ("[dram]\nkind = 'x\x7f'", "not valid TOML"),
        ('[dram]\nkind = "a\\nb"', "is not one line of text"),
        ("[array]\nclusters = 3", "mine.toml:4: 4 macros do not split evenly into 3 clusters"),
        ("[array]\nresident = true", "mine.toml: resident weights need unlimited sets (0), not 1"),
        ("[array]\nweight_sets = 0", "mine.toml:4: unlimited weight sets (0) are only for a machine with resident"),
        ("[array]\nmerge_bits = 22", "mine.toml:4: 128 INT8 products need 23 bits, not 22"),
        ("[array]\nrows = 2", "a column of 8 slots cannot hold a block of 16"),
        ("[buffer]\nbanks = 3", "mine.toml:4: 262144 bytes do not split evenly into 3 banks"),
        ("[array\n", "mine.toml:3:7: not valid TOML: "),
        ("x = " + "[" * 5000, "mine.toml: not a machine file: nested too deeply"),
        ("x = " + "9" * 5000, "mine.toml: not valid TOML: "),
        ("x = 1\nx = 2\n", "mine.toml:4:6: not valid TOML: "),
    ],
)
def test_one_problem(body: str, says: str) -> None:
    assert says in str(problem(HEAD + body))


def test_all_problems_at_once() -> None:
    error = problem(HEAD + "[array]\nmacros = 0\nmacro = 1\n[energy]\nmac_pj = -1\n[clck]\n")
    assert isinstance(error, ProblemList)
    assert [each.where for each in error.problems] == ["mine.toml:8", "mine.toml:4", "mine.toml:5", "mine.toml:7"]


def test_every_contradiction_at_once() -> None:
    error = problem(HEAD + "[array]\nclusters = 3\nweight_sets = 0\n[buffer]\nbanks = 3\n")
    assert isinstance(error, ProblemList)
    assert len(error.problems) == 3


def test_missing_fields_are_named_and_whole_sections_once() -> None:
    text = load_machine("edge").to_toml()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("macros"))
    assert str(problem(without)).startswith("mine.toml: missing: array.macros\nhelp: give each a value, or start from")
    assert "missing: section [buffer], section [dram]" in str(problem(text.partition("[buffer]")[0]))


def test_a_wrong_field_is_not_also_missing() -> None:
    text = load_machine("edge").to_toml().replace("macros = 4", "macros = 'x'", 1)
    assert "missing" not in str(problem(text))


def test_a_name_is_not_inherited() -> None:
    assert "missing: name" in str(problem('inherit = "edge"'))
    assert "a word of letters" in str(problem('inherit = "edge"\nname = "my chip"'))
    assert Machine.from_toml(HEAD).description == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inherit = 3", "mine.toml:1: inherit is not the name of a machine"),
        (
            'inherit = "egde"',
            "mine.toml:1: inherit = \"egde\": unknown machine 'egde'; presets: edge, resident, server",
        ),
        ('inherit = "gone.toml"', 'mine.toml:1: inherit = "gone.toml": cannot read the machine file: No such file'),
    ],
)
def test_bad_inheritance(line: str, says: str) -> None:
    assert says in str(problem(line))


def test_files_inherit_from_files_beside_them(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text('inherit = "edge"\nname = "base"\n[array]\nmacros = 8\nclusters = 2\n')
    (tmp_path / "mine.toml").write_text('inherit = "edge.toml"\nname = "mine"\n[array]\nclusters = 4\n')
    machine = load_machine(tmp_path / "mine.toml")
    assert (machine.name, machine.array.macros, machine.array.clusters, machine.array.rows) == ("mine", 8, 4, 32)
    assert load_machine(str(tmp_path / "mine.toml")) == machine


def test_a_problem_is_placed_in_the_file_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('inherit = "edge"\nname = "base"\n[array]\nmacros = 0\n')
    (tmp_path / "mine.toml").write_text('inherit = "base.toml"\nname = "mine"\n')
    with pytest.raises(FlexcError) as caught:
        load_machine(tmp_path / "mine.toml")
    assert caught.value.where == f"{tmp_path}/base.toml:4"


def test_circles_are_told(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.toml").write_text('inherit = "sub/../b.toml"\nname = "a"\n')
    (tmp_path / "b.toml").write_text('inherit = "sub/../a.toml"\nname = "b"\n')
    with pytest.raises(FlexcError, match="leads back to"):
        load_machine(tmp_path / "a.toml")


def test_unknown_machines_are_usage_errors() -> None:
    with pytest.raises(UsageError) as caught:
        load_machine("sever")
    assert str(caught.value) == "unknown machine 'sever'; presets: edge, resident, server\nhelp: did you mean 'server'?"
    with pytest.raises(UsageError):
        load_machine("no such thing")


def unreadable(path: Path) -> str:
    """What loading the file raises, as text."""
    with pytest.raises(FlexcError) as caught:
        load_machine(path)
    return str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    assert "gone.toml: cannot read the machine file: No such file" in unreadable(tmp_path / "gone.toml")
    assert "cannot read the machine file: Is a directory" in unreadable(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.toml: not a machine file: it is not UTF-8 text" in unreadable(tmp_path / "bytes.toml")

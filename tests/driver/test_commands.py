"""The thin commands: disasm, asm, verify, inspect, targets, isa."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexc.isa.machine import load_machine, preset_names
from flexc.isa.table import TABLE

from .conftest import Call


@pytest.mark.parametrize("words", [(), ("-S",), ("--no-bytes",), ("--embed",)])
def test_assembling_the_listing_gives_the_same_bytes(
    words: tuple[str, ...], flexc: Call, compiled: Path, tmp_path: Path
) -> None:
    assert flexc("disasm", compiled, "-o", tmp_path / "a.s", *words).code == 0
    assert flexc("asm", tmp_path / "a.s", "-o", tmp_path / "a.fxc").code == 0
    assert (tmp_path / "a.fxc").read_bytes() == compiled.read_bytes()


def test_a_listing_can_be_cut(flexc: Call, compiled: Path) -> None:
    whole = flexc("disasm", compiled).out
    node = flexc("disasm", compiled, "--node", "second").out
    part = flexc("disasm", compiled, "--range", "0:0x40").out
    assert [line.split()[0] for line in node.splitlines() if line.startswith((".op", ".endop"))][:1] == [".op"]
    assert "mac " in node
    assert len(part) < len(node) < len(whole)


def test_verify(flexc: Call, compiled: Path) -> None:
    assert flexc("verify", compiled).out == f"{compiled}: safe to run\n"
    assert json.loads(flexc("verify", compiled, "--json").out)["safe"]


def test_inspect(flexc: Call, compiled: Path) -> None:
    report = json.loads(flexc("inspect", compiled, "--json").out)
    assert report["target"] == "edge"
    assert report["file_bytes"] == compiled.stat().st_size
    assert {"code", "weights", "blob"} <= {section["kind"] for section in report["sections"]}
    assert [(each["role"], each["name"], each["shape"]) for each in report["tensors"]] == [
        ("input", "x", [1, 3, 37]),
        ("output", "y", [1, 3, 5]),
    ]
    text = flexc("inspect", compiled).out
    assert "magnitude" in text
    assert "the instructions, 16 bytes each" in text


def test_targets(flexc: Call, tmp_path: Path) -> None:
    assert [name for name in preset_names() if name in flexc("targets").out] == preset_names()
    assert "256 KiB" in flexc("targets").out
    assert "16 384 MAC/cycle" in flexc("targets").out
    listed = json.loads(flexc("targets", "--json").out)["targets"]
    assert listed[0]["macros_mm2"] == 4 * load_machine("edge").macro_mm2
    assert [each["name"] for each in listed] == preset_names()
    file = tmp_path / "mine.toml"
    file.write_text(flexc("targets", "edge").out, encoding="utf-8")
    assert flexc("targets", file).out == flexc("targets", "edge").out
    assert json.loads(flexc("targets", "edge", "--json").out)["array"]["macros"] == 4


def test_isa(flexc: Call) -> None:
    listed = flexc("isa").out
    assert all(f"  {spec.mnemonic} " in listed for spec in TABLE)
    assert flexc("isa", "mac").out.startswith("mac - opcode ")


def test_problems_of_assembly_are_printed_as_they_are(flexc: Call, tmp_path: Path) -> None:
    (tmp_path / "a.s").write_text(".target edge\ncpoy s0, s0, ch0\n    halt s1\n", encoding="utf-8")
    done = flexc("asm", tmp_path / "a.s", "-o", tmp_path / "a.fxc")
    assert done.code == 1
    first, source, caret, remedy, second, *_ = done.err.splitlines()
    assert first == f"{tmp_path}/a.s:2:1: error: unknown instruction 'cpoy'"
    assert (source, caret, remedy) == ("    cpoy s0, s0, ch0", "    ^", "help: did you mean 'copy'?")
    assert second.startswith(f"{tmp_path}/a.s:3:")


def test_assembly_is_verified_by_its_lines(flexc: Call, tmp_path: Path) -> None:
    text = """.target edge
    stream s0, dram, f32 base=0 rows=1 cols=8
    stream s1, buf, f32 base=0 rows=1 cols=8
.dram 64
    vfill s1

    copy s0, s1, ch0
    halt
"""
    path = tmp_path / "a.s"
    path.write_text(text, encoding="utf-8")
    done = flexc("verify", path)
    assert done.code == 1
    assert done.err.startswith(f"error: {path}:7: copy: src reads bytes 0x0..0x20 of buf on engine dma0, which")
    assert f"{path}:5: vfill writes as dst" in done.err
    path.write_text(text.replace("vfill s1", "vfill s1\n    barrier"), encoding="utf-8")
    assert flexc("verify", path).out == f"{path}: safe to run\n"

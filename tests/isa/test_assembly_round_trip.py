"""A listing is the program: assembling it gives the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from flexc.isa.assembly.assembler import assemble, assemble_file
from flexc.isa.assembly.disassembler import Options, disassemble
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.object_file import load, save
from flexc.isa.program import Debug, Op, Program, Segment, Tensor
from tests.isa.strategies import EDGE, programs

X = Tensor("x", "f32", (8,), "dram", 0, (4,))
BIG = np.arange(5000, dtype=np.uint16).view(np.uint8)


def sample() -> Program:
    code = (
        instr("stream", stream=0, space="dram", dtype="f32", base=16, rows=1, cols=8),
        instr("loop", level=2, count=3),
        instr("vadd", dst=0, a=0, b=0, imm=-0.0, wait=(1, 2)),
        instr("endloop", level=2),
        instr("halt"),
    )
    debug = Debug(
        (Op('a "b"', "Add", ("n1",), "vector", "", 1, 4, "it is small"),), (), (X,), {1: "again", 2: "the body"}
    )
    segment = Segment("s", (X,), (X,), bytes(range(256)) * 9)
    return Program(code, EDGE, BIG, 6000, 64, (X,), (X,), (segment,), debug, {"model": "m.onnx"}, {"ref": BIG[:2000]})


def bytes_of(program: Program, tmp_path: Path) -> bytes:
    save(program, tmp_path / "again.fxc")
    return (tmp_path / "again.fxc").read_bytes()


@pytest.mark.parametrize(
    "options",
    [Options(), Options(bytes=True), Options(source=False), Options(embed=True, bytes=True)],
    ids=["plain", "bytes", "no-source", "embed"],
)
def test_a_listing_assembles_to_the_same_bytes(options: Options, tmp_path: Path) -> None:
    save(sample(), tmp_path / "p.fxc")
    program = load(tmp_path / "p.fxc")
    options = replace(options, file=tmp_path / "p.fxc", folder=tmp_path)
    (tmp_path / "p.s").write_text("\n".join(disassemble(program, options)), encoding="utf-8")
    assert bytes_of(assemble_file(tmp_path / "p.s"), tmp_path) == (tmp_path / "p.fxc").read_bytes()


@given(program=programs())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
def test_any_program_assembles_to_the_same_bytes(program: Program, tmp_path: Path) -> None:
    text = "\n".join(disassemble(program, Options(bytes=True)))
    save(program, tmp_path / "p.fxc")
    assert bytes_of(assemble(text), tmp_path) == (tmp_path / "p.fxc").read_bytes()


def test_the_code_of_a_listing() -> None:
    lines = list(disassemble(sample(), Options(bytes=True)))
    first = next(place for place, line in enumerate(lines) if line.startswith("00000000: "))
    text, _, comment = lines[first].partition("  ;")
    assert comment == " x + 0x10"
    assert [text.rstrip(), *lines[first + 1 : first + 11]] == [
        "00000000: 05400e02 00000020 00000010 00000000  stream s0, dram, f32 base=0x10 rows=1 cols=8",
        "",
        '; node a "b" (Add) on vector: it is small',
        '.op 0 name="a \\"b\\"" op_type="Add" nodes=["n1"] engine="vector" nm="" reason="it is small"',
        "again:",
        "00000010: 021a0000 00000000 00000000 00000000  loop L2 count=3",
        '"the body":',
        "00000020: 30001000 00000014 08000000 00000000    vadd s0, s0 b=s0 imm=-0.0 wait=t1+t2",
        "00000030: 03020000 00000000 00000000 00000000  endloop L2",
        ".endop 0",
        "00000040: 01000000 00000000 00000000 00000000  halt",
    ]


def test_bulk_data_are_named_with_their_checksum(tmp_path: Path) -> None:
    save(sample(), tmp_path / "p.fxc")
    lines = list(disassemble(load(tmp_path / "p.fxc"), Options(file=tmp_path / "p.fxc", folder=tmp_path)))
    assert sum(line.startswith('.data file="p.fxc" offset=') for line in lines) == 4


def test_data_that_changed_are_noticed(tmp_path: Path) -> None:
    save(sample(), tmp_path / "p.fxc")
    text = "\n".join(disassemble(load(tmp_path / "p.fxc"), Options(file=tmp_path / "p.fxc", folder=tmp_path)))
    data = bytearray((tmp_path / "p.fxc").read_bytes())
    data[-1] ^= 1
    (tmp_path / "p.fxc").write_bytes(data)
    with pytest.raises(FlexcError, match=r"data file .*p\.fxc has changed: bytes .* do not match their checksum"):
        assemble(text, str(tmp_path / "p.s"))
    (tmp_path / "p.fxc").unlink()
    with pytest.raises(FlexcError, match=r"data file .*p\.fxc is missing"):
        assemble(text, str(tmp_path / "p.s"))


def test_a_node_and_a_range_can_be_picked() -> None:
    picked = [line for line in disassemble(sample(), Options(node="n1", source=False)) if line.startswith("  ")]
    assert picked == ["  loop L2 count=3", "    vadd s0, s0 b=s0 imm=-0.0 wait=t1+t2", "  endloop L2"]
    picked = [line for line in disassemble(sample(), Options(range=(0x40, 0x50))) if line.startswith("  ")]
    assert picked == ["  halt"]


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(FlexcError, match=r"no node 'n11' in the program\nhelp: did you mean 'n1'\?"):
        list(disassemble(sample(), Options(node="n11")))


def test_colours_change_nothing_but_colours() -> None:
    import re

    plain = list(disassemble(sample(), Options(bytes=True)))
    colored = list(disassemble(sample(), Options(bytes=True, color=True)))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in colored] == plain
    assert colored != plain

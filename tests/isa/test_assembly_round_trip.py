"""A listing is the program: assembling it gives the same bytes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from flexc.isa.assembly.assembler import assemble, assemble_file
from flexc.isa.assembly.disassembler import Options, disassemble
from flexc.isa.assembly.source import at_iteration, describe_tile
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.object_file import load, save
from flexc.isa.program import Debug, Op, Program, Segment, Tensor, Tile
from tests.isa.strategies import EDGE, programs

X = Tensor("x", "f32", (8,), "dram", 0, (4,))
TILES = (Tile(1, "column group", 3, "columns", 4, 4, 0, 10), Tile(2, "K step", 1, "K", 8, 0, 8, 12))
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
        (Op('a "b"', "Add", ("n1",), "vector", "", 1, 4, "it is small"),), (), (X,), {1: "again", 2: "the body"}, TILES
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
    assert [text.rstrip(), *lines[first + 1 : first + 15]] == [
        "00000000: 05400e02 00000020 00000010 00000000  stream s0, dram, f32 base=0x10 rows=1 cols=8",
        "",
        '; node a "b" (Add) on vector: it is small',
        '.op 0 name="a \\"b\\"" op_type="Add" nodes=["n1"] engine="vector" nm="" reason="it is small"',
        "again:",
        '.tile 0 what="column group" count=3 unit="columns" size=4 step=4 limit=10',
        "  ; L2: column group 0..2, columns 4 * L2 + 0..3 of 10",
        "00000010: 021a0000 00000000 00000000 00000000  loop L2 count=3",
        '"the body":',
        '.tile 1 what="K step" unit="K" size=8 start=8 limit=12',
        "    ; K step: K 8..11 of 12, then padding",
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


@pytest.mark.parametrize(
    ("tile", "text"),
    [
        (Tile(0, "row", 8, "rows", 1, 1), "L0: row 0..7"),
        (Tile(0, "row", 8, "rows", 1, 1, 4, 20), "L0: row 0..7, rows 4 + L0 of 20"),
        (Tile(0, "chunk", 2, "rows", 0, 64), "L0: chunk 0..1, rows from 64 * L0 on"),
        (Tile(0, "chunk", 2), "L0: chunk 0..1"),
        (Tile(0, "piece", 4, "vectors", 8, 6, 3), "L0: piece 0..3, vectors 3 + 6 * L0 + 0..7"),
        (Tile(0, "one\nline"), "one line"),
    ],
)
def test_tile_coordinates_in_words(tile: Tile, text: str) -> None:
    assert describe_tile(tile, instr("loop", level=0, count=tile.count)) == text


def test_a_tile_coordinate_in_one_iteration() -> None:
    assert at_iteration(TILES[0], 1) == "column group 1: columns 4..7 of 10"
    assert at_iteration(TILES[0], 2) == "column group 2: columns 8..9 of 10, then padding"


def test_colours_change_nothing_but_colours() -> None:
    import re

    plain = list(disassemble(sample(), Options(bytes=True)))
    colored = list(disassemble(sample(), Options(bytes=True, color=True)))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in colored] == plain
    assert colored != plain


def test_long_texts_are_read_and_written_in_time() -> None:
    """A fifth of the 100,000 lines that are to take less than 20 s and 3 s."""
    rows = (f"    vadd s{n % 60}, s{n % 7} b=s{n % 59} imm={n}.5 wait=t{n % 60 + 1}\n" for n in range(20_000))
    start = time.process_time()
    program = assemble(".target edge\n" + "".join(rows))
    read = time.process_time()
    assert sum(1 for _ in disassemble(program, Options(bytes=True))) > 20_000
    assert read - start < 4
    assert time.process_time() - read < 0.6

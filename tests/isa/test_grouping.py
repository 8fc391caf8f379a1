"""How the sub-macros are joined can be read in a listing; indices can be written as numbers of a few bits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flexc.isa.assembly.assembler import assemble
from flexc.isa.assembly.disassembler import Options, disassemble
from flexc.isa.assembly.source import describe_groups
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.machine import load_machine

EDGE = load_machine("edge")


def described(n: int, m: int, packing: str = "packed", select: str = "incell") -> str:
    machine = replace(EDGE, array=replace(EDGE.array, packing=packing, select=select))
    blocks = machine.blocks_per_tile(n, m)
    word = instr(
        "groups",
        n=n,
        m=m,
        blocks=blocks,
        slots=n * blocks,
        index=m.bit_length() - 1,
        packing=packing,
        select=select,
        merge=4,
    )
    return describe_groups(word, machine)


@pytest.mark.parametrize(
    ("n", "m", "packing", "sharing", "cells"),
    [
        (1, 8, "packed", "disaggregated (4 blocks a row, one a sub-macro)", "128 blocks x 1 slot = 128"),
        (2, 4, "packed", "aggregated (2 blocks a row, 2 sub-macros share one)", "64 blocks x 2 slots = 128"),
        (4, 8, "packed", "aggregated (one block a row, all 4 sub-macros share it)", "32 blocks x 4 slots = 128"),
        (3, 8, "packed", "aggregated (3 slots in a row share a block, blocks run on)", "42 blocks x 3 slots = 126"),
        (3, 8, "aligned", "aggregated (1 block a row, 3 sub-macros share one, 1 idle)", "32 blocks x 3 slots = 96"),
        (8, 16, "aligned", "aggregated (2 rows of 4 sub-macros share a block)", "16 blocks x 8 slots = 128"),
        (5, 8, "aligned", "aggregated (2 rows of 4 sub-macros share a block, 3 idle)", "16 blocks x 5 slots = 80"),
    ],
)
def test_a_listing_says_how_sub_macros_are_joined(n: int, m: int, packing: str, sharing: str, cells: str) -> None:
    rest = f"{m.bit_length() - 1} index bits, {m} activations a group, merge 4 sub-macros"
    assert described(n, m, packing) == f"{n}:{m} {sharing}: {cells} of 128 cells a column, {rest}"


def test_dense_needs_no_groups() -> None:
    assert described(1, 1) == "dense: 128 of 128 cells a column, one activation each, merge 4 sub-macros"


def test_other_selections_are_named() -> None:
    assert described(2, 4, select="phased").endswith("one pair of a block at a time")
    assert described(2, 4, select="shared").endswith("one pattern for all columns")
    assert described(2, 4, select="literal").endswith("literal selection takes further slots a block")


def test_the_description_stands_on_its_own_line_and_assembles() -> None:
    source = ".target edge\n groups n=2 m=4 blocks=4 slots=8 index=2 packing=packed select=incell merge=4\nend: halt\n"
    program = assemble(source)
    lines = list(disassemble(program))
    place = next(number for number, line in enumerate(lines) if line.startswith("  groups"))
    assert lines[place - 1] == f"  ; {describe_groups(program.code[0], EDGE)}"
    assert assemble("\n".join(lines)).code == program.code
    assert not any("aggregated" in line for line in disassemble(program, Options(source=False)))
    assert "\033[32m  ; 2:4" in "\n".join(disassemble(program, Options(color=True)))


def test_bits_pack_the_first_number_lowest_and_pad_to_bytes() -> None:
    program = assemble(".target edge\nhalt\n.weights\n.bits 3, 1, 2, 7\n.bits 2, 3, 0, 1, 2, 1\n.bits 4, 15\n")
    assert bytes(program.const) == bytes([0b11_010_001, 0b1, 0b10_01_00_11, 0b01, 0b1111])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (".bits 3, 1, 8", "8 does not fit into 3 bits; allowed: 0..7"),
        (".bits 3, 1, -1", "-1 does not fit into 3 bits; allowed: 0..7"),
        (".bits 17, 1", "17 is no width in bits; allowed: 1..16"),
        (".bits 3", ".bits needs more operands"),
    ],
)
def test_bits_that_do_not_fit(line: str, message: str) -> None:
    with pytest.raises(FlexcError, match="error: ") as caught:
        assemble(f".target edge\nhalt\n.weights\n{line}\n")
    assert message in caught.value.message

"""Every rule of the verifier has a program that it refuses, with the message as text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flexc.isa.assembly.assembler import assemble
from flexc.isa.errors import FlexcError
from flexc.isa.program import Op, Program, Segment, Tensor
from flexc.isa.verifier import check, verify
from tests.isa.refused import GOOD, VECTOR, every


def problems(text: str) -> list[str]:
    return [str(problem) for problem in verify(assemble(text))]


def test_a_good_program_passes() -> None:
    assert problems(GOOD) == []
    check(assemble(GOOD))


def test_streams_may_be_set_and_moved_in_one_word() -> None:
    before = "stream s1, buf, u8 base=0x4000 rows=4 cols=tile\n    step s1, L0 by=0x4000 mod=2"
    slid = "slide s1, buf, u8, L0 base=0x4000 rows=4 cols=tile by=0x4000 mod=2"
    assert before in GOOD
    assert problems(GOOD.replace(before, slid)) == []
    assert "dst reaches bytes" in problems(GOOD.replace(before, slid.replace("by=0x4000", "by=0x40000")))[0]


REFUSED = list(every())


@pytest.mark.parametrize(("program", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_rule_refuses(program: Program, message: str) -> None:
    found = said(program)
    assert any(message in problem for problem in found), found


def said(program: Program) -> list[str]:
    return [str(problem) for problem in verify(program)]


def test_the_good_programs_of_the_tables_pass() -> None:
    assert problems(VECTOR.format("")) == []
    assert said(replace(assemble(GOOD), states=())) == []


def texts_of_the_verifier() -> Iterator[tuple[str, str]]:
    """Yield (place, regular expression) for every text in its code that has words, but for docstrings."""
    for path in sorted((Path(__file__).parents[2] / "isa/verifier").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in inside:
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
                if any(isinstance(part, str) and re.search(r"\w \w", part) for part in words):
                    pattern = "".join(re.escape(part) if isinstance(part, str) else ".*" for part in words)
                    yield f"{path.name}:{node.lineno}", pattern


def test_everything_the_verifier_can_say_is_said_of_a_program_that_it_refuses() -> None:
    """So that a rule added without a program that it refuses is noticed: see :mod:`tests.isa.refused`."""
    everything = "\n".join(problem for program, _ in REFUSED for problem in said(program))
    texts = list(texts_of_the_verifier())
    assert len(texts) > 70
    assert [place for place in texts if not re.search(place[1], everything)] == []


def test_a_message_names_the_offset_the_mnemonic_and_the_node() -> None:
    program = assemble(GOOD.replace("lda s5", "lda s3"))
    pc = next(place for place, each in enumerate(program.code) if each.mnemonic == "lda")
    op = Op("layer.0/proj", "MatMul", ("n",), "array", "2:4", pc, pc + 2)
    program = replace(program, debug=replace(program.debug, ops=(op,)))
    assert str(verify(program)[0]) == f"{pc * 16:#010x} lda (node layer.0/proj): act is in dram; allowed: buf"


def test_check_raises_all_problems() -> None:
    with pytest.raises(FlexcError) as caught:
        check(assemble(GOOD.replace("slots=64", "slots=63").replace("index=2", "index=3")))
    assert str(caught.value).count("groups") == 2


def test_a_segment_may_read_what_was_written() -> None:
    program = assemble(GOOD.replace("    halt", "    barrier\n    host segment=0\n    halt"))
    writes = Tensor("b", "f32", (8,), "dram", 0x1820, (4,))
    segments = (Segment("s", program.outputs, (writes,), b""),)
    assert verify(replace(program, dram_bytes=0x1840, segments=segments)) == []


ALTERNATE = """
.target resident
.constants
    .zero 4096
.code
    groups n=1 m=1 blocks=128 slots=128 index=0 packing=packed select=incell merge=4
    stream s0, const, u8 base=0 rows=1 cols=4096
    stream s1, cells, u8 base=0 rows=1 cols=1
    stream s2, cells, u8 base=2 rows=1 cols=1
    ldw s1, s0
    ldw s2, s0
    groups n=1 m=1 blocks=64 slots=64 index=0 packing=packed select=incell merge=4
    stream s0, const, u8 base=0 rows=1 cols=2048
    stream s1, cells, u8 base=1 rows=1 cols=1
    ldw s1, s0
    groups n=1 m=1 blocks=128 slots=128 index=0 packing=packed select=incell merge=4
    stream s3, buf, i8 base=0 rows=1 cols=128
    vfill s3
    stream s4, acc, i32 base=0 rows=1 cols=32
    stream s5, cells, u8 base=0 rows=1 cols=1
    step s5, L0 by=2
    barrier
    lda s3
    loop L0 count=2
    mac s4, s5
    endloop L0
    halt
"""


def test_units_that_a_loop_jumps_over_may_hold_other_weights() -> None:
    """Tiles of a layer lie between those of others, where all of them stay in the cells."""
    assert problems(ALTERNATE) == []
    for change in (("by=2", "by=1"), ("count=2", "count=3")):
        assert "cells reads units that no `ldw` has written" in problems(ALTERNATE.replace(*change))[0]


def test_long_programs_are_verified_in_linear_time() -> None:
    import time

    start = time.process_time()
    body = "vadd s0, s0 imm=1.0\n" * 4000
    assert (
        problems(
            f".target edge\nstream s0, buf, f32 base=0 rows=1 cols=1\nvfill s0\nloop L0 count=9\n{body}endloop L0\nhalt"
        )
        == []
    )
    assert time.process_time() - start < 5


TURNS = """
.target edge
.input x dtype=f32 shape=[4, 8] address=0
.dram 0x400
    stream s0, dram, f32 base=x rows=4 cols=8
    stream s1, dram, f32 base=0x80 rows=4 cols=8
    stream s2, dram, f32 base=0x80 rows=4 cols=8
    step s2, L0 by=0x80
    stream s3, dram, f32 base={first} rows=4 cols=8
    step s3, L0 by=0x80
    copy s1, s0, ch0
    barrier
    loop L0 count={count}
        copy s3, s2, ch0
        barrier
    endloop L0
    halt
"""


def test_turns_may_read_what_the_turn_before_has_written() -> None:
    assert problems(TURNS.format(first="0x100", count=4)) == []


def test_turns_may_not_read_what_no_turn_has_written() -> None:
    found = problems(TURNS.format(first="0x200", count=3))
    assert any("src reads dram at 0x80..0x200, of which only a part has been written" in each for each in found), found

"""The verifier refuses exactly the programs in which something between engines is left unordered."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from flexc.isa.assembly.assembler import assemble
from flexc.isa.instruction import Instr
from flexc.isa.program import Op, Program
from flexc.isa.verifier import verify
from tests.isa.hazard_oracle import Oracle
from tests.isa.hazard_programs import random_program
from tests.isa.refused import GOOD

UNORDERED = "nothing makes sure that it is done"

#: Load, work, store, two slots each, in two loops.
PIPELINE = """
.target edge
.input x dtype=f32 shape=[10, 16] address=0
.output y dtype=f32 shape=[10, 16] address=640
.code
    stream s0, dram, f32 base=x rows=1 cols=16
    step s0, L0 by=320
    step s0, L1 by=64
    stream s1, buf, f32 base=0 rows=1 cols=16
    step s1, L1 by=64 mod=2
    stream s2, buf, f32 base=0x100 rows=1 cols=16
    step s2, L1 by=64 mod=2
    stream s3, dram, f32 base=y rows=1 cols=16
    step s3, L0 by=320
    step s3, L1 by=64
    sync vector post=t2+t4
    sync vector post=t2+t4
    loop L0 count=2
        loop L1 count=5
            copy s1, s0, ch0 wait=t2 post=t1
            vmul s2, s1 imm=2.0 wait=t1+t4 post=t2+t3
            copy s3, s2, ch1 wait=t3 post=t4
        endloop L1
    endloop L0
    barrier
    vfill s2
    halt
"""


def messages(text: str) -> list[str]:
    return [str(problem) for problem in verify(assemble(text))]


def test_two_slots_and_two_tokens_pass() -> None:
    assert messages(PIPELINE) == []
    assert messages(PIPELINE.replace("count=2\n", "count=100\n").replace("count=5\n", "count=1000\n")) != []
    long = PIPELINE.replace("[10, 16]", "[100000, 16]").replace("address=640", "address=6400000")
    assert messages(long.replace("count=2\n", "count=100\n").replace("count=5\n", "count=1000\n")) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" wait=t2 post=t1", " post=t1", "dst writes bytes 0x0..0x40 of buf on engine dma0, which, in an earlier"),
        (" wait=t1+t4", " wait=t4", "a reads bytes 0x0..0x40 of buf on engine vector, which 0x000000e0 copy writes as"),
        (" wait=t1+t4", " wait=t1", "0x00000100 copy reads as src on engine dma1; nothing makes sure that it is done"),
        (" wait=t3 post", " post", "src reads bytes 0x100..0x140 of buf on engine dma1, which 0x000000f0 vmul writes"),
        ("    barrier\n", "", "dst writes bytes 0x100..0x140 of buf on engine vector, which 0x00000100 copy reads"),
        ("post=t2+t4\n    loop", "post=t2+t4\n    sync vector post=t2\n    loop", "dst writes bytes 0x0..0x40 of buf"),
        ("post=t2+t4\n    loop", "post=t2+t4\n    sync vector post=t4\n    loop", "dst writes bytes 0x100..0x140 of"),
        ("step s2, L1 by=64", "step s2, L1 by=48", "dst writes bytes 0x130..0x140 of buf on engine vector, which"),
    ],
)
def test_what_is_left_unordered_is_named(old: str, new: str, message: str) -> None:
    assert old in PIPELINE
    found = messages(PIPELINE.replace(old, new, 1))
    assert any(message in each for each in found), found


def test_a_message_names_both_nodes_and_the_remedy() -> None:
    program = assemble(PIPELINE.replace(" wait=t1+t4", " wait=t4"))
    first = next(pc for pc, each in enumerate(program.code) if each.mnemonic == "copy")
    ops = (Op("load", "a", (), "dma0", "", first, first + 1), Op("mul", "b", (), "vector", "", first + 1, first + 2))
    found = verify(replace(program, debug=replace(program.debug, ops=ops)))
    assert str(found[0]) == (
        "0x000000f0 vmul (node mul): a reads bytes 0x0..0x40 of buf on engine vector, which "
        "0x000000e0 copy (node load) writes as dst on engine dma0; nothing makes sure that it is done\n"
        "help: let 0x000000e0 copy (node load) post a semaphore that this waits for, or put a barrier between"
    )


def test_sums_are_there_when_a_sync_says_so_not_when_the_array_goes_on() -> None:
    assert messages(GOOD) == []
    early = (
        GOOD.replace("release=t3 wait=t2", "release=t7 wait=t2")
        .replace("t1+t3", "t1")
        .replace("sync array post=t7", "")
    )
    found = messages(early)
    assert any("mac writes as acc on engine array" in each and "or a later `sync array`" in each for each in found), (
        found
    )
    assert any("cells writes units 0x0..0x4 of cells on engine weights, which" in each for each in found), found


def test_row_windows_in_one_buffer_do_not_meet() -> None:
    text = """
    .target edge
    .input x dtype=i8 shape=[64] address=0
    .code
        stream s0, dram, i8 base=0 rows=4 cols=16
        stream s1, buf, i8 base=0 rows=4 cols=16
        pitch s1 row=64 col=1
        stream s2, buf, i8 base={} rows=4 cols=48
        pitch s2 row=64 col=1
        copy s1, s0, ch0
        vfill s2
        halt
    """
    assert messages(text.format(16)) == []
    assert any("dst writes bytes 0xf..0xd0 of buf" in each for each in messages(text.format(15)))
    assert messages(text.format(17)) != []


def test_an_unbalanced_loop_that_turns_too_often_is_refused() -> None:
    text = ".target edge\n.code\nloop L0 count=9000000\nsync vector post=t1\nendloop L0\nhalt"
    (found,) = messages(text)
    assert "an iteration changes semaphore t1 by 1: that is too much to follow" in found
    assert messages(text.replace("9000000", "900")) == []


def random_programs(seeds: range) -> list[tuple[int, Program, list[str]]]:
    """Return the random programs in which nothing is wrong but, perhaps, the order."""
    programs = []
    for seed in seeds:
        program = assemble(random_program(seed))
        found = [problem.message for problem in verify(program)]
        if all(UNORDERED in each for each in found):
            programs.append((seed, program, found))
    return programs


def test_random_programs_pass_if_and_only_if_every_pair_of_accesses_is_ordered() -> None:
    programs = random_programs(range(100))
    for seed, program, found in programs:
        assert bool(found) == any(Oracle(program).hazards()), seed
    passed = sum(not found for _, _, found in programs)
    assert min(passed, len(programs) - passed) > 20


def without(program: Program, pc: int, field: str, token: int) -> Program:
    each = program.code[pc]
    changed = Instr(each.spec, {**each.values, field: tuple(other for other in each.tokens(field) if other != token)})
    return replace(program, code=(*program.code[:pc], changed, *program.code[pc + 1 :]))


@pytest.mark.parametrize("text", [GOOD, PIPELINE])
def test_without_any_single_token_a_program_is_refused_unless_it_was_not_needed(text: str) -> None:
    program = assemble(text)
    refused = 0
    for pc, each in enumerate(program.code):
        for field in ("wait", "post", "release"):
            for token in each.tokens(field):
                mutant = without(program, pc, field, token)
                found = verify(mutant)
                refused += bool(found)
                assert found or not any(Oracle(mutant).hazards()), (pc, field, token)
    assert refused >= 8


def test_the_cost_grows_with_the_code_not_with_its_square() -> None:
    body = PIPELINE[PIPELINE.index("            copy s1") : PIPELINE.index("        endloop L1")].replace(" mod=2", "")
    head = PIPELINE[: PIPELINE.index("    sync vector post=t2+t4\n    loop")]
    code = assemble(head + 2000 * body + "    halt\n")
    start = time.process_time()
    assert verify(code) == []
    assert time.process_time() - start < 4

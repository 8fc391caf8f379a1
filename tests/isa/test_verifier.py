"""Every rule of the verifier has a program that it refuses, with the message as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flexc.isa.assembly.assembler import assemble
from flexc.isa.errors import FlexcError
from flexc.isa.machine import load_machine
from flexc.isa.program import Op, Program, Segment, Tensor
from flexc.isa.verifier import check, verify
from tests.isa.refused import GOOD, RULES


def problems(text: str) -> list[str]:
    return [str(problem) for problem in verify(assemble(text))]


def test_a_good_program_passes() -> None:
    assert problems(GOOD) == []
    check(assemble(GOOD))


@pytest.mark.parametrize(("old", "new", "message"), RULES)
def test_a_rule_refuses(old: str, new: str, message: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert any(message in problem for problem in found), found


VECTOR = """
.target edge
    stream s0, buf, f32 base=0 rows=4 cols=8
    stream s1, buf, b8 base=0x100 rows=4 cols=8
    stream s2, buf, f32 base=0x200 rows=4 cols=1
    stream s3, buf, i32 base=0x300 rows=4 cols=1
    stream s4, buf, f32 base=0x400 rows=8 cols=4
    stream s5, buf, i8 base=0x500 rows=4 cols=8
    stream s6, acc, i32 base=0 rows=4 cols=8
    stream s7, buf, f32 base=0x600 rows=4 cols=4
    vfill s0
    vfill s1
    vfill s3
    vfill s4
    vfill s6
    vrsum s2, s0
    vmm s7, s0, s4
    quant s5, s0, s2
    store s3, s3
    barrier
    accum s6, s6
    gather s0, s0, s3, ch0
    barrier
    {}
    halt
"""


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("vsub s0, s1 imm=1.0", "vsub takes numbers, not b8"),
        ("vneg s0, s1", "vneg takes numbers, not b8"),
        ("vadd s0, s4 imm=1.0", "a is 8 x 4 and cannot be repeated to dst, 4 x 8"),
        ("vrmax s0, s4", "dst is 4 x 8, not 8 x 1, one element a row of a"),
        ("vmm s0, s0, s4", "b is 8 x 4, not 8 x 8, K by the columns of dst"),
        ("vmm s1, s0, s0", "dst is b8; allowed: f32"),
        ("quant s5, s0, s3", "scale is i32; allowed: f32"),
        ("quant s0, s0, s2", "dst is f32; allowed: i8, u8"),
        ("quant s5, s0, s2 zero=s3", "zero is i32; allowed: i8"),
        ("store s0, s6", "dst is f32; allowed: i32"),
        ("dequant s0, s0, s2, s2", "acc is f32; allowed: i32"),
        ("accum s6, s3", "src is in buf; allowed: acc"),
        ("gather s0, s0, s2, ch0", "index is f32; allowed: i32, i64"),
        ("gather s0, s5, s3, ch0", "table is i8 and dst f32: element types differ"),
        ("gather s0, s4, s3, ch0", "table has 4 columns and dst 8"),
        ("gather s4, s7, s3, ch0", "index has 4 elements for 8 rows of dst"),
        ("scatter s0, s0, s2, ch0", "index is f32; allowed: i32, i64"),
        ("scatter s5, s0, s3, ch0", "src is f32 and dst i8: element types differ"),
        ("scatter s0, s4, s3, ch0", "src has 4 columns and dst 8"),
        ("scatter s0, s0, s7, ch0", "index has 16 elements for 4 rows of src"),
        ("copy s6, s3, ch0", "dst is in acc; allowed: const, dram, buf"),
    ],
)
def test_operands_that_do_not_fit_are_refused(instruction: str, message: str) -> None:
    assert problems(VECTOR.format("")) == []
    found = problems(VECTOR.format(instruction))
    assert any(message in problem for problem in found), found


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


def small(**changes: int) -> Program:
    machine = load_machine("edge")
    machine = replace(machine, control=replace(machine.control, **changes))
    return replace(assemble(GOOD), machine=machine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": 12}, "stream=s12: this machine has 12 streams"),
        ({"semaphores": 8}, "semaphore t8: this machine has 8 semaphores"),
    ],
)
def test_numbers_beyond_the_machine_are_refused(changes: dict[str, int], message: str) -> None:
    assert any(message in str(problem) for problem in verify(small(**changes)))


def test_levels_and_channels_beyond_the_machine_are_refused() -> None:
    program = assemble(GOOD.replace("L0", "L1"))
    machine = program.machine
    machine = replace(machine, control=replace(machine.control, loop_levels=1), dram=replace(machine.dram, channels=1))
    text = "\n".join(map(str, verify(replace(program, machine=machine))))
    assert "level=L1: this machine has 1 loop levels" in text
    assert "channel=ch1: this machine has 1 DMA channels" in text


TENSORS = [
    (Tensor("x", "f99", (8,), "dram", 0, (4,)), "input 'x' has unknown dtype f99"),
    (Tensor("x", "f32", (8,), "buf", 0, (4,)), "input 'x' lies in buf; allowed: const, dram"),
    (Tensor("x", "f32", (8,), "const", 0, (4,)), "input 'x' is written, but const is read only"),
    (Tensor("x", "f32", (8,), "dram", 0, (4, 4)), "input 'x' has shape [8] with strides [4, 4]"),
    (Tensor("x", "f32", (-8,), "dram", 0, (4,)), "input 'x' has shape [-8] with strides [4]"),
    (Tensor("x", "f32", (8,), "dram", 2, (4,)), "input 'x' is not aligned to its elements of 4 bytes"),
    (Tensor("x", "f32", (8,), "dram", 6144, (4,)), "input 'x' takes bytes 0x1800..0x1820 of dram, which has 0x1800"),
    (Tensor("x", "f32", (8,), "dram", 0, (-4,)), "input 'x' takes bytes -0x1c..0x4 of dram, which has 0x1800"),
    (Tensor("x", "f32", (1 << 50,), "dram", 0, (0,)), "input 'x' has 1125899906842624 elements"),
]


@pytest.mark.parametrize(("tensor", "message"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(tensor: Tensor, message: str) -> None:
    found = verify(replace(assemble(GOOD), inputs=(tensor,)))
    assert f"program: {message}" in [str(problem) for problem in found]


def test_two_inputs_of_one_name_are_refused() -> None:
    program = assemble(GOOD)
    found = verify(replace(program, inputs=program.inputs * 2))
    assert [str(problem) for problem in found] == ["program: input 'x' is there twice"]


def test_memories_beyond_the_machine_are_refused() -> None:
    found = verify(replace(assemble(GOOD), dram_bytes=1 << 60))
    assert "of dram; the machine has" in str(found[0])


def test_a_segment_must_read_what_was_written() -> None:
    program = assemble(GOOD.replace("    halt", "    barrier\n    host segment=0\n    halt"))
    reads, writes = (Tensor(name, "f32", (8,), "dram", at, (4,)) for name, at in (("a", 0x1800), ("b", 0x1820)))
    program = replace(program, dram_bytes=0x1840)
    assert verify(replace(program, segments=(Segment("s", program.outputs, (writes,), b""),))) == []
    found = verify(replace(program, segments=(Segment("s", (reads,), (writes,), b""),)))
    assert "host: reads 'a' at 0x1800 of dram, where nothing has been written" in str(found[0])


def test_setting_registers_in_loops_in_loops_is_bounded() -> None:
    levels = range(8)
    body = "".join(f"stream s{n}, buf, f32 base=0 rows=1 cols=1\n pitch s{n} row=8 col=8\n" for n in levels)
    text = ".target edge\n" + "".join(f"loop L{n} count=4\n{body}" for n in levels)
    text += "".join(f"endloop L{n}\nstream s0, buf, f32 base=4 rows=1 cols=1\n" for n in reversed(levels)) + "halt"
    assert problems(text) == [] or "set them before the outermost loop" in problems(text)[0]


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

"""Assembly language: expressions, symbols, data, and the text of every error."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from flexc.isa.assembly.assembler import assemble, assemble_file
from flexc.isa.errors import FlexcError

HEAD = ".target edge\n"


def base_of(expression: str, before: str = "") -> object:
    text = f"{HEAD}{before}\n.code\nstream s1, buf, f32 base={expression} rows=1 cols=1"
    return assemble(text).code[0].values["base"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2 + 7 % 4", 6),
        ("1 << 4 + 1", 32),
        ("0x40 - 0b11", 61),
        ("-(-5)", 5),
        ("10 - 3 - 2", 5),
        ("256 >> 2 >> 1", 32),
        ("machine.array.macros * 2", 8),
        ("size * 4", 48),
        ("x + 4", 260),
        ('"a b" + 4', 516),
        ("second", 6),
        ("after", 12),
    ],
)
def test_expressions(expression: str, value: int) -> None:
    before = """
    .equ size other + 2
    .equ other = 10
    .input x dtype=f32 shape=[2] address=0x100
    .tensor "a b" dtype=f32 shape=[2] address=512
    .weights
    .i16 1, 2, 3
    second: .i8 4
    .constants
    .align 4
    .zero 5
    after: .u8 1
    """
    assert base_of(expression, before) == value


def test_data_of_every_type() -> None:
    program = assemble(
        HEAD
        + """
        .weights
        .i8 -1, 127
        .u8 255
        .align 4        # pads with zeros
        .i32 -2
        .constants
        .f32 1.5, -inf
        .f16 0.5
        .b8 1, 0
        .fill 3, 0xAA
        .i64 1 << 40
        .base64
        AQID
        BA==
        .end
        """
    )
    constants = np.array([1.5, -np.inf], "<f4").tobytes() + np.array([0.5], "<f2").tobytes() + b"\1\0" + b"\xaa" * 3
    constants += (1 << 40).to_bytes(8, "little") + b"\1\2\3\4"
    assert program.const.tobytes() == b"\xff\x7f\xff\0\xfe\xff\xff\xff" + constants
    assert program.weight_bytes == 8


def test_a_stretch_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(range(100)))
    (tmp_path / "p.s").write_text(HEAD + '.weights\n.data file="data.bin" offset=2+3 size=4\n')
    assert assemble_file(tmp_path / "p.s").const.tobytes() == bytes([5, 6, 7, 8])


def test_defaults_of_tensors_and_dram() -> None:
    program = assemble(HEAD + ".output y dtype=i16 shape=[2, 3] address=10")
    assert program.outputs[0].strides == (6, 2)
    assert program.outputs[0].space == "dram"
    assert program.dram_bytes == 22


def test_ops_labels_and_taps() -> None:
    program = assemble(
        HEAD
        + """
        .op name=mm op_type=MatMul nodes=[a, "b c"] engine=array nm="2:4"
        begin: vfill s0
        .tap operand=dst value=v dtype=f32 shape=[4] base=0 row_stride=2 col_stride=1 steps=[{level=1 stride=-8}]
        "the end": halt
        .endop
        """
    )
    assert program.debug.labels == {0: "begin", 1: "the end"}
    assert (program.debug.ops[0].nodes, program.debug.ops[0].last) == (("a", "b c"), 2)
    assert (program.debug.taps[0].pc, program.debug.taps[0].steps[0].stride) == (1, -8)


ERRORS = [
    ("vad s1, s2", "2:1: error: unknown instruction 'vad'", "did you mean 'vand'?"),
    (".inptu x", "2:1: error: unknown directive '.inptu'", "did you mean '.input'?"),
    ("vadd s1, s2 imn=1.0", "2:13: error: vadd has no operand 'imn'", "did you mean 'imm'?"),
    ("vadd s1, s2 imm=1 imm=2", "2:19: error: operand 'imm' is given twice", ""),
    ("vadd s1, s64", "2:10: error: a=s64 is out of range; allowed: s0..s63", ""),
    ("vadd s1, s2, s3", "2:14: error: vadd takes dst, a by place; more is given", "it is written vadd"),
    ("vadd s1", "2:8: error: vadd needs operand a (first operand: s0..s63)", "it is written vadd dst, a"),
    (
        "stream s1, bof, f32 base=0 rows=1 cols=1",
        "2:12: error: space=bof is out of range; allowed: const",
        "mean 'buf'?",
    ),
    ("stream s1, buf, f32 base=0 rows=1 cols=0", "2:35: error: cols=0 is out of range; allowed: 1..268435455", ""),
    ("stream s1, buf, f32 base=0 rows=2-2 cols=1", "2:28: error: rows=0 is out of range", ""),
    ("stream s1, buf, f32 base=foo rows=1 cols=1", "2:26: error: unknown symbol 'foo'", ""),
    (
        ".equ foo 1\nstream s1, buf, f32 base=fou rows=1 cols=1",
        "3:26: error: unknown symbol 'fou'",
        "did you mean 'foo'?",
    ),
    ("loop L1 count=1/0", "2:16: error: / by zero or too large", ""),
    ("loop L1 count=1<<99", "2:16: error: << needs whole numbers, and 0..64 on its right", ""),
    ("loop L1 count=1.5", "2:9: error: count=1.5 is out of range", ""),
    ("loop L1 count=(1", "2:17: error: the line ends; expected", ""),
    (
        "vadd s1 s2",
        "2:9: error: unexpected name; expected ',' or an operator or name=value or the end of the line",
        "it is written vadd dst, a",
    ),
    ("vadd s1, ?", "2:10: error: unexpected '?'; expected a value", "it is written vadd dst, a"),
    ('vadd s1, "s2', "2:10: error: unexpected text", ""),
    ("vadd s1, s2 wait=t1+t1", "2:13: error: wait=t1+t1 is out of range; allowed: up to 2 different of t1..t63", ""),
    ("vadd s1, s2 wait=t1-t2", "2:20: error: semaphores are joined by +", ""),
    (".equ a b\n.equ b a", "2:8: error: symbol 'a' is defined by itself", ""),
    (".equ a 1\n.equ a 2", "3:6: error: symbol 'a' is defined twice", ""),
    (".i8 1", "2:1: error: data among instructions", "open .weights, .constants, .blob or .segment first"),
    (".weights\n.i8 200", "3:1: error: 200 is not of type i8; allowed: -128..127", ""),
    (".weights\n.zero 1<<40", "3:1: error: 1099511627776 bytes cannot be filled", ""),
    (".weights\n.base64\n!!\n.end", "3:1: error: the lines up to .end are not base64", ""),
    (".weights\n.base64\nAAAA", "3:1: error: .base64 has no .end", ""),
    (".target edge", "2:1: error: the machine is named twice", ""),
    (".machine\n[array]\n.end", "2:1: error: missing: name, section [clock]", ""),
    (".target egde", "2:1: error: ", ""),
    (".isa 99", "2:1: error: written for version 99 of the instruction set; this is 1", ""),
    (".input x dtype=f33 shape=[1]", "2:1: error: tensor 'x' has unknown dtype f33; allowed: i8", ""),
    (".input x dtpye=f32 shape=[1]", "2:10: error: .input has no operand 'dtpye'", "did you mean 'dtype'?"),
    (".input x dtype=f32", "2:19: error: field 'shape' is missing", ""),
    (".input x dtype=f32 shape=3", "2:20: error: a [list] is expected", ""),
    ("a: b: halt", "2:5: error: unexpected ':'", ""),
    ("a:\nb: halt", "3:4: error: this instruction already has a label, 'a'", ""),
    (".endop", "2:1: error: .endop without its .op", ""),
    ("vadd s1, " + "-" * 300 + "1", "2:1: error: more than 100 operators and brackets in one another", ""),
]


@pytest.mark.parametrize(("text", "message", "remedy"), ERRORS, ids=[text.split("\n")[0][:40] for text, _, _ in ERRORS])
def test_an_error_says_where_and_what(text: str, message: str, remedy: str) -> None:
    with pytest.raises(FlexcError) as caught:
        assemble(HEAD + text, "p.s")
    assert str(caught.value).startswith(f"p.s:{message}")
    assert remedy in caught.value.remedy


def test_the_line_and_a_caret_are_shown() -> None:
    with pytest.raises(FlexcError) as caught:
        assemble(HEAD + "\tstream s1, buf, f32 base=0 rows=1 cols=cuont ; c\n.equ count 3", "p.s")
    assert str(caught.value) == (
        "p.s:2:41: error: unknown symbol 'cuont'\n"
        "    \tstream s1, buf, f32 base=0 rows=1 cols=cuont ; c\n"
        "    \t                                       ^\n"
        "help: did you mean 'count'?"
    )


def test_all_errors_are_reported() -> None:
    with pytest.raises(FlexcError) as caught:
        assemble(HEAD + "vad s1\nvadd s1\nhalt\nvadd s1, s2 imm=x")
    assert [line.split(" error")[0] for line in str(caught.value).split("\n") if "error" in line] == [
        "<text>:2:1:", "<text>:3:8:", "<text>:5:17:",
    ]  # fmt: skip


def test_a_flood_of_errors_is_cut_off() -> None:
    with pytest.raises(FlexcError, match="more than 50 problems"):
        assemble(HEAD + "foo\n" * 1000)


def test_a_machine_is_needed() -> None:
    with pytest.raises(FlexcError, match=r"p\.s: no machine\nhelp: name one: \.target edge"):
        assemble("halt", "p.s")


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(FlexcError, match="cannot be read: No such file"):
        assemble_file(tmp_path / "p.s")
    (tmp_path / "p.s").write_bytes(b"\xff\xfe\0")
    with pytest.raises(FlexcError, match="is not a text file"):
        assemble_file(tmp_path / "p.s")


def test_a_long_file_is_assembled_quickly() -> None:
    lines = [
        f"    vadd s{n % 64}, s{n % 63} b=s{n % 61} imm={n}.5 wait=t{n % 60 + 1} ; number {n}" for n in range(5000)
    ]
    start = time.process_time()
    program = assemble(HEAD + "\n".join(lines))
    assert len(program.code) == 5000
    assert time.process_time() - start < 4  # 100,000 lines in 20 s would be 1 s; this machine may be slower


def test_problems_come_in_the_order_of_the_lines_and_a_broken_symbol_is_named_where_it_is_used() -> None:
    with pytest.raises(FlexcError) as caught:
        assemble(f"{HEAD}.equ a b\nvfill s0 imm=a\nvfil s0\n", "p.s")
    assert [line for line in str(caught.value).split("\n") if line.startswith("p.s")] == [
        "p.s:2:8: error: unknown symbol 'b'",
        "p.s:3:14: error: symbol 'a' has no value: unknown symbol 'b'",
        "p.s:4:1: error: unknown instruction 'vfil'",
    ]

"""Stepping shows the values and the times of any other run, on programs with and without debug data."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from flexc.emulator.debugger import COMMANDS, Debugger, lines_of
from flexc.emulator.run import Tensors, run
from flexc.emulator.timing import time_program
from flexc.emulator.trace import trace_instructions
from flexc.isa.assembly.assembler import assemble, assemble_file
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.program import Program
from tests.emulator import programs as p

SOURCE = """
.target edge
.input  x dtype=f32 shape=[2, 4] address=0
.output y dtype=f32 shape=[2, 4] address=64
    stream s0, dram, f32 base=x rows=1 cols=4
    step   s0, L0 by=16
    stream s1, buf, f32 base=0 rows=1 cols=4
    step   s1, L0 by=16 mod=2
    stream s2, dram, f32 base=y rows=1 cols=4
    step   s2, L0 by=16
    loop L0 count=2
fetch:
    copy s1, s0, ch0 post=t1
.op name=double op_type=Mul nodes=["/double/Mul"] engine=vector nm=""
    vmul s1, s1 imm=2.0 wait=t1 post=t2
.endop
.op name=write op_type=Copy nodes=["/write"] engine=dma nm=""
    copy s2, s1, ch1 wait=t2
.endop
    endloop L0
    halt
"""
ROOT = Path(__file__).parents[2]
X = np.arange(8, dtype=np.float32).reshape(1, 2, 4)


def session(
    commands: str, source: str = SOURCE, *, breaks: Sequence[str] = (), until: str | None = None
) -> tuple[str, Tensors | None]:
    """Return what a session writes, and the outputs where it came to the end; commands are separated by ``;``."""
    out = io.StringIO()
    ask = lines_of(io.StringIO(commands.replace(";", "\n")), out)
    program = assemble(source)
    feeds = {"x": X} if program.inputs else {}
    outputs = Debugger(program, feeds, out, ask, breaks=breaks, until=until).run()
    return out.getvalue(), outputs


def answers(commands: str, *, breaks: Sequence[str] = (), until: str | None = None) -> list[str]:
    """Return what stands after the last prompt of a session."""
    return session(commands, breaks=breaks, until=until)[0].split("(flexc) ")[-1].splitlines()[1:]


def test_a_session_to_the_end_gives_the_outputs_and_cycles_of_a_run() -> None:
    text, outputs = session("c")
    assert outputs is not None
    np.testing.assert_array_equal(outputs["y"], 2 * X)
    assert f"the end: {time_program(assemble(SOURCE)).cycles} cycles" in text


def test_leaving_gives_no_outputs() -> None:
    assert session("s 3;q")[1] is None
    assert session("")[1] is None


def test_it_stops_before_the_first_instruction() -> None:
    assert session("")[0] == "pc 0, cycle 0 of control\n=> stream s0, dram, f32 base=0x0 rows=1 cols=4\n"


def test_steps_print_what_is_carried_out_and_an_empty_line_repeats() -> None:
    lines = answers("s 6;s")
    assert re.fullmatch(r" +6\.\.7 +control +6 +loop L0 count=2", lines[0])
    lines = answers("s 6;;")
    assert len(lines) == 6 + 2
    assert lines[-2].startswith("pc 9, L0=1, write")


def test_next_goes_from_node_to_node() -> None:
    text, _ = session("n;n;n;n;n")
    stops = re.findall(r"^pc (\d+), (?:L0=(\d), )?(\w+)", text, re.MULTILINE)
    assert stops[1:] == [
        ("7", "0", "fetch"),
        ("8", "0", "double"),
        ("9", "0", "write"),
        ("7", "1", "fetch"),
        ("8", "1", "double"),
    ]


@pytest.mark.parametrize("place", ["double", "/double/Mul", "8", "fetch", "7"])
def test_breakpoints_stop_in_every_iteration(place: str) -> None:
    text, outputs = session("c;c;w", breaks=[place])
    assert len(re.findall(r"^pc \d+, L0=[01]", text, re.MULTILINE)) == 2
    assert "the end" in text
    assert outputs is not None


def test_a_node_of_one_iteration_is_reached_in_that_one() -> None:
    ops = '.op name=double op_type=Mul nodes=["/double/Mul"] engine=vector nm=""'
    source = SOURCE.replace(ops, f"{ops} iteration=0\n{ops.replace('double', 'again')} iteration=1").replace(
        "wait=t1 post=t2\n.endop", "wait=t1 post=t2\n.endop\n.endop"
    )
    assert "again" in source
    text, _ = session("w", source, until="again")
    assert "L0=1, again" in text
    assert "double" not in text
    assert "stops at double (pc 8 at L0=0)" in session("b", source, breaks=["double"])[0]
    listing = list(trace_instructions(assemble(source)))
    assert [line.split("; ")[-1] for line in listing if "vmul" in line] == ["double", "again"]


def test_streams_set_in_one_word_or_in_two_are_the_same() -> None:
    slid = SOURCE.replace("rows=1 cols=4\n    step   s1, L0 by=16 mod=2", "rows=1 cols=4, L0 by=16 mod=2")
    slid = slid.replace("stream s1, buf, f32 base=0 rows=1 cols=4, L0", "slide s1, buf, f32, L0 base=0 rows=1 cols=4")
    assert "slide" in slid
    (text, outputs), (other, expected) = session("u write;r;c", slid), session("u write;r;c")
    assert "s1: buf f32 1 x 4 at 0x0, L0 by 16 mod 2, now at 0x0" in text
    assert outputs is not None
    assert expected is not None
    assert outputs["y"].tobytes() == expected["y"].tobytes()
    assert [line for line in text.splitlines() if line[:1] == "s"] == [
        line for line in other.splitlines() if line[:1] == "s"
    ]


def test_until_stops_once() -> None:
    text, _ = session("c", until="double")
    assert text.count("\npc ") + text.startswith("pc ") == 1
    text, _ = session("u write;c", until="double")
    assert text.count("=> ") == 2


def test_breakpoints_are_listed_and_deleted() -> None:
    assert answers("b") == ["no breakpoints"]
    assert answers("b fetch;b 9") == ["stops at fetch (pc 7)", "stops at 9 (pc 9)"]
    assert answers("b fetch;b 9;d fetch") == ["stops at 9 (pc 9)"]
    assert answers("b fetch;d") == ["no breakpoints"]
    assert answers("d fetch") == ["error: no breakpoint 'fetch'"]


def test_values_are_those_of_the_present_iteration() -> None:
    assert answers("c;p s1", breaks=["double"]) == [
        "s1: buf f32 1 x 4 at 0x0, L0 by 16 mod 2, now at 0x10",
        "  [0] 4 5 6 7",
    ]
    assert answers("p dst", until="double")[1] == "  [0] 0 1 2 3"
    assert answers("s;p src", until="double")[1] == "  [0] 0 2 4 6"
    assert answers("p x", until="double") == ["x: f32[2, 4] at 0x0 of dram", "  [0] 0 1 2 3", "  [1] 4 5 6 7"]


def test_memory_is_shown_as_typed_arrays() -> None:
    assert answers("p dram 0 f32 2x2", until="double") == ["dram f32 2 x 2 at 0x0", "  [0] 0 1", "  [1] 2 3"]
    assert answers("p dram 0x4 i32", until="double") == ["dram i32 1 x 1 at 0x4", f"  [0] {0x3F800000}"]
    assert answers("p buf 0 u8 20x40", until="double")[1].endswith("  ... 24 more")
    assert answers("p buf 0 u8 20x40", until="double")[-1] == "  ... 12 more rows"
    assert len(answers("p buf 0 u8 20x40 all", until="double")) == 21


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("x", "error: no command 'x'"),
        ("whre", "help: did you mean 'where'?"),
        ("where now", "error: where takes no operands"),
        ("s none", "error: 'none' is no number of instructions"),
        ("u", "error: until where?"),
        ("b fetsh", "help: did you mean 'fetch'?"),
        ("b 99", "error: the program has no node, label or instruction '99'"),
        ("p", "error: what is to be printed?"),
        ("p s9", "error: nothing is called 's9' here"),
        ("p dram 0 f31", "error: 'f31' is no element type"),
        ("p dram here f32", "error: 'here' is no number"),
        ("p dram 0 f32 0x3", "error: '0x3' is no shape"),
        ("p dram 0 f32 1x2x3", "error: '1x2x3' is no shape"),
        ("p dram 0x10000 f32", "error: 1x1 f32 from 0x10000, strides [4, 4] lies outside dram, which has 128 bytes"),
    ],
)
def test_commands_that_make_no_sense_are_refused(command: str, message: str) -> None:
    assert message in answers(command)


def test_after_the_end_values_can_be_seen_but_nothing_goes_on() -> None:
    assert answers("c;p y")[1:] == ["  [0]  0  2  4  6", "  [1]  8 10 12 14"]
    assert answers("c;s")[0] == "error: the program has ended"
    assert answers("c;w")[0].startswith("at the end: ")
    assert "halt" in answers("c;l")[-1]


def test_places_that_are_not_there_are_refused_before_the_run() -> None:
    with pytest.raises(FlexcError, match="no node, label or instruction 'doubel'") as caught:
        session("", breaks=["doubel"])
    assert caught.value.remedy == "did you mean 'double'?"
    with pytest.raises(FlexcError, match="no node, label or instruction 'wirte'"):
        session("", until="wirte")


def test_state_of_tokens_streams_engines_and_code() -> None:
    assert answers("t") == ["no tokens have been given"]
    assert answers("t", until="double") == ["t1: 1 free, from cycle 59 (given 1, taken 0)"]
    assert answers("s;t", until="double")[0] == "t1: none free (given 1, taken 1)"
    assert answers("r") == ["no stream is set"]
    assert answers("s 2;r") == ["s0: dram f32 1 x 4 at 0x0, L0 by 16, now at 0x0"]
    assert answers("e", until="double")[:2] == [
        "control: issues next at cycle 8",
        "dma0: free from cycle 59, results until 59, 0 waiting in its queue",
    ]
    assert "=>      8    vmul s1, s1 imm=2.0 wait=t1 post=t2" in answers("l", until="double")
    assert "fetch:" in answers("l", until="double")
    assert answers("g") == ["no groups are set"]


TILE = """
.target edge
    groups n=2 m=4 blocks=2 slots=4 index=2 packing=packed select=incell merge=4
    stream s0, const, u8 base=0 rows=1 cols=160
    stream s1, buf, u8 base=0 rows=1 cols=160
    copy s1, s0, ch0 post=t1
    stream s2, cells, u8 base=1 rows=1 cols=1
    ldw s2, s1 wait=t1
    halt
.weights
    .i8 1, -2, 3, -4
    .zero 124
    .bits 2, 0, 3, 1, 2
    .zero 31
"""


def test_cells_are_shown_as_weights_at_activations() -> None:
    text, _ = session("g;p cells 1;c;p cells 1;p s2", TILE)
    assert "2:4 aggregated (2 blocks a row, 2 sub-macros share one)" not in text.split("(flexc)")[1]
    assert "unit 1 (macro 1, weight set 0): nothing written yet" in text
    shown = "unit 1 (macro 1, weight set 0): 2:4, 2 blocks, as weight@activation\n  column 0: 1@0 -2@3 | 3@5 -4@6\n"
    assert text.count(shown) == 2
    assert "  ... 24 more columns" in text


def test_groups_are_told_once_set() -> None:
    text, _ = session("s;g", TILE)
    assert "2:4 aggregated (2 blocks a row, 2 sub-macros share one): 2 blocks x 2 slots = 4 of 128 cells" in text


def test_help_names_every_command_and_so_does_the_manual() -> None:
    lines = answers("h")
    manual = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
    for command, line in zip(COMMANDS, lines, strict=False):
        assert line.split()[0].rstrip(",") == command.names[0]
        assert command.doc in line
        names = ", ".join(f"`{name}`" for name in command.names)
        operands = f"`{command.operands}`" if command.operands else ""
        assert f"| {names} | {operands.replace('|', chr(92) + '|')} | {command.doc} |" in manual


def traced(program: Program, limit: int | None = None) -> Sequence[str]:
    return list(trace_instructions(program, limit))


def test_a_trace_has_a_line_for_every_execution() -> None:
    program = assemble(SOURCE)
    timing = time_program(program)
    lines = traced(program)
    assert len(lines) == timing.instructions + 2
    assert lines[-1] == f"; {timing.cycles} cycles, {timing.instructions} instructions"
    assert max(int(end) for end in re.findall(r"\.\.(\d+)", "\n".join(lines))) == timing.cycles
    assert sum("L0=1" in line for line in lines) == 3
    assert lines[9].endswith("; double")


def test_a_trace_stops_at_its_limit() -> None:
    assert traced(assemble(SOURCE), 4)[-1] == "; ... the first 4 instructions; there are more"
    assert len(traced(assemble(SOURCE), 4)) == 6
    assert traced(assemble(SOURCE), 1000)[-1].endswith("instructions")


def test_work_that_waits_for_a_later_token_is_traced_when_it_starts() -> None:
    early = [instr("sync", engine="vector", wait=(1,)), instr("sync", engine="array", post=(1,))]
    lines = traced(p.program(early))
    assert [line.split()[1] for line in lines[1:3]] == ["array", "vector"]


def test_a_trace_waits_for_barriers_as_time_does() -> None:
    program = assemble(SOURCE.replace("    endloop L0", "    barrier\n    endloop L0"))
    assert (
        traced(program)[-1]
        == f"; {time_program(program).cycles} cycles, {time_program(program).instructions} instructions"
    )


def test_the_session_in_the_manual_is_what_happens() -> None:
    manual = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
    shown = manual.split("--break tile\n")[1].split("```")[0]
    out = io.StringIO()
    commands = "".join(f"{line}\n" for line in re.findall(r"^\(flexc\) (.*)$", shown, re.MULTILINE))
    program = assemble_file(ROOT / "examples" / "asm" / "gemm_4_8.s")
    Debugger(program, {}, out, lines_of(io.StringIO(commands), out), breaks=["tile"]).run()
    assert out.getvalue() == shown


def test_values_do_not_depend_on_stepping() -> None:
    path = ROOT / "examples" / "asm" / "gemv_2_4.s"
    source = path.read_text(encoding="utf-8")
    _, outputs = session("s 7;c", source)
    assert outputs is not None
    np.testing.assert_array_equal(outputs["y"], run(assemble(source), {})["y"])


def test_where_says_which_tile_the_loops_are_at() -> None:
    source = SOURCE.replace("    loop L0", ".tile what=row count=2 unit=rows size=1 step=1 limit=2\n    loop L0")
    text, _ = session("c", source, breaks=["double"])
    assert "\n   row 0: rows 0 of 2\n=> vmul" in text
    assert "\n   row 1: rows 1 of 2\n=> vmul" in text

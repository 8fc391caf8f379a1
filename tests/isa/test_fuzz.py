"""A short run of the fuzz driver, and hostile files whose contents would take far more memory than the file."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.isa import container, encoding, object_file, records
from flexc.isa.assembly.assembler import assemble
from flexc.isa.errors import FlexcError
from flexc.isa.verifier import verify
from tests.isa.fuzz_files import fuzz_files, fuzz_words
from tests.isa.refused import GOOD


def test_mutations_end_cleanly(tmp_path: Path) -> None:
    counts = fuzz_files(200, 1, tmp_path)
    assert counts["refused by the reader"] > 25
    assert counts["refused by the reader, understated"] > 3
    assert counts["refused by the verifier"] > 25
    assert counts["run"] > 25


def test_random_words_decode_or_are_refused() -> None:
    counts = fuzz_words(20_000, 1)
    assert counts["instructions"] > 1000
    assert counts["refused"] > 1000


def hostile(path: Path, kind: object_file.Kind, data: bytes) -> None:
    """Write a program file with another section of a kind, declaring all the memory there is."""
    program = assemble(GOOD)
    sections = [
        replace(each, data=data) if each.kind == kind.number else each for each in object_file.contents(program)
    ]
    container.write(path, sections, replace(object_file.made_of(program, sections), memory=1 << 60))


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (object_file.DEBUG, b'{"ops":[' + b"{}," * (1 << 21) + b"{}]}", "holds about 4194308 values"),
        (object_file.META, b"[" * (1 << 21), "holds about 2097153 values"),
        (object_file.META, b"[" * (1 << 19), "is not valid JSON"),
        (object_file.CODE, bytes(16 * encoding.MOST_INSTRUCTIONS + 16), "1048577 instructions; at most 1048576"),
        (object_file.MACHINE, b"#" * (1 << 17), "has 131072 bytes; at most 65536 are read"),
    ],
)
def test_sections_that_would_take_much_memory_are_refused(
    tmp_path: Path, kind: object_file.Kind, data: bytes, message: str
) -> None:
    hostile(tmp_path / "p.fxc", kind, data)
    tracemalloc.start()
    try:
        with pytest.raises(FlexcError, match=message):
            object_file.load(tmp_path / "p.fxc")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + (8 << 20)
    finally:
        tracemalloc.stop()


_EIGHT = range(8)
#: Small files that take much: many instructions no two of which are alike, registers set in nested loops, elements
#: that become float64, places given by indices, tokens that nobody takes.
GREEDY = [
    "".join(f"vadd s0, s0 imm={place}.5\n" for place in range(1500)),
    "".join(f"stream s1, buf, f32 base={4 * place} rows=1 cols=3\nvfill s1 imm={place}.5\n" for place in range(1000)),
    "".join(f"stream s{n + 1}, buf, f32 base={64 * n} rows=1 cols=1\n" for n in _EIGHT)
    + "".join(f"loop L{n} count=2\n" + "".join(f"vfill s{k + 1} imm={n}.5\n" for k in _EIGHT) for n in _EIGHT)
    + "".join(f"stream s{n + 1}, buf, f32 base={1024 + n} rows=1 cols=1\nendloop L{n}\n" for n in reversed(_EIGHT)),
    "stream s1, buf, u8 base=0 rows=1 cols=260000\nvfill s1\nvpow s1, s1 imm=3.5\nvsel s1, s1, b=s1\nvsin s1, s1\n",
    (
        ".dram 4000000\nstream s1, dram, u8 base=0 rows=1000000 cols=1\n"
        "stream s2, dram, i32 base=0 rows=1000000 cols=1\n"
        "stream s3, dram, u8 base=0 rows=1 cols=1\nstream s4, buf, i32 base=0 rows=1 cols=1\nbarrier\n"
        "stream s5, dram, i32 base=0 rows=1 cols=1000000\ncopy s5, s0, ch0\ngather s1, s3, s2, ch0\n"
    ),
    "loop L0 count=200000\nsync vector post=t1+t2\nendloop L0\n",
]


@pytest.mark.parametrize("code", GREEDY, ids=["instructions", "streams", "loops", "elements", "indices", "tokens"])
def test_greedy_programs_take_at_most_twice_what_they_declare(tmp_path: Path, code: str) -> None:
    text = f".target edge\nstream s0, buf, i32 base=0 rows=1 cols=1\nvfill s0\n{code}halt"
    object_file.save(assemble(text), tmp_path / "p.fxc")
    budget = object_file.declared(tmp_path / "p.fxc")
    tracemalloc.start()
    try:
        program = object_file.load(tmp_path / "p.fxc")
        if not verify(program):
            assert time_program(program).instructions <= budget.executed
            Executor(program).run({})
        assert tracemalloc.get_traced_memory()[1] < 2 * budget.memory
    finally:
        tracemalloc.stop()


def test_equal_instructions_take_the_room_of_one() -> None:
    code = encoding.decode_all(encoding.encode(encoding.instr("barrier")) * 1000)
    assert len({id(each) for each in code}) == 1
    assert records.MOST_VALUES == encoding.MOST_INSTRUCTIONS

"""A short run of the fuzz driver, and hostile files whose contents would take far more memory than the file."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from flexc.isa import container, encoding, object_file, records
from flexc.isa.assembly.assembler import assemble
from flexc.isa.errors import FlexcError
from flexc.isa.version import isa_digest
from tests.isa.fuzz_files import fuzz_files, fuzz_words
from tests.isa.refused import GOOD


def test_mutations_end_cleanly(tmp_path: Path) -> None:
    counts = fuzz_files(300, 1, tmp_path)
    assert counts["refused by the reader"] > 25
    assert counts["refused by the verifier"] > 25
    assert counts["run"] > 25


def test_random_words_decode_or_are_refused() -> None:
    counts = fuzz_words(20_000, 1)
    assert counts["instructions"] > 1000
    assert counts["refused"] > 1000


def hostile(path: Path, kind: object_file.Kind, data: bytes) -> None:
    """Write a program file with another section of a kind."""
    program = assemble(GOOD)
    sections = [
        replace(each, data=data) if each.kind == kind.number else each for each in object_file.contents(program)
    ]
    container.write(path, sections, isa_digest(), bytes.fromhex(program.machine.fingerprint()))


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (object_file.DEBUG, b'{"ops":[' + b"{}," * (1 << 21) + b"{}]}", "holds about 4194307 values"),
        (object_file.META, b"[" * (1 << 21), "holds about 2097152 values"),
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


def test_equal_instructions_take_the_room_of_one() -> None:
    code = encoding.decode_all(encoding.encode(encoding.instr("barrier")) * 1000)
    assert len({id(each) for each in code}) == 1
    assert records.MOST_VALUES == encoding.MOST_INSTRUCTIONS

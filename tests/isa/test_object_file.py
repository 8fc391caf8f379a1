"""Program files: identities, determinism, laziness, and a clean refusal of whatever is damaged."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from flexc.emulator.timing import time_program
from flexc.isa import container, object_file
from flexc.isa.assembly.assembler import assemble
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.machine import load_machine
from flexc.isa.object_file import load, save
from flexc.isa.program import Debug, Op, Program, Segment, Tensor
from tests.isa.refused import GOOD
from tests.isa.strategies import EDGE, programs

EXAMPLES = Path(__file__).parents[2] / "examples/asm"
X = Tensor("x", "f32", (8,), "dram", 0, (4,))


def sample() -> Program:
    const = np.arange(3000, dtype=np.uint16).view(np.uint8)
    debug = Debug((Op("n", "Add", ("n",), "vector", "", 0, 1),), (), (X,), {0: "start"})
    blobs = {"ref": const[:5000], "none": const[:0]}
    return Program(
        (instr("halt"),), EDGE, const, 100, 64, (X,), (X,), (Segment("s", (X,), (), b"abc"),), debug, {"a": "b"}, blobs
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.fxc"
    save(sample(), path)
    return path


def refusal(path: Path, data: bytes) -> str:
    """Return what loading these bytes, and reading all their blobs, says."""
    path.write_bytes(data)
    with pytest.raises(FlexcError) as caught:
        dict(load(path).blobs)
    assert str(caught.value).startswith(str(path))
    return caught.value.message


def test_loading_gives_what_was_saved(file: Path) -> None:
    program, expected = load(file), sample()
    for name in ("code", "machine", "weight_bytes", "dram_bytes", "inputs", "outputs", "segments", "debug", "meta"):
        assert getattr(program, name) == getattr(expected, name)
    assert np.array_equal(program.const, expected.const)
    assert {name: data.tobytes() for name, data in program.blobs.items()} == {
        name: data.tobytes() for name, data in expected.blobs.items()
    }


@given(program=programs())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
def test_saving_what_was_loaded_gives_the_same_bytes(program: Program, tmp_path: Path) -> None:
    save(program, tmp_path / "a.fxc")
    save(load(tmp_path / "a.fxc"), tmp_path / "b.fxc")
    assert (tmp_path / "a.fxc").read_bytes() == (tmp_path / "b.fxc").read_bytes()


def test_the_order_of_dictionaries_does_not_matter(tmp_path: Path) -> None:
    program = sample()
    save(program, tmp_path / "a.fxc")
    turned = replace(
        program, blobs=dict(reversed(list(program.blobs.items()))), meta=dict(reversed(list(program.meta.items())))
    )
    save(turned, tmp_path / "b.fxc")
    assert (tmp_path / "a.fxc").read_bytes() == (tmp_path / "b.fxc").read_bytes()


def test_const_is_mapped_and_read_only(file: Path) -> None:
    const = load(file).const
    assert const.base is not None
    assert not const.flags.writeable


def test_a_program_can_replace_the_file_it_came_from(file: Path) -> None:
    before = file.read_bytes()
    save(load(file), file)
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == ["p.fxc"]


def test_every_truncation_is_refused(file: Path) -> None:
    data = file.read_bytes()
    for size in (*range(0, 1500, 7), *range(1500, len(data), 211)):
        message = refusal(file, data[:size])
        assert "is truncated" in message or (not size and "is not a flexc program file" in message)


def test_every_flipped_bit_is_noticed(file: Path) -> None:
    data, generator = file.read_bytes(), random.Random(1)
    for place in (*range(0, 1500, 3), *range(1500, len(data), 97)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        refusal(file, bytes(damaged))


def test_appended_bytes_are_noticed(file: Path) -> None:
    assert "is damaged: it has" in refusal(file, file.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a flexc program file (.fxc)"),
        (b"\x89FXC", "is truncated: it ends after 4 bytes, within its header"),
        (b"hello, world", "is not a flexc program file (.fxc)"),
        (b"\x08\x07\x12\x07pytorch" * 99, "is not a flexc program file (.fxc)"),
    ],
)
def test_something_else_is_refused(file: Path, data: bytes, message: str) -> None:
    assert refusal(file, data) == message


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FlexcError, match=r"none\.fxc: no such file"):
        load(tmp_path / "none.fxc")
    with pytest.raises(FlexcError, match="is not a file"):
        load(tmp_path)


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FlexcError, match="cannot be written: No such file or directory"):
        save(sample(), tmp_path / "none" / "p.fxc")
    assert list(tmp_path.iterdir()) == []


def header_with(data: bytes, offset: int, value: bytes) -> bytes:
    """Return a file with bytes of its header changed and the header's checksum made right again."""
    changed = bytearray(data)
    changed[offset : offset + len(value)] = value
    changed[124:128] = struct.pack("<I", zlib.crc32(bytes(changed[:124])))
    return bytes(changed)


def test_another_format_version_is_refused(file: Path) -> None:
    message = refusal(file, header_with(file.read_bytes(), 8, struct.pack("<I", 7)))
    assert message == "has version 7 of the file format; this flexc reads version 3"


def test_another_instruction_set_is_refused(file: Path) -> None:
    message = refusal(file, header_with(file.read_bytes(), 32, bytes(32)))
    assert message.startswith("was made for another instruction set (000000000000; this is ")


def test_another_machine_than_the_headers_is_refused(file: Path) -> None:
    message = refusal(file, header_with(file.read_bytes(), 64, bytes(32)))
    assert message == "is not the machine that the header of the file names"


def test_an_absurd_table_is_refused_before_it_is_read(file: Path) -> None:
    message = refusal(file, header_with(file.read_bytes(), 12, struct.pack("<I", 2**32 - 1)))
    assert "its section table of" in message


@pytest.mark.parametrize(
    ("offset", "message"),
    [(96, "declares {} bytes of memory, but takes {}"), (104, "declares {} executed instructions, but takes {}")],
)
def test_a_file_that_declares_less_than_it_takes_is_refused(file: Path, offset: int, message: str) -> None:
    (takes,) = struct.unpack_from("<Q", file.read_bytes(), offset)
    assert takes > 0
    refused = refusal(file, header_with(file.read_bytes(), offset, struct.pack("<Q", takes - 1)))
    assert refused == message.format(takes - 1, takes)
    file.write_bytes(header_with(file.read_bytes(), offset, struct.pack("<Q", takes)))
    load(file)


def test_memory_is_refused_before_it_is_taken(file: Path) -> None:
    assert refusal(file, header_with(file.read_bytes(), 96, bytes(8))).startswith("declares 0 bytes of memory")


@pytest.mark.parametrize("text", [GOOD, *(path.read_text() for path in sorted(EXAMPLES.glob("*.s")))])
def test_the_instructions_declared_are_those_that_timing_counts(text: str, tmp_path: Path) -> None:
    save(program := assemble(text, folder=EXAMPLES), tmp_path / "p.fxc")
    assert object_file.declared(tmp_path / "p.fxc").executed == time_program(program).instructions


def rebuilt(path: Path, kind: object_file.Kind, data: bytes | None) -> None:
    """Write the sample with one section replaced, or left out, and every checksum right."""
    program = sample()
    sections = []
    for content in object_file.contents(program):
        if content.kind != kind.number:
            sections.append(content)
        elif data is not None:
            sections.append(replace(content, data=data))
    container.write(path, sections, object_file.made_of(program, sections))


BAD_SECTIONS = [
    (object_file.CODE, b"\0" * 15, "the code section has 15 bytes, no multiple of 16"),
    (object_file.CODE, b"\0" * 16, "opcode 0x00 is no instruction"),
    (object_file.CODE, None, "is damaged: it has 0 sections 'code', not one"),
    (object_file.MACHINE, b"\xff", "is not valid TOML"),
    (object_file.MACHINE, b'inherit = "edge"\nname = "x"\ndescription = "x"', "inherits from another machine"),
    (object_file.MACHINE, load_machine("server").to_toml().encode(), "is not the machine that the header"),
    (object_file.META, b'{"a":1}', "is not an object of texts"),
    (object_file.META, b"{", "is not valid JSON"),
    (object_file.META, b"[" * 100_000, "is not valid JSON"),
    (object_file.DEBUG, b'{"opps":[]}', "unknown field 'opps'"),
    (object_file.DEBUG, b'{"ops":[{}]}', "field 'name' is missing"),
    (object_file.DEBUG, b'{"labels":{"x":"y"}}', "'x' is no number with a text"),
    (object_file.DEBUG, b'{"labels":{"99":"y"}}', "label 'y' is of instruction 99"),
    (
        object_file.DEBUG,
        b'{"ops":[{"name":"n","op_type":"","nodes":[],"engine":"","nm":"","first":0,"last":1,"iteration":-2}]}',
        "op 'n' is of instructions 0..1, iteration -2",
    ),
    (object_file.TENSORS, b"{}", "is not an object with exactly dram_bytes, inputs, outputs, states, segments"),
    (
        object_file.TENSORS,
        b'{"dram_bytes":1e3,"inputs":[],"outputs":[],"states":[],"segments":[{"name":"s"}]}',
        "is a number where a whole number belongs",
    ),
    (
        object_file.TENSORS,
        b'{"dram_bytes":1,"inputs":[],"outputs":[],"states":[],"segments":[]}',
        "does not list the 1 host segments of the file",
    ),
]


@pytest.mark.parametrize(("kind", "data", "message"), BAD_SECTIONS)
def test_a_section_that_makes_no_sense_is_refused(
    file: Path, kind: object_file.Kind, data: bytes | None, message: str
) -> None:
    rebuilt(file, kind, data)
    assert message in refusal(file, file.read_bytes())

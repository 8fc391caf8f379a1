"""The outer form of a program file: header, section table, sections; checksums, bounds, alignment. Knows no content."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .budget import Budget, check_budget, table_bytes
from .errors import FlexcError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Not text, and damaged by every common way to mistake it for text (as in PNG).
MAGIC = b"\x89FXC\r\n\x1a\n"
FORMAT_VERSION = 3
SECTION_ALIGNMENT = 64
PAGE = 4096
CHUNK = 1 << 22

#: What the header holds: (field, struct code, meaning).
HEADER = (
    ("magic", "8s", "89 46 58 43 0D 0A 1A 0A"),
    ("format", "I", "version of this format"),
    ("sections", "I", "entries in the section table"),
    ("names", "I", "bytes of names behind the section table"),
    ("table_crc", "I", "CRC-32 of section table and names"),
    ("file_size", "Q", "bytes of the whole file"),
    ("isa", "32s", "digest of the instruction table the code was made for"),
    ("machine", "32s", "fingerprint of the machine the code was made for"),
    ("memory", "Q", "bytes that loading, verifying and running the program take at most"),
    ("executed", "Q", "instructions that a run issues at most"),
    ("zero", "12s", "zero"),
    ("header_crc", "I", "CRC-32 of the header before this field"),
)
#: What an entry of the section table holds.
ENTRY = (
    ("kind", "I", "kind of section"),
    ("crc", "I", "CRC-32 of the section's bytes"),
    ("offset", "Q", "first byte in the file"),
    ("size", "Q", "bytes"),
    ("name_offset", "I", "first byte of its name among the names"),
    ("name_size", "I", "bytes of its name, UTF-8; 0: none"),
)
_HEADER = struct.Struct("<" + "".join(code for _, code, _ in HEADER))
_ENTRY = struct.Struct("<" + "".join(code for _, code, _ in ENTRY))
HEADER_BYTES = _HEADER.size
ENTRY_BYTES = _ENTRY.size


@dataclass(frozen=True)
class Section:
    """One section: its kind, its name (for those that come several times), and where it lies in the file."""

    kind: int
    name: str
    offset: int
    size: int
    crc: int


@dataclass(frozen=True)
class Content:
    """A section to be written: bytes or an array of bytes. ``joined``: it starts where the one before it ends."""

    kind: int
    data: bytes | npt.NDArray[np.uint8]
    name: str = ""
    joined: bool = False


@dataclass(frozen=True)
class Made:
    """What a header says about the program: digest of the ISA, fingerprint of the machine, what a run takes."""

    isa: bytes
    machine: bytes
    memory: int
    executed: int

    @property
    def budget(self) -> Budget:
        """What the file declares."""
        return Budget(self.memory, self.executed)


@dataclass(frozen=True)
class Layout:
    """A checked header and section table."""

    made: Made
    sections: tuple[Section, ...]


def write(path: Path, contents: Iterable[Content], made: Made) -> None:
    """Write a program file; it appears at ``path`` complete or not at all.

    Raises:
        FlexcError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, list(contents), made)
        temporary.replace(path)
    except OSError as error:
        raise FlexcError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write(file: IO[bytes], contents: list[Content], made: Made) -> None:
    names = [content.name.encode() for content in contents]
    position = HEADER_BYTES + ENTRY_BYTES * len(contents) + sum(map(len, names))
    file.write(bytes(position))
    entries, name_offset = [], 0
    for content, name in zip(contents, names, strict=True):
        size = len(content.data)
        start = position if content.joined else _aligned(position, PAGE if size >= PAGE else SECTION_ALIGNMENT)
        file.write(bytes(start - position))
        crc = _copy(file, content.data)
        entries.append(_ENTRY.pack(content.kind, crc, start, size, name_offset, len(name)))
        position, name_offset = start + size, name_offset + len(name)
    table = b"".join([*entries, *names])
    layout = (len(contents), name_offset, zlib.crc32(table), position)
    declared = (made.isa, made.machine, made.memory, made.executed)
    head = _HEADER.pack(MAGIC, FORMAT_VERSION, *layout, *declared, b"", 0)[:-4]
    file.seek(0)
    file.write(head + struct.pack("<I", zlib.crc32(head)) + table)


def _copy(file: IO[bytes], data: bytes | npt.NDArray[np.uint8]) -> int:
    view, crc = memoryview(data) if isinstance(data, bytes) else data.data, 0
    for start in range(0, len(view), CHUNK):
        crc = zlib.crc32(view[start : start + CHUNK], crc)
        file.write(view[start : start + CHUNK])
    return crc


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def read_layout(file: IO[bytes], where: str) -> Layout:
    """Return the header and section table of an open file: every size and bound checked before it is believed.

    Raises:
        FlexcError: this is no program file, or it is damaged, truncated or of another version of the format.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(HEADER_BYTES)
    if head[: len(MAGIC)] != MAGIC[: len(head)] or not head:
        raise FlexcError("is not a flexc program file (.fxc)", where=where, remedy="make one with flexc compile or asm")
    if len(head) < HEADER_BYTES:
        raise FlexcError(f"is truncated: it ends after {size} bytes, within its header", where=where)
    fields = dict(zip((name for name, _, _ in HEADER), _HEADER.unpack(head), strict=True))
    if fields["format"] != FORMAT_VERSION:
        raise FlexcError(
            f"has version {fields['format']} of the file format; this flexc reads version {FORMAT_VERSION}",
            where=where,
            remedy="compile the model again, or use the flexc that made the file",
        )
    if zlib.crc32(head[:-4]) != fields["header_crc"] or any(fields["zero"]):
        raise FlexcError("is damaged: its header does not match its checksum", where=where)
    if size != fields["file_size"]:
        what = "truncated" if size < fields["file_size"] else "damaged"
        raise FlexcError(f"is {what}: it has {size} bytes, its header says {fields['file_size']}", where=where)
    made = Made(*(fields[name] for name in ("isa", "machine", "memory", "executed")))
    _check_table(fields, made.budget, where)
    sections = _read_table(file, fields["sections"], fields["names"], fields["table_crc"], size, where)
    return Layout(made, sections)


def _check_table(fields: Mapping[str, int], declared: Budget, where: str) -> None:
    """The section table fits into the file, and into the memory that the file declares."""
    length = fields["sections"] * ENTRY_BYTES + fields["names"]
    if HEADER_BYTES + length > fields["file_size"]:
        raise FlexcError(f"is damaged: its section table of {length} bytes does not fit into it", where=where)
    check_budget(Budget(table_bytes(fields["sections"], fields["names"]), 0), declared, where)


def _read_table(file: IO[bytes], count: int, names_size: int, crc: int, size: int, where: str) -> tuple[Section, ...]:
    length = count * ENTRY_BYTES + names_size
    table = file.read(length)
    if zlib.crc32(table) != crc:
        raise FlexcError("is damaged: its section table does not match its checksum", where=where)
    names = table[count * ENTRY_BYTES :]
    sections, end = [], HEADER_BYTES + length
    for place in range(count):
        section = _section(_ENTRY.unpack_from(table, place * ENTRY_BYTES), names, where)
        _check_gap(file, end, section, size, where)
        sections.append(section)
        end = section.offset + section.size
    if end != size:
        raise FlexcError(f"is damaged: {size - end} bytes follow its last section", where=where)
    return tuple(sections)


def _section(entry: tuple[int, ...], names: bytes, where: str) -> Section:
    kind, crc, offset, size, name_offset, name_size = entry
    try:
        name = names[name_offset : name_offset + name_size].decode()
    except UnicodeDecodeError:
        raise FlexcError("is damaged: the name of a section is not UTF-8", where=where) from None
    if name_offset + name_size > len(names):
        raise FlexcError("is damaged: the name of a section lies outside the names", where=where)
    return Section(kind, name, offset, size, crc)


def _check_gap(file: IO[bytes], end: int, section: Section, size: int, where: str) -> None:
    """Sections follow one another, with less than a page of zeros between them."""
    gap = section.offset - end
    if not 0 <= gap < PAGE or section.offset + section.size > size:
        raise FlexcError(f"is damaged: a section of kind {section.kind} lies where none can be", where=where)
    file.seek(end)
    if any(file.read(gap)):
        raise FlexcError(f"is damaged: the filling at {end:#x} is not zero", where=where)


def read_section(file: IO[bytes], section: Section, title: str, where: str) -> bytes:
    """Return the bytes of a section, its checksum verified."""
    file.seek(section.offset)
    data = file.read(section.size)
    if zlib.crc32(data) != section.crc:
        raise _damaged(title, where)
    return data


def check_section(file: IO[bytes], section: Section, title: str, where: str) -> None:
    """Verify the checksum of a section, a piece at a time."""
    crc = 0
    for piece in pieces(file, section.offset, section.size):
        crc = zlib.crc32(piece, crc)
    if crc != section.crc:
        raise _damaged(title, where)


def pieces(file: IO[bytes], offset: int, size: int) -> Iterator[bytes]:
    """Yield a stretch of a file in pieces that fit into memory."""
    file.seek(offset)
    while size > 0:
        piece = file.read(min(size, CHUNK))
        if not piece:
            return
        yield piece
        size -= len(piece)


def _damaged(title: str, where: str) -> FlexcError:
    return FlexcError(f"is damaged: section '{title}' does not match its checksum", where=where)

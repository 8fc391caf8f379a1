"""Bulk data of an assembly file: written in place, or named as a stretch of another file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..container import pieces
from ..errors import FlexcError
from ..streams import DTYPES

Bytes = npt.NDArray[np.uint8]

#: numpy's name of each element type; all are little-endian in memory.
NUMPY = {
    "i8": "<i1",
    "u8": "<u1",
    "i16": "<i2",
    "u16": "<u2",
    "i32": "<i4",
    "i64": "<i8",
    "f16": "<f2",
    "f32": "<f4",
    "b8": "<u1",
}
assert NUMPY.keys() == DTYPES.keys()

#: Bytes that one assembly file may write in place; more belongs into a file named by ``.data``.
INLINE_LIMIT = 1 << 30


@dataclass(frozen=True)
class FileBytes:
    """A stretch of a file."""

    path: Path
    offset: int
    size: int

    def map(self) -> Bytes:
        """Return the bytes, mapped into memory."""
        if not self.size:
            return np.zeros(0, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.offset, (self.size,)).view(np.ndarray)


class Data:
    """Bytes that grow at the end: of a memory, a blob or a segment's model."""

    def __init__(self) -> None:
        self.parts: list[Bytes | FileBytes] = []
        self.size = 0

    def add(self, part: Bytes | FileBytes) -> None:
        """Append bytes."""
        if isinstance(part, np.ndarray) and self.size + part.size > INLINE_LIMIT:
            raise FlexcError(f"more than {INLINE_LIMIT} bytes written in place", remedy="name a file with .data")
        if part.size:
            self.parts.append(part)
            self.size += part.size

    def zero(self, count: int) -> None:
        """Append zeros."""
        self.fill(count, 0)

    def fill(self, count: int, value: int) -> None:
        """Append one byte several times."""
        if not 0 <= count <= INLINE_LIMIT:
            raise FlexcError(f"{count} bytes cannot be filled; allowed: 0..{INLINE_LIMIT}")
        if not 0 <= value <= 255:
            raise FlexcError(f"{value} is not a byte; allowed: 0..255")
        self.add(np.full(count, value, np.uint8))

    def align(self, multiple: int) -> None:
        """Append zeros up to the next multiple."""
        if not 1 <= multiple <= INLINE_LIMIT:
            raise FlexcError(f"cannot align to {multiple}; allowed: 1..{INLINE_LIMIT}")
        self.zero(-self.size % multiple)


def numbers(dtype: str, values: list[int | float]) -> Bytes:
    """Return the bytes of numbers of an element type, or raise FlexcError where one does not fit."""
    kind = np.dtype(NUMPY[dtype])
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype(kind).view(np.uint8)
    low, high = (0, 1) if dtype == "b8" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    for value in values:
        if not isinstance(value, int) or not low <= value <= high:
            raise FlexcError(f"{value} is not of type {dtype}; allowed: {low}..{high}")
    return np.array(values, kind).view(np.uint8)


def bits(width: int, values: list[int | float]) -> Bytes:
    """Return whole numbers of ``width`` bits each, the first in the lowest bits, padded with zeros to whole bytes.

    Raises:
        FlexcError: ``width`` is not 1..16, or a number does not fit into it.
    """
    if not 1 <= width <= 16:
        raise FlexcError(f"{width} is no width in bits; allowed: 1..16")
    packed = 0
    for place, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < 1 << width:
            raise FlexcError(f"{value} does not fit into {width} bits; allowed: 0..{(1 << width) - 1}")
        packed |= value << (place * width)
    return np.frombuffer(packed.to_bytes(-(-len(values) * width // 8), "little"), np.uint8)


def file_bytes(path: Path, offset: int, size: int | None, crc: int | None) -> FileBytes:
    """Return a stretch of a file (``size`` None: up to its end) whose checksum was verified.

    Raises:
        FlexcError: the file is missing, shorter, or its bytes are not those that the checksum was made from.
    """
    if not path.is_file():
        raise FlexcError(f"data file {path} is missing")
    there = path.stat().st_size
    size = there - offset if size is None else size
    if offset < 0 or size < 0 or offset + size > there:
        raise FlexcError(f"data file {path} has {there} bytes, no {size} bytes from {offset}")
    if crc is not None and checksum(path, offset, size) != crc:
        raise FlexcError(f"data file {path} has changed: bytes {offset}..{offset + size} do not match their checksum")
    return FileBytes(path, offset, size)


def checksum(path: Path, offset: int, size: int) -> int:
    """Return the CRC-32 of a stretch of a file."""
    crc = 0
    try:
        with path.open("rb") as file:
            for piece in pieces(file, offset, size):
                crc = zlib.crc32(piece, crc)
    except OSError as error:
        raise FlexcError(f"data file {path} cannot be read: {error.strerror}") from None
    return crc


def joined(parts: Iterable[Bytes | FileBytes]) -> Bytes:
    """Return all bytes in one array: one map where they follow one another in one file, else a copy."""
    every = list(parts)
    files = [part for part in every if isinstance(part, FileBytes)]
    if files and len(files) == len(every) and _follow(files):
        return FileBytes(files[0].path, files[0].offset, sum(part.size for part in files)).map()
    arrays = [part.map() if isinstance(part, FileBytes) else part for part in every]
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.uint8)


def _follow(files: list[FileBytes]) -> bool:
    return all(one.path == other.path and one.offset + one.size == other.offset for one, other in pairwise(files))

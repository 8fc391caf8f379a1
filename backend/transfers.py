"""Transfers between DRAM and the buffer, laid out there so that the DRAM side is read and written in long runs."""

from __future__ import annotations

from collections.abc import Sequence

from ..isa.streams import Step, Stream
from .code import Pending, turned, window

#: DMA channels: what comes in and what goes out must not wait for each other.
IN_CHANNEL, OUT_CHANNEL = 0, 1


def bring(outside: Stream, address: int, turns: Sequence[Step] = ()) -> tuple[Pending, Stream]:
    """Return the transfer of a stream in DRAM to the buffer, and the stream on it there (same rows and columns)."""
    source, inside, seen = _pair(outside, address, turns)
    return Pending("copy", {"dst": inside, "src": source}, {"channel": IN_CHANNEL}), seen


def take(outside: Stream, address: int, turns: Sequence[Step] = ()) -> tuple[Pending, Stream]:
    """Return the transfer from the buffer to a stream in DRAM, and the stream to write in the buffer."""
    target, inside, seen = _pair(outside, address, turns)
    return Pending("copy", {"dst": target, "src": inside}, {"channel": OUT_CHANNEL}), seen


def _pair(outside: Stream, address: int, turns: Sequence[Step]) -> tuple[Stream, Stream, Stream]:
    """Return (DRAM side, buffer side, the vector unit's view): turned where DRAM has the rows next to each other."""
    by_column = outside.col_pitch != outside.itemsize and outside.row_pitch == outside.itemsize and outside.rows > 1
    side = turned(outside) if by_column else outside
    inside = window("buf", side.dtype, address, (side.rows, side.cols), None, turns)
    return side, inside, turned(inside) if by_column else inside

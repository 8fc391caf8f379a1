"""Operands that many instructions share: streams, loop levels, modes."""

from __future__ import annotations

from .fields import Choice, Float32, OptionalStream, Register
from .instruction import LEVELS, STREAMS
from .streams import DTYPES, SPACES


def stream(name: str, doc: str) -> Register:
    """Return an operand that names a stream."""
    return Register(name, 6, doc, positional=True, prefix="s", count=STREAMS)


def level(name: str, doc: str) -> Register:
    """Return an operand that names a loop level."""
    return Register(name, 3, doc, positional=True, prefix="L", count=LEVELS)


SPACE = Choice("space", 3, "memory", positional=True, words=SPACES)
DTYPE = Choice("dtype", 4, "element type", positional=True, words=tuple(DTYPES))
CHANNEL = Register("channel", 1, "DMA channel", positional=True, prefix="ch", count=2)
DST = stream("dst", "where the result goes")
A = stream("a", "first operand")
MODE = Choice(
    "mode",
    2,
    "overwrite, add, or overwrite in iteration 0 of loop `level` and add after",
    default="clear",
    words=("clear", "add", "first"),
)
LEVEL = Register("level", 3, "the loop that mode=first looks at", default=0, prefix="L", count=LEVELS)
IMM = Float32("imm", 32, "the operand where no stream is named", default=0.0)
OPTIONAL_A = OptionalStream("a", 7, "first operand; `imm` where left out", default=-1, count=STREAMS)
OPTIONAL_B = OptionalStream("b", 7, "second operand; `imm` where left out", default=-1, count=STREAMS)

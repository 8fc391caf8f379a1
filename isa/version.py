"""Which instruction set this is: a number for people, and a digest of the table that a program file must match."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import cache

from .fields import Field
from .table import TABLE

#: Raised whenever the meaning of a word changes in a way that the digest does not show.
ISA_VERSION = 1


_WORDS = ("doc", "unit")  # what only people read


def _field_text(field: Field, low: int) -> str:
    facts = {each.name: getattr(field, each.name) for each in fields(field) if each.name not in _WORDS}
    return f"{type(field).__name__} at {low}: {facts}"


@cache
def isa_digest() -> bytes:
    """Return 32 bytes that change whenever a word of code may mean something else.

    SHA-256 over the ISA version and, for every instruction, its mnemonic, opcode, engine and the place, kind, range
    and default of each field.
    """
    lines = [f"isa {ISA_VERSION}"]
    for each in sorted(TABLE, key=lambda entry: entry.opcode):
        layout = "; ".join(_field_text(field, low) for field, low in each.layout)
        lines.append(f"{each.opcode:#04x} {each.mnemonic} {each.engine} {layout}")
    return hashlib.sha256("\n".join(lines).encode()).digest()

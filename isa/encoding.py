"""Words to instructions and back."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import FlexcError
from .fields import FieldError, Value
from .instruction import OPCODE_BITS, WORD_BYTES, Instr
from .table import BY_MNEMONIC, BY_OPCODE

#: Code of more instructions is not read: loops keep programs far smaller, and memory is to stay bounded.
MOST_INSTRUCTIONS = 1 << 20


def instr(mnemonic: str, **values: Value) -> Instr:
    """Return an instruction of that name; fields not given take their default. Raises FieldError for a bad value."""
    spec = BY_MNEMONIC[mnemonic]
    unknown = values.keys() - {field.name for field in spec.fields}
    if unknown:
        raise TypeError(f"{mnemonic} has no operand {', '.join(sorted(unknown))}")
    full: dict[str, Value] = {}
    for field in spec.fields:
        value = values.get(field.name, field.default)
        if value is None:
            raise TypeError(f"{mnemonic} needs operand {field.name}")
        full[field.name] = value
        field.encode(value)
    return Instr(spec, full)


def fits(mnemonic: str, **values: Value) -> bool:
    """Return whether an instruction of that name has room for these values."""
    try:
        instr(mnemonic, **values)
    except FieldError:
        return False
    return True


def encode(instruction: Instr) -> bytes:
    """Return the word of an instruction, 16 bytes, little-endian."""
    bits, values = instruction.spec.opcode, instruction.values
    for name, low, silent, encoded in instruction.spec.bits:
        value = values[name]
        if value is not silent:
            bits |= encoded(value) << low
    return bits.to_bytes(WORD_BYTES, "little")


def decode(word: bytes) -> Instr:
    """Return the instruction of a word, or raise FlexcError where no instruction has these bits."""
    bits = int.from_bytes(word, "little")
    spec = BY_OPCODE.get(bits & ((1 << OPCODE_BITS) - 1))
    if spec is None:
        raise FlexcError(f"opcode {bits & 0xFF:#04x} is no instruction")
    if bits >> spec.used_bits:
        raise FlexcError(f"{spec.mnemonic}: bits from {spec.used_bits} up are not zero")
    values: dict[str, Value] = {name: read((bits >> low) & mask) for name, low, mask, read in spec.parts}
    return Instr(spec, values)


def encode_all(code: Iterable[Instr]) -> bytes:
    """Return the words of a program, one after the other."""
    return b"".join(encode(each) for each in code)


def decode_all(code: bytes) -> list[Instr]:
    """Return the instructions of a program's bytes; equal words become one object. An error names the offset."""
    if len(code) % WORD_BYTES:
        raise FlexcError(f"the code section has {len(code)} bytes, no multiple of {WORD_BYTES}")
    if len(code) > MOST_INSTRUCTIONS * WORD_BYTES:
        raise FlexcError(f"{len(code) // WORD_BYTES} instructions; at most {MOST_INSTRUCTIONS} are read")
    instructions = []
    known: dict[bytes, Instr] = {}
    for offset in range(0, len(code), WORD_BYTES):
        word = code[offset : offset + WORD_BYTES]
        if word not in known:
            try:
                known[word] = decode(word)
            except FlexcError as error:
                error.where = f"code offset {offset:#x}"
                raise
        instructions.append(known[word])
    return instructions

"""Operand fields: each kind owns its width, its legal range, its bits and its text."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TypeAlias

from .errors import FlexcError, did_you_mean

_FLOAT32 = struct.Struct("<f")

Value: TypeAlias = int | float | str | tuple[int, ...]


class FieldError(FlexcError):
    """An operand that its field does not allow; the message names the field and its range."""


@dataclass(frozen=True)
class Field:
    """One operand of an instruction.

    ``positional`` operands are written by place, the others as ``name=value``; those equal to ``default`` are left out.
    """

    name: str
    width: int
    doc: str
    unit: str = ""
    positional: bool = False
    default: Value | None = None

    def encode(self, value: Value) -> int:
        """Return the unsigned bits of a value, or raise :class:`FieldError`."""
        raise NotImplementedError

    def decode(self, bits: int) -> Value:
        """Return the value of unsigned bits, or raise :class:`FieldError` where no value has them."""
        raise NotImplementedError

    def format(self, value: Value) -> str:
        """Return the assembly text of a value."""
        return str(value)

    def parse(self, text: str) -> Value:
        """Return the value of assembly text, or raise :class:`FieldError`."""
        raise NotImplementedError

    def range_text(self) -> str:
        """Return the legal values, for messages and the manual."""
        raise NotImplementedError

    def refuse(self, shown: object) -> FieldError:
        """Return the error for a value outside the range."""
        return FieldError(f"{self.name}={shown} is out of range; allowed: {self.range_text()}")


@dataclass(frozen=True)
class Unsigned(Field):
    """A whole number from ``low`` to ``high`` (at most 2^width - 1)."""

    low: int = 0
    high: int | None = None
    hexadecimal: bool = False

    @property
    def top(self) -> int:
        """The largest legal value."""
        return (1 << self.width) - 1 if self.high is None else self.high

    def encode(self, value: Value) -> int:
        if not isinstance(value, int) or not self.low <= value <= self.top:
            raise self.refuse(value)
        return value

    def decode(self, bits: int) -> Value:
        if not self.low <= bits <= self.top:
            raise self.refuse(bits)
        return bits

    def format(self, value: Value) -> str:
        return f"{value:#x}" if self.hexadecimal else str(value)

    def parse(self, text: str) -> Value:
        value = parse_integer(text)
        if value is None or not self.low <= value <= self.top:
            raise self.refuse(text)
        return value

    def range_text(self) -> str:
        return f"{self.low}..{self.top}"


@dataclass(frozen=True)
class Signed(Field):
    """A whole number in two's complement."""

    def encode(self, value: Value) -> int:
        half = 1 << (self.width - 1)
        if not isinstance(value, int) or not -half <= value < half:
            raise self.refuse(value)
        return value & ((1 << self.width) - 1)

    def decode(self, bits: int) -> Value:
        return bits - (1 << self.width) if bits >> (self.width - 1) else bits

    def parse(self, text: str) -> Value:
        value = parse_integer(text)
        if value is None:
            raise self.refuse(text)
        self.encode(value)
        return value

    def range_text(self) -> str:
        return f"{-(1 << (self.width - 1))}..{(1 << (self.width - 1)) - 1}"


@dataclass(frozen=True)
class Float32(Field):
    """A single-precision number; written so that reading it back gives the same bits."""

    def encode(self, value: Value) -> int:
        if isinstance(value, tuple | str):
            raise self.refuse(value)
        try:
            return int.from_bytes(struct.pack("<f", value), "little")
        except (OverflowError, struct.error):
            raise self.refuse(value) from None

    def decode(self, bits: int) -> Value:
        (value,) = struct.unpack("<f", bits.to_bytes(4, "little"))
        if math.isnan(value) and bits != 0x7FC00000:
            raise self.refuse(f"NaN {bits:#x}")
        return float(value)

    def format(self, value: Value) -> str:
        if isinstance(value, int | float) and math.isfinite(value):
            bits = _FLOAT32.pack(value)
            for digits in (6, 7, 8):  # nine are always enough; most numbers were written with fewer
                short = float(format(value, f".{digits}g"))
                if _packs_to(short, bits):
                    return repr(short)
        return repr(value)

    def parse(self, text: str) -> Value:
        try:
            value = float(text)
            return self.decode(self.encode(value))
        except ValueError:
            raise self.refuse(text) from None

    def range_text(self) -> str:
        return "a float32 number, inf, -inf or nan"


@dataclass(frozen=True)
class Choice(Field):
    """One word of a fixed list; the bits are its place in the list."""

    words: tuple[str, ...] = ()

    def encode(self, value: Value) -> int:
        if value not in self.words:
            raise self.refuse(value)
        return self.words.index(str(value))

    def decode(self, bits: int) -> Value:
        if bits >= len(self.words):
            raise self.refuse(bits)
        return self.words[bits]

    def parse(self, text: str) -> Value:
        if text not in self.words:
            error = self.refuse(text)
            error.remedy = did_you_mean(text, self.words)
            raise error
        return text

    def range_text(self) -> str:
        return ", ".join(self.words)


@dataclass(frozen=True)
class Register(Field):
    """A numbered thing written with a prefix letter: stream ``s7``, loop level ``L2``, channel ``ch1``."""

    prefix: str = ""
    count: int = 0

    def encode(self, value: Value) -> int:
        if not isinstance(value, int) or not 0 <= value < self.count:
            raise self.refuse(self.format(value))
        return value

    def decode(self, bits: int) -> Value:
        if bits >= self.count:
            raise self.refuse(self.format(bits))
        return bits

    def format(self, value: Value) -> str:
        return f"{self.prefix}{value}"

    def parse(self, text: str) -> Value:
        digits = text.removeprefix(self.prefix)
        if digits == text or not digits.isascii() or not digits.isdigit():
            raise self.refuse(text)
        return self.decode(self.encode(int(digits)))

    def range_text(self) -> str:
        return f"{self.prefix}0..{self.prefix}{self.count - 1}"


@dataclass(frozen=True)
class OptionalStream(Field):
    """A stream that may be left out; no stream is 0, stream k is k + 1."""

    count: int = 0
    absent: int = -1

    def encode(self, value: Value) -> int:
        if not isinstance(value, int) or not -1 <= value < self.count:
            raise self.refuse(self.format(value))
        return value + 1

    def decode(self, bits: int) -> Value:
        if bits > self.count:
            raise self.refuse(self.format(bits - 1))
        return bits - 1

    def format(self, value: Value) -> str:
        return f"s{value}"

    def parse(self, text: str) -> Value:
        digits = text.removeprefix("s")
        if digits == text or not digits.isascii() or not digits.isdigit():
            raise self.refuse(text)
        return self.decode(self.encode(int(digits)))

    def range_text(self) -> str:
        return f"s0..s{self.count - 1}, or left out"


@dataclass(frozen=True)
class Tokens(Field):
    """Up to ``length`` different semaphores, written ``t1+t2``; unused places are 0 and come last."""

    length: int = 2
    count: int = 0

    @property
    def _each(self) -> int:
        return self.width // self.length

    def encode(self, value: Value) -> int:
        if value == ():
            return 0
        if not isinstance(value, tuple) or len(value) > self.length or len(set(value)) != len(value):
            raise self.refuse(self.format(value))
        if any(not 1 <= token < self.count for token in value):
            raise self.refuse(self.format(value))
        return sum(token << (self._each * place) for place, token in enumerate(value))

    def decode(self, bits: int) -> Value:
        if not bits:
            return ()
        mask = (1 << self._each) - 1
        places = [(bits >> (self._each * place)) & mask for place in range(self.length)]
        tokens = tuple(token for token in places if token)
        if self.encode(tokens) != bits:
            raise self.refuse(f"{bits:#x}")
        return tokens

    def format(self, value: Value) -> str:
        return "+".join(f"t{token}" for token in value) if isinstance(value, tuple) else str(value)

    def parse(self, text: str) -> Value:
        words = text.split("+")
        if any(not word[1:].isascii() or not word[1:].isdigit() or word[0] != "t" for word in words):
            raise self.refuse(text)
        return self.decode(self.encode(tuple(int(word[1:]) for word in words)))

    def range_text(self) -> str:
        one = f"t1..t{self.count - 1}"
        return one if self.length == 1 else f"up to {self.length} different of {one}, joined by +"


def _packs_to(value: float, bits: bytes) -> bool:
    try:
        return _FLOAT32.pack(value) == bits
    except OverflowError:  # the greatest float32, rounded up
        return False


def parse_integer(text: str) -> int | None:
    """Return the value of a decimal, hexadecimal (0x) or binary (0b) number, or None."""
    try:
        return int(text, 0)
    except ValueError:
        return None

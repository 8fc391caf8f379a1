"""What a field of a machine description is: its meaning, unit and legal values, stated once, beside the field.

The checked loader, the writer and the table in ``docs/machine.md`` all read these statements.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """One field: what it means, in which unit, and where its default figure comes from."""

    doc: str
    unit: str = ""
    source: str = "own"

    def read(self, value: object) -> object:
        """Return the value as the machine holds it.

        Raises:
            ValueError: it is of the wrong type or out of range; the text ends the sentence "``key = value`` ...".
        """
        raise NotImplementedError

    def allowed(self) -> str:
        """The legal values, for a reader."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(Spec):
    """A whole number within bounds, both included."""

    low: int = 1
    high: int = 2**63 - 1

    def read(self, value: object) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            raise ValueError(f"must be written as a whole number: {int(value)}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("is not a whole number")
        if not self.low <= value <= self.high:
            raise ValueError(f"is out of range; allowed: {self.allowed()}")
        return value

    def allowed(self) -> str:
        return f">= {self.low}" if self.high == 2**63 - 1 else f"{self.low} to {self.high}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity(Spec):
    """A finite real number, not below zero; zero itself only where it makes sense."""

    zero: bool = True

    def read(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("is not a number")
        number = float(value) if abs(value) < 1e300 else math.inf
        if not math.isfinite(number) or number < 0 or (number == 0 and not self.zero):
            raise ValueError(f"is out of range; allowed: {self.allowed()}")
        return number

    def allowed(self) -> str:
        return ">= 0" if self.zero else "> 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag(Spec):
    """Yes or no."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError("is neither true nor false")
        return value

    def allowed(self) -> str:
        return "true, false"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice(Spec):
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"is not known; allowed: {self.allowed()}")
        return value

    def allowed(self) -> str:
        return ", ".join(self.words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset(Spec):
    """Some of a few whole numbers, at least one, in rising order."""

    numbers: tuple[int, ...]

    def read(self, value: object) -> tuple[int, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"is not a list of some of {self.allowed()}")
        if any(type(each) is not int or each not in self.numbers for each in value):
            raise ValueError(f"holds something else than {self.allowed()}")
        if value != sorted(set(value)):
            raise ValueError("is not in rising order, each number once")
        return tuple(value)

    def allowed(self) -> str:
        return ", ".join(map(str, self.numbers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Spec):
    """One line of text that a pattern accepts."""

    pattern: str = r".*"
    says: str = "one line of printable text"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(self.pattern, value):
            raise ValueError(f"is not {self.says}")
        return value

    def allowed(self) -> str:
        return self.says


def stated(spec: Spec) -> Any:  # Any: a dataclass field's declared type is the reader's, this is only its statement
    """Return a dataclass field that carries its statement."""
    return dataclasses.field(metadata={"spec": spec})


def count(doc: str, unit: str = "", *, low: int = 1, high: int = 2**63 - 1, source: str = "own") -> Any:
    """State a whole number."""
    return stated(Count(doc=doc, unit=unit, low=low, high=high, source=source))


def quantity(doc: str, unit: str = "", *, zero: bool = True, source: str = "own") -> Any:
    """State a real number."""
    return stated(Quantity(doc=doc, unit=unit, zero=zero, source=source))


def specs(section: type) -> Iterator[tuple[str, Spec]]:
    """Every stated field of a section, in order: its name and its statement."""
    for field in dataclasses.fields(section):
        if "spec" in field.metadata:
            yield field.name, field.metadata["spec"]

"""Shapes of assembly statements: a word and its operands as expression trees, without their numbers and names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..errors import FlexcError


class SyntaxFault(FlexcError):
    """A statement that cannot be read; ``place`` is where in its shape."""

    def __init__(self, message: str, place: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.place = place


@dataclass(frozen=True, slots=True)
class Atom:
    """The number, text or name that has this place among the atoms of a line."""

    index: int
    place: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator with one or two operands."""

    operator: str
    parts: tuple[Node, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """A bracketed list."""

    items: tuple[Node, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Object:
    """A braced list of name=value."""

    items: tuple[Keyword, ...]
    place: int


Node: TypeAlias = Atom | Operation | Sequence | Object


@dataclass(frozen=True, slots=True)
class Keyword:
    """One ``name=value``."""

    name: str
    value: Node
    place: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A parsed statement."""

    word: str
    positionals: tuple[Node, ...]
    keywords: tuple[Keyword, ...]
    length: int


def parse_shape(text: str) -> Shape:
    """Return the parsed form of a shape, or raise :class:`SyntaxFault` that says what was expected."""
    from .grammar import parse  # lark costs 0.1 s: only who assembles pays for it

    return parse(text)

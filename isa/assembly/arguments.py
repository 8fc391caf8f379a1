"""Operands of a directive: numbers, texts, lists and whole records (tensors, ops, taps) read from a statement."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import FlexcError, did_you_mean
from ..records import from_record
from .expressions import Symbols, evaluate
from .lines import read_text
from .shapes import Atom, Keyword, Node, Object, Operation, Sequence, Shape, SyntaxFault

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The operands of one directive."""

    shape: Shape
    atoms: list[str]
    symbols: Symbols

    @property
    def count(self) -> int:
        """Number of operands by place."""
        return len(self.shape.positionals)

    def only(self, places: int, *names: str) -> None:
        """Raise :class:`SyntaxFault` when there are more operands by place, or others by name, than these."""
        if self.count > places:
            raise SyntaxFault("nothing more belongs here", self.shape.positionals[places].place)
        for keyword in self.shape.keywords:
            if keyword.name not in names:
                raise SyntaxFault(
                    f"{self.shape.word} has no operand '{keyword.name}'",
                    keyword.place,
                    did_you_mean(keyword.name, names),
                )

    def node(self, place: int) -> Node:
        """Return the operand at a place, or raise :class:`SyntaxFault`."""
        if place >= self.count:
            raise SyntaxFault(f"{self.shape.word} needs more operands", self.shape.length)
        return self.shape.positionals[place]

    def number(self, place: int) -> int | float:
        """Return a number by place."""
        return evaluate(self.node(place), self.atoms, self.symbols)

    def integer(self, place: int) -> int:
        """Return a whole number by place."""
        return _whole(self.number(place), self.node(place).place)

    def text(self, place: int) -> str:
        """Return a name or a quoted text by place."""
        return self._text(self.node(place))

    def keyword(self, name: str) -> Keyword | None:
        """Return an operand by name, or None."""
        return next((each for each in self.shape.keywords if each.name == name), None)

    def named_integer(self, name: str) -> int | None:
        """Return a whole number by name, or None."""
        found = self.keyword(name)
        return None if found is None else _whole(evaluate(found.value, self.atoms, self.symbols), found.place)

    def named_text(self, name: str) -> str | None:
        """Return a text by name, or None."""
        found = self.keyword(name)
        return None if found is None else self._text(found.value)

    def record(self, cls: type[Record], **known: object) -> Record:
        """Return the dataclass that the operands by name describe, with the fields already known.

        Raises:
            SyntaxFault: a field is unknown, missing, or not of its type.
        """
        hints = get_type_hints(cls)
        values = self._fields(self.shape.keywords, hints, cls.__name__)
        try:
            return from_record(cls, values | known, self.shape.word)
        except FlexcError as error:
            raise SyntaxFault(error.message, self.shape.length, error.remedy) from None

    def _fields(self, keywords: tuple[Keyword, ...], hints: dict[str, Any], title: str) -> dict[str, object]:
        values: dict[str, object] = {}
        for keyword in keywords:
            if keyword.name not in hints or keyword.name in values:
                problem = "given twice" if keyword.name in values else f"no field of a {title.lower()}"
                remedy = did_you_mean(keyword.name, list(hints))
                raise SyntaxFault(f"'{keyword.name}' is {problem}", keyword.place, remedy)
            values[keyword.name] = self._value(keyword.value, hints[keyword.name], keyword.place)
        return values

    def _value(self, node: Node, hint: Any, place: int) -> object:
        if hint is int:
            return _whole(evaluate(node, self.atoms, self.symbols), place)
        if hint is str:
            return self._text(node)
        if get_origin(hint) is tuple and isinstance(node, Sequence):
            return [self._value(item, get_args(hint)[0], place) for item in node.items]
        if is_dataclass(hint) and isinstance(hint, type) and isinstance(node, Object):
            return self._fields(node.items, get_type_hints(hint), hint.__name__)
        raise SyntaxFault(
            "a [list] is expected" if get_origin(hint) is tuple else "{name=value ...} is expected", place
        )

    def _text(self, node: Node) -> str:
        if isinstance(node, Atom):
            text = self.atoms[node.index]
            try:
                return read_text(text) if text[0] == '"' else text
            except FlexcError as error:
                raise SyntaxFault(error.message, node.place) from None
        place = node.parts[0].place if isinstance(node, Operation) else node.place
        raise SyntaxFault('a name or a "text" is expected', place)


def _whole(value: int | float, place: int) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int):
        raise SyntaxFault(f"{value} is not a whole number", place)
    return value

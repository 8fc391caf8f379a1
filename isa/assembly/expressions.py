"""Values of assembly expressions: numbers, symbols, machine fields, addresses of tensors."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from ..errors import did_you_mean
from ..fields import parse_integer
from .lines import read_text
from .shapes import Atom, Node, Operation, SyntaxFault

if TYPE_CHECKING:
    from ..machine import Machine

Number: TypeAlias = int | float

#: Results and intermediate results beyond this are refused: no field holds them.
_LIMIT = 1 << 64
_SHIFT_LIMIT = 64
_CONSTANTS: Mapping[str, float] = {"inf": float("inf"), "nan": float("nan")}


def _divide(a: Number, b: Number) -> Number:
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b


_BINARY: Mapping[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": operator.mod,
}


class Symbols:
    """What names stand for: ``.equ`` symbols and labels, resolved when asked; tensors; fields of the machine."""

    def __init__(self) -> None:
        self._known: dict[str, Number | Callable[[], Number]] = {}
        self._working: set[str] = set()
        self._machine: dict[str, Number] = {}

    def define(self, name: str, value: Number | Callable[[], Number]) -> bool:
        """Give a name its value, or a way to find it; false when the name has one already."""
        if name in self._known:
            return False
        self._known[name] = value
        return True

    def use_machine(self, machine: Machine) -> None:
        """Let ``machine.section.field`` stand for the fields of this machine that are numbers."""
        for section in dataclasses.fields(machine):
            values = getattr(machine, section.name)
            for name, value in vars(values).items() if dataclasses.is_dataclass(values) else ():
                if isinstance(value, int | float):
                    self._machine[f"machine.{section.name}.{name}"] = value

    def value(self, name: str, place: int) -> Number:
        """Return what a name stands for, or raise :class:`SyntaxFault`."""
        if name in self._known:
            return self._resolve(name, place)
        if name in self._machine:
            return self._machine[name]
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        remedy = did_you_mean(name, [*self._known, *self._machine])
        if name.startswith("machine.") and not self._machine:
            remedy = "name the machine with .target"
        raise SyntaxFault(f"unknown symbol '{name}'", place, remedy)

    def check(self, name: str, place: int) -> None:
        """Raise :class:`SyntaxFault` where a symbol that was defined has no value."""
        self._resolve(name, place, own=True)

    def _resolve(self, name: str, place: int, *, own: bool = False) -> Number:
        """Find a symbol's value; ``place`` is where it is used or, with ``own``, lies in what defines it."""
        value = self._known[name]
        if not callable(value):
            return value
        if name in self._working:
            raise SyntaxFault(f"symbol '{name}' is defined by itself", place)
        self._working.add(name)
        try:
            number = value()
        except SyntaxFault as fault:
            if own or len(self._working) > 1:
                raise
            raise SyntaxFault(f"symbol '{name}' has no value: {fault.message}", place, fault.remedy) from None
        finally:
            self._working.discard(name)
        self._known[name] = number
        return number


def evaluate(node: Node, atoms: list[str], symbols: Symbols) -> Number:
    """Return the number that an expression stands for. ``/`` between whole numbers rounds down.

    Raises:
        SyntaxFault: an unknown symbol, a list where a number belongs, a division by zero, a number beyond 64 bits.
    """
    if isinstance(node, Atom):
        return _atom(atoms[node.index], node.place, symbols)
    if not isinstance(node, Operation):
        raise SyntaxFault("a number is expected here", node.place)
    parts = [evaluate(part, atoms, symbols) for part in node.parts]
    try:
        value = _apply(node, parts)
    except (ZeroDivisionError, OverflowError):
        raise SyntaxFault(f"{node.operator} by zero or too large", node.place) from None
    if isinstance(value, int) and abs(value) > _LIMIT:
        raise SyntaxFault("the result does not fit into 64 bits", node.place)
    return value


def _apply(node: Operation, parts: list[Number]) -> Number:
    if len(parts) == 1:
        return -parts[0] if node.operator == "-" else parts[0]
    left, right = parts
    if node.operator in _BINARY:
        return _BINARY[node.operator](left, right)
    if not isinstance(left, int) or not isinstance(right, int) or not 0 <= right <= _SHIFT_LIMIT:
        raise SyntaxFault(f"{node.operator} needs whole numbers, and 0..{_SHIFT_LIMIT} on its right", node.place)
    return left << right if node.operator == "<<" else left >> right


def _atom(text: str, place: int, symbols: Symbols) -> Number:
    if text[0] == '"':
        return symbols.value(read_text(text), place)
    if not text[0].isdigit():
        return symbols.value(text, place)
    value = parse_integer(text) if len(text) < _LIMIT.bit_length() + 3 else None
    if value is not None:
        return value
    try:
        return float(text)
    except ValueError:
        raise SyntaxFault(f"{text} is not a number", place) from None

"""Names of dynamic dims: symbols such as ``seq``, and what exporters derive from them, such as ``past + seq``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_LONGEST = 256  # characters: exporters write a few symbols, never more


@dataclass(frozen=True)
class Name:
    """A dim's name as the model writes it, and the symbols in it: one, or several where it is derived from others."""

    text: str
    symbols: tuple[str, ...]

    @property
    def derived(self) -> bool:
        """Whether it is more than one symbol alone."""
        return self.symbols != (self.text,)

    def value(self, known: Mapping[str, int]) -> int | None:
        """Return the number it stands for, or None where a symbol is not known or the number does not exist."""
        if self.text in known:
            return known[self.text]
        try:
            return _evaluate(_parse(self.text), known) if self.derived else None
        except (KeyError, ZeroDivisionError):
            return None

    def solve(self, number: int, known: Mapping[str, int]) -> tuple[str, int] | None:
        """Return (symbol, value) that makes it that number, where just one symbol is unknown and a sum tells it."""
        unknown = [symbol for symbol in self.symbols if symbol not in known]
        if len(unknown) != 1:
            return None
        zero, one, two = (self.value({**known, unknown[0]: guess}) for guess in (0, 1, 2))
        if zero is None or one is None or two is None or two - one != one - zero or one == zero:
            return None
        value, rest = divmod(number - zero, one - zero)
        return None if rest else (unknown[0], value)


@lru_cache(maxsize=4096)
def parse(text: str) -> Name:
    """Return a name; one that is no formula of symbols (``+ - * // %``, whole numbers) is a symbol as a whole."""
    node = _parse(text)
    symbols = sorted({each.id for each in ast.walk(node) if isinstance(each, ast.Name)}) if node else []
    return Name(text, tuple(symbols) or (text,))


def _parse(text: str) -> ast.expr | None:
    if len(text) > _LONGEST:
        return None
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return node if _is_formula(node) else None


def _is_formula(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return type(node.op) in _OPERATIONS and _is_formula(node.left) and _is_formula(node.right)
    return isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and type(node.value) is int)


def _evaluate(node: ast.expr | None, known: Mapping[str, int]) -> int:
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.left, known), _evaluate(node.right, known))
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        return node.value
    assert isinstance(node, ast.Name)
    return known[node.id]

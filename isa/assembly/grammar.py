"""The lark grammar of assembly statements: text of a shape to its tree. Imported when something is assembled."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeAlias

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from .shapes import Atom, Keyword, Node, Object, Operation, Sequence, Shape, SyntaxFault

Part: TypeAlias = Tree[Token] | Token

#: How a message calls the grammar's terminals; operators are named only where no value may stand.
_NAMES = {
    "WORD": "an instruction or directive",
    "KEY": "name=value",
    "NAME": "a value",
    "NUMBER": "a value",
    "COMMA": "','",
    "RPAR": "')'",
    "RSQB": "']'",
    "RBRACE": "'}'",
    "TIMES": "an operator",
    "SHIFT": "an operator",
    "$END": "the end of the line",
}
_FOUND = {"0": "number", "x": "name", '"': "text"}
_ATOMS = ("NUMBER", "NAME", "TEXT")
#: Operators and brackets in one another; more are refused, so that no text can exhaust the stack.
_DEPTH = 100


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, start="statement", parser="lalr", propagate_positions=True)


def parse(text: str) -> Shape:
    """Return the parsed form of a shape, or raise :class:`SyntaxFault` that says what was expected."""
    if _depth(text) > _DEPTH:
        raise SyntaxFault(f"more than {_DEPTH} operators and brackets in one another", 0)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _fault(error, text) from None
    return _Builder(tree).shape(len(text))


def _depth(text: str) -> int:
    """Return a bound on the depth of the tree: brackets, and the operators before them and since the last comma."""
    outer: list[int] = []
    depth = deepest = 0
    for each in text:
        if each in "([{":
            outer.append(depth)
            depth += 1
        elif each in ")]}":
            depth = outer.pop() if outer else 0
        elif each in ",=":
            depth = outer[-1] + 1 if outer else 0
        elif each in "+-*/%<>":
            depth += 1
        deepest = max(deepest, depth)
    return deepest


def _fault(error: UnexpectedInput, text: str) -> SyntaxFault:
    at: int | None = getattr(error, "pos_in_stream", None)
    place = len(text) if at is None or at < 0 else at
    wanted: set[str] = set()
    if isinstance(error, UnexpectedToken):
        wanted = set(error.accepts or error.expected)
        place = len(text) if error.token.type == "$END" else place
    elif isinstance(error, UnexpectedCharacters):
        wanted = set(error.allowed or ())
    expected = " or ".join(sorted({_NAMES[each] for each in wanted if each in _NAMES}))
    found = "the line ends" if place >= len(text) else f"unexpected {_FOUND.get(text[place], repr(text[place]))}"
    return SyntaxFault(f"{found}; expected {expected}" if expected else found, place)


class _Builder:
    """Turns lark's tree into nodes that know their atoms' places."""

    def __init__(self, tree: Tree[Token]) -> None:
        self.tree = tree
        tokens = tree.scan_values(lambda token: isinstance(token, Token) and token.type in _ATOMS)
        self.index = {place: index for index, place in enumerate(sorted(map(_place, tokens)))}

    def shape(self, length: int) -> Shape:
        """Return the whole statement."""
        word, *rest = self.tree.children
        positionals, keywords = self._arguments(rest)
        return Shape(str(word), positionals, keywords, length)

    def _arguments(self, parts: list[Part]) -> tuple[tuple[Node, ...], tuple[Keyword, ...]]:
        """Flatten the left-recursive lists of operands."""
        positionals: list[Node] = []
        keywords: list[Keyword] = []
        pending = parts[::-1]
        while pending:
            part = pending.pop()
            if isinstance(part, Tree) and part.data in ("positionals", "keywords"):
                pending += reversed(part.children)
            elif isinstance(part, Tree) and part.data == "keyword":
                key, value = part.children
                keywords.append(Keyword(str(key).rstrip("= \t"), self._node(value), _place(key)))
            else:
                positionals.append(self._node(part))
        return tuple(positionals), tuple(keywords)

    def _node(self, part: Part) -> Node:
        if isinstance(part, Token):
            return Atom(self.index[_place(part)], _place(part))
        if part.data in ("binary", "unary"):
            tokens = [each for each in part.children if isinstance(each, Token) and each.type not in _ATOMS]
            parts = tuple(self._node(each) for each in part.children if each is not tokens[0])
            return Operation(str(tokens[0]), parts, _place(tokens[0]))
        positionals, keywords = self._arguments(part.children)
        return Object(keywords, _place(part)) if part.data == "object" else Sequence(positionals, _place(part))


def _place(part: Part) -> int:
    where = part.start_pos if isinstance(part, Token) else getattr(part.meta, "start_pos", 0)
    return where or 0

"""Lines of assembly text: what a listing adds is taken off, and numbers, texts and names become placeholders.

Two lines that differ only in those have one *shape*, and a shape is parsed once. So a file of 100,000 lines costs the
grammar a few hundred parses.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ..errors import FlexcError

#: What a listing puts before an instruction: its offset and its bytes. Ignored on input.
_LISTED = re.compile(r"\s*0[0-9a-f]{7,}:(?:\s+(?:[0-9a-f]{8}\s+){3}[0-9a-f]{8})?(?=\s|$)")
_TEXT = r'"(?:[^"\\]|\\.)*"'
_LABEL = re.compile(rf"\s*([A-Za-z_][\w.]*|{_TEXT})\s*:")
_TOKEN = re.compile(
    rf"(?P<text>{_TEXT})"
    r"|(?P<word>[A-Za-z_.$][\w.$]*)(?P<key>\s*=)?"
    r"|(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
    r"|(?P<comment>[;#].*)"
)
_PLACEHOLDERS = {"text": '""', "word": "x", "number": "0"}
_SHOWN = 160


@dataclass(slots=True)
class Line:
    """One line: its label, and its statement as a shape with the atoms (numbers, texts, names) taken out of it."""

    number: int
    text: str
    label: str | None
    start: int
    shape: str
    atoms: list[str]


def split(text: str, number: int) -> Line:
    """Take a line apart."""
    start, label = 0, None
    listed = _LISTED.match(text)
    if listed:
        start = listed.end()
    labelled = _LABEL.match(text, start)
    if labelled:
        label = read_text(labelled[1]) if labelled[1][0] == '"' else labelled[1]
        start = labelled.end()
    body = text[start:].lstrip()
    start = len(text) - len(body)
    shape, atoms = normalise(body)
    return Line(number, text, label, start, shape, atoms)


def normalise(body: str) -> tuple[str, list[str]]:
    """Return the shape of a statement and its atoms."""
    atoms: list[str] = []

    def replace(found: re.Match[str]) -> str:
        placeholder = _placeholder(found)
        if placeholder is None:
            return found[0]
        if placeholder:
            atoms.append(found[0])
        return placeholder

    return _TOKEN.sub(replace, body).rstrip(), atoms


def _placeholder(found: re.Match[str]) -> str | None:
    """Return what stands for a token in the shape; None where the token itself does, empty for a comment."""
    kind = found.lastgroup
    if kind == "key" or (kind == "word" and not found.start()):
        return None
    return _PLACEHOLDERS.get(str(kind), "")


def read_text(quoted: str) -> str:
    """Return the value of a quoted text (written as in JSON), or raise FlexcError."""
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise FlexcError(f"{quoted} is not a text as JSON writes it") from None


def original_column(line: Line, place: int) -> int:
    """Return the column (from 0) in the line's text of a place in its shape."""
    body, made, last = line.text[line.start :], 0, 0
    for found in _TOKEN.finditer(body):
        made += found.start() - last
        if place < made:
            return line.start + found.start() - (made - place)
        placeholder = _placeholder(found)
        length = len(found[0] if placeholder is None else placeholder)
        if place < made + length:
            return line.start + found.start() + (place - made if placeholder is None else 0)
        made, last = made + length, found.end()
    return line.start + last + place - made


def caret(text: str, column: int) -> str:
    """Return a line of source, cut to a sensible length, and below it a caret at the column (from 0)."""
    first = max(0, column - _SHOWN // 2) if len(text) > _SHOWN else 0
    shown = text[first : first + _SHOWN]
    blank = "".join("\t" if each == "\t" else " " for each in shown[: column - first])
    return f"    {shown}\n    {blank}^"

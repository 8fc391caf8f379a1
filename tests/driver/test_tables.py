"""Tables and numbers for people."""

from __future__ import annotations

import io
import sys

import pytest

from flexc import tables
from flexc.tables import Facts, Part, Table, plain, show

PARTS: list[Part] = [
    Facts([("a", "one"), ("longer", "two [b]")]),
    Table("Things", ("name", ">count"), [("x", "1"), ("yy", "22")]),
]


class Terminal(io.StringIO):
    """Standard output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_text() -> None:
    assert plain(PARTS) == "a       one\nlonger  two [b]\n\nThings:\n  name  count\n  x         1\n  yy       22\n"


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_colours_only_on_a_terminal_that_wants_them(
    no_color: str, escapes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    show(PARTS)
    assert ("\x1b[" in terminal.getvalue()) == escapes
    assert "two [b]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (tables.count(16797360), "16 797 360"),
        (tables.size(999), "999 B"),
        (tables.size(26.2e6), "26.2 MB"),
        (tables.size(3.2e12), "3.2 TB"),
        (tables.duration(0.0335), "33.5 ms"),
        (tables.duration(2e-9), "2 ns"),
        (tables.energy(21.3e9), "21.3 mJ"),
        (tables.energy(12), "12 pJ"),
        (tables.percent(0.125), "12.5 %"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected

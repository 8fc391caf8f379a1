"""Tables and facts for people: rich on a terminal, aligned plain text anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; columns whose name starts with ``>`` are numbers and stand to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=tuple)


@dataclass(frozen=True)
class Facts:
    """Names with what is to be said of them, one a line."""

    rows: Sequence[tuple[str, str]]


Part = Table | Facts | str


def show(parts: Iterable[Part]) -> None:
    """Print on stdout; colours and lines only where that is a terminal and ``NO_COLOR`` is not set."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        _show_rich(parts)
    else:
        sys.stdout.write(plain(parts))


def plain(parts: Iterable[Part]) -> str:
    """Return the parts as plain text, one empty line before each table."""
    return "".join(line.rstrip() + "\n" for part in parts for line in _plain(part))


def _plain(part: Part) -> list[str]:
    if isinstance(part, str):
        return [part]
    if isinstance(part, Facts):
        width = max((len(name) for name, _ in part.rows), default=0)
        return [f"{name:<{width}}  {text}" for name, text in part.rows]
    names = [name.removeprefix(">") for name in part.columns]
    widths = [max(len(cell) for cell in column) for column in zip(names, *part.rows, strict=True)]
    return ["", f"{part.title}:", *(_aligned(row, widths, part.columns) for row in (names, *part.rows))]


def _aligned(row: Sequence[str], widths: Sequence[int], columns: Sequence[str]) -> str:
    cells = zip(row, widths, columns, strict=True)
    return "  " + "  ".join(f"{cell:{'>' if name.startswith('>') else '<'}{width}}" for cell, width, name in cells)


def _show_rich(parts: Iterable[Part]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for part in parts:
        if isinstance(part, str):
            console.print(escape(part), style=_style(part))
        elif isinstance(part, Facts):
            width = max((len(name) for name, _ in part.rows), default=0)
            for name, text in part.rows:
                console.print(f"[bold]{escape(name):<{width}}[/]  {escape(text)}", soft_wrap=True)
        else:
            _rich_table(console.print, part)


def _style(line: str) -> str | None:
    return {"PASS": "bold green", "FAIL": "bold red"}.get(line.partition(" ")[0].rstrip(":"))


def _rich_table(printer: object, part: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as RichTable

    assert callable(printer)
    table = RichTable(title=escape(part.title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for place, name in enumerate(part.columns):
        inner = 0 < place < len(part.columns) - 1  # names at the start and words at the end may break
        table.add_column(escape(name.removeprefix(">")), no_wrap=inner, overflow="fold")
        if name.startswith(">"):
            table.columns[place].justify = "right"
    for row in part.rows:
        table.add_row(*map(escape, row))
    printer(table)


def count(number: float) -> str:
    """Return a whole number with thin groups: 16 797 360."""
    return f"{round(number):,}".replace(",", " ")


def counted(number: int, noun: str) -> str:
    """Return so many things: 1 window, 2 windows."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def size(bytes_: float) -> str:
    """Return a size: 26.2 MB (10^6 bytes)."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.1f} {unit}"
    return f"{round(bytes_)} B"


def duration(seconds: float) -> str:
    """Return a time: 33.6 ms."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def energy(picojoules: float) -> str:
    """Return an energy: 12.3 mJ."""
    for unit, factor in (("J", 1e12), ("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if picojoules >= factor:
            return f"{picojoules / factor:.3g} {unit}"
    return f"{picojoules:.3g} pJ"


def percent(share: float) -> str:
    """Return a share: 12.3 %."""
    return f"{100 * share:.1f} %"

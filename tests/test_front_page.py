"""The front page names every command and leads to every page; no page links to what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flexc.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]


def test_every_command_is_named() -> None:
    table = "".join(line for line in README.splitlines() if line.startswith("| `flexc "))
    assert [name for name in COMMANDS if f"`flexc {name} " not in table] == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_is_linked(page: Path) -> None:
    assert f"]({page.relative_to(ROOT).as_posix()})" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []

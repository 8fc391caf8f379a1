"""The manual says what the table says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flexc.isa.assembly.assembler import assemble
from flexc.isa.assembly.directives import BY_NAME
from flexc.isa.errors import FlexcError
from flexc.isa.manual import PAGES, PARTS, describe, overview, renewed
from flexc.isa.table import TABLE
from flexc.isa.verifier import verify


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_current(page: str, root: Path, golden: Callable[[str, str], None]) -> None:
    golden(page, renewed((root / page).read_text(encoding="utf-8")))


def test_every_generated_part_is_in_a_page(root: Path) -> None:
    text = "".join((root / page).read_text(encoding="utf-8") for page in PAGES)
    for name in PARTS:
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- end of {name} -->") == 1


def test_every_instruction_and_directive_has_its_entry(root: Path) -> None:
    manual = (root / "docs/isa.md").read_text(encoding="utf-8")
    assembly = (root / "docs/assembly.md").read_text(encoding="utf-8")
    for each in TABLE:
        assert f"\n### {each.mnemonic}\n" in manual
        assert f"  {each.mnemonic} " in overview()
    for name in BY_NAME:
        assert f"| `{name}" in assembly


def test_describe_one_instruction() -> None:
    lines = describe("lda").split("\n")
    assert lines[0] == "lda - opcode 0x21, engine array"
    assert "  lda ACT [wait=WAIT] [post=POST]" in lines
    assert lines[-2:] == ["Reads: act", "Takes: settle_cycles"]


def test_an_unknown_instruction_is_refused() -> None:
    with pytest.raises(FlexcError, match=r"no instruction 'ldx'\nhelp: did you mean 'lda'\?|no instruction 'ldx'"):
        describe("ldx")


def test_the_example_in_the_manual_assembles_and_is_safe(root: Path) -> None:
    text = (root / "docs/assembly.md").read_text(encoding="utf-8")
    example = text.split("```asm\n")[1].split("```")[0]
    assert verify(assemble(example)) == []

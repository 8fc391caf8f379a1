"""The reference manual, written from the instruction table, the file format's declarations and the directives.

``python -m flexc.isa.manual`` renews the generated parts of ``docs/isa.md``, ``docs/object-format.md`` and
``docs/assembly.md`` below the working directory.
"""

from __future__ import annotations

import struct
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .container import ENTRY, FORMAT_VERSION, HEADER
from .errors import UsageError, did_you_mean
from .fields import Field
from .instruction import OPCODE_BITS, POST, WAIT, WORD_BITS, Instruction
from .table import ARRAY, BY_MNEMONIC, CONTROL, HOST, MOVES, TABLE, VECTOR

_GROUPS = (
    ("Control", "Carried out by control itself, in no time of their own beyond their issue.", CONTROL),
    ("Moving data", "Between DRAM and the buffer, and synchronisation.", MOVES),
    ("Macro array", "Writing weights, feeding activations, multiplying, accumulating.", ARRAY),
    ("Vector unit", "Element by element on the buffer and the accumulators, in IEEE fp32.", VECTOR),
    ("Host", "What the machine has no instruction for.", HOST),
)


def overview() -> str:
    """Return every instruction in one line each: its mnemonic, its engine and what it means."""
    width = max(len(each.mnemonic) for each in TABLE)
    lines = []
    for title, _, entries in _GROUPS:
        lines.append(f"{title}:")
        for each in entries:
            meaning = textwrap.shorten(each.meaning, 96, placeholder=" ...")
            lines.append(f"  {each.mnemonic:<{width}}  {each.engine:<8} {meaning}")
    return "\n".join(lines)


def describe(mnemonic: str) -> str:
    """Return all about one instruction as plain text.

    Raises:
        UsageError: there is no such instruction.
    """
    spec = BY_MNEMONIC.get(mnemonic)
    if spec is None:
        raise UsageError(f"no instruction '{mnemonic}'", remedy=did_you_mean(mnemonic, list(BY_MNEMONIC)))
    lines = [f"{mnemonic} - opcode {spec.opcode:#04x}, engine {spec.engine}", "", *textwrap.wrap(spec.meaning, 100), ""]
    lines += [f"  {syntax(spec)}", ""]
    rows = [("field", "bits", "allowed", "default", "meaning")]
    for field, low in spec.layout:
        rows.append((field.name, _bits(field, low), field.range_text(), _default(field), _doc(field)))
    widths = [min(40, max(len(row[column]) for row in rows)) for column in range(4)]
    for row in rows:
        lines.append(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[4]}"
        )
    lines.append("")
    lines += [f"{title}: {text}" for title, text in _facts(spec)]
    return "\n".join(line.rstrip() for line in lines)


def syntax(spec: Instruction) -> str:
    """Return how an instruction is written: operands by place, then by name; in brackets what may be left out."""
    places = ", ".join(field.name.upper() for field in spec.fields if field.positional)
    named = [
        f"{field.name}={field.name.upper()}" if field.default is None else f"[{field.name}={field.name.upper()}]"
        for field in spec.fields
        if not field.positional
    ]
    return " ".join(part for part in (spec.mnemonic, places, *named) if part)


def instructions() -> str:
    """Return, as Markdown, every instruction with its fields."""
    parts = []
    for title, purpose, entries in _GROUPS:
        parts.append(f"## {title}\n{purpose}\n")
        parts += [_instruction(each) for each in entries]
    return "\n".join(parts)


def common_fields() -> str:
    """Return, as Markdown, the fields that every instruction of an engine has."""
    return _table(
        ("field", "width", "allowed", "meaning"),
        [(f"`{each.name}`", str(each.width), each.range_text(), _doc(each)) for each in (WAIT, POST)],
    )


def _instruction(spec: Instruction) -> str:
    rows = [("`opcode`", f"{OPCODE_BITS - 1}..0", f"{spec.opcode:#04x}", "", "")]
    for field, low in spec.layout:
        allowed = field.range_text().replace("|", "\\|")
        rows.append((f"`{field.name}`", _bits(field, low), allowed, _default(field), _doc(field)))
    if spec.used_bits < WORD_BITS:
        rows.append(("", f"{WORD_BITS - 1}..{spec.used_bits}", "0", "", "must be zero"))
    facts = "".join(f"- {title}: {text}\n" for title, text in _facts(spec))
    table = _table(("field", "bits", "allowed", "default", "meaning"), rows)
    return f"### {spec.mnemonic}\n`{syntax(spec)}`\n\n{spec.meaning}\n\n{table}\n{facts}"


def _facts(spec: Instruction) -> list[tuple[str, str]]:
    facts = [
        ("Engine", {"dma": "dma0 or dma1, as `channel` says", "any": "the one named"}.get(spec.engine, spec.engine))
    ]
    if spec.reads:
        facts.append(("Reads", ", ".join(spec.reads)))
    if spec.writes:
        facts.append(("Writes", ", ".join(spec.writes)))
    if spec.timing:
        facts.append(("Takes", spec.timing))
    return facts


def _bits(field: Field, low: int) -> str:
    return f"{low + field.width - 1}..{low}" if field.width > 1 else str(low)


def _default(field: Field) -> str:
    if field.default is None:
        return ""
    return "none" if field.default in ((), -1) else field.format(field.default)


def _doc(field: Field) -> str:
    return f"{field.doc} ({field.unit})" if field.unit else field.doc


def header_table() -> str:
    """Return, as Markdown, the layout of a program file's header."""
    return _struct_table(HEADER)


def entry_table() -> str:
    """Return, as Markdown, the layout of an entry of the section table."""
    return _struct_table(ENTRY)


def section_table() -> str:
    """Return, as Markdown, the kinds of sections."""
    from .object_file import KINDS

    rows = [(str(k.number), f"`{k.title}`", "any number" if k.several else "one", k.doc) for k in KINDS]
    return _table(("kind", "section", "how many", "content"), rows)


def directive_table() -> str:
    """Return, as Markdown, the directives of the assembly language."""
    from .assembly.directives import DIRECTIVES

    rows = [(f"`{each.syntax}`".replace("|", "\\|"), each.doc) for each in DIRECTIVES]
    return _table(("directive", "meaning"), rows)


def _struct_table(fields: Sequence[tuple[str, str, str]]) -> str:
    rows, offset = [], 0
    for name, code, meaning in fields:
        size = struct.calcsize("<" + code)
        kind = "bytes" if code.endswith("s") else "unsigned"
        rows.append((str(offset), str(size), kind, f"`{name}`", meaning))
        offset += size
    return _table(("offset", "bytes", "type", "field", "meaning"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


#: Generated parts by name: they stand between ``<!-- NAME -->`` and ``<!-- end of NAME -->``.
PARTS: Mapping[str, Callable[[], str]] = {
    "instructions": instructions,
    "common fields": common_fields,
    "header": header_table,
    "section table": entry_table,
    "sections": section_table,
    "directives": directive_table,
    "format version": lambda: f"{FORMAT_VERSION}\n",
}
PAGES = ("docs/isa.md", "docs/object-format.md", "docs/assembly.md")


def renewed(page: str) -> str:
    """Return a page with its generated parts written anew."""
    for name, write in PARTS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, found, rest = page.partition(start)
        if found:
            page = head + start + write() + end + rest.partition(end)[2]
    return page


def main() -> None:
    """Renew the pages below the working directory."""
    for name in PAGES:
        path = Path(name)
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()

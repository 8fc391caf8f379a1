"""Reading and writing machine files: TOML with inheritance, checked against the sections' statements.

All problems of a file are reported at once, each with its line where that can be told.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FlexcError, UsageError, did_you_mean, raise_all
from .machine_fields import Spec, Text, specs
from .machine_sections import SECTIONS

PRESETS = Path(__file__).parent / "machines"

#: What stands above the sections; neither is inherited, so that no machine goes by another's name.
TOP: dict[str, Spec] = {
    "name": Text(
        doc="what reports and the command line call it",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*",
        says="a word of letters, digits, '.', '_' and '-'",
    ),
    "description": Text(doc="one line for a reader"),
}
#: Section ("" for the top) -> key -> statement.
SCHEMA: dict[str, dict[str, Spec]] = {"": TOP} | {name: dict(specs(section)) for name, section in SECTIONS.items()}
Values = dict[str, dict[str, Any]]


def preset_names() -> list[str]:
    """Return the machines that come with flexc, from small to large as far as the alphabet knows."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


@dataclass(frozen=True)
class Source:
    """The text of one machine file and where it came from."""

    text: str
    where: str
    path: Path

    def at(self, section: str, key: str) -> str:
        """Return ``file:line`` of a key, or of a section's header where the key is empty; ``file`` if not found."""
        inside = ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
            inside = header[1] if header else inside
            assigned = re.match(r"\s*([\w.\-]+)\s*=", line)
            if (header and not key and inside == section) or (
                assigned and _joined(inside, assigned[1]) == _joined(section, key)
            ):
                return f"{self.where}:{number}"
        return self.where

    def parse(self) -> dict[str, Any]:
        """Return the file's tables.

        Raises:
            FlexcError: it is not TOML; the place is the parser's.
        """
        try:
            return tomllib.loads(self.text)
        except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
            message, line, column = _place(str(error))
            raise FlexcError(f"not valid TOML: {message}", where=f"{self.where}{line}{column}") from None
        except RecursionError:
            raise FlexcError("not a machine file: nested too deeply", where=self.where) from None


def _place(message: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    return (
        (found[1], f":{found[2]}", f":{found[3]}") if found else (message.removesuffix(" (at end of document)"), "", "")
    )


def _joined(section: str, key: str) -> str:
    return f"{section}.{key}" if section and key else section or key


def find_source(name: str | Path, folder: Path) -> Source:
    """Return the text of a preset, or of a file named relative to ``folder``.

    Raises:
        UsageError: the word names neither.
        FlexcError: the file cannot be read.
    """
    path = PRESETS / f"{name}.toml" if str(name) in preset_names() else folder / name
    if path.suffix != ".toml" and not path.exists():
        presets = preset_names()
        remedy = did_you_mean(str(name), presets) or "name a machine file (*.toml) or use a preset"
        raise UsageError(f"unknown machine '{name}'; presets: {', '.join(presets)}", remedy=remedy)
    try:
        where = path.name if path.parent == PRESETS else str(path)
        return Source(path.read_bytes().decode("utf-8"), where, path)
    except OSError as error:
        raise FlexcError(f"cannot read the machine file: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise FlexcError("not a machine file: it is not UTF-8 text", where=str(path)) from None


def read_machine(source: Source) -> Values:
    """Return every section's checked values, inherited ones included; the top's stand under ``""``.

    Raises:
        FlexcError: unknown, missing, mistyped or illegal fields; all of them at once.
    """
    values: Values = {section: {} for section in SCHEMA}
    problems: list[FlexcError] = []
    for layer, tables in reversed(list(_chain(source))):
        values[""] = {"description": ""}
        problems += _merge(layer, tables, values)
    problems += _missing(source, values)
    raise_all(problems)
    return values


def _chain(source: Source) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Yield the file and what it inherits from, nearest first."""
    seen: list[Path] = []
    while True:
        tables = source.parse()
        base = tables.pop("inherit", None)
        yield source, tables
        if base is None:
            return
        here = source.at("", "inherit")
        if not isinstance(base, str):
            raise FlexcError("inherit is not the name of a machine", where=here, remedy='for example: inherit = "edge"')
        seen.append(source.path.resolve())
        try:
            source = find_source(base, source.path.parent)
        except FlexcError as error:
            raise FlexcError(f'inherit = "{base}": {error.message}', where=here, remedy=error.remedy) from None
        if source.path.resolve() in seen:
            raise FlexcError(f'inherit = "{base}" leads back to {source.where}', where=here)


def _merge(source: Source, tables: Mapping[str, Any], values: Values) -> Iterator[FlexcError]:
    """Put one file's fields over the values so far; yield what is wrong with them."""
    top = {key: value for key, value in tables.items() if key not in SECTIONS}
    for section, table in {"": top, **{name: tables[name] for name in SECTIONS if name in tables}}.items():
        if not isinstance(table, dict):
            yield FlexcError(
                f"{section} is a section, not a value", where=source.at("", section), remedy=f"write [{section}]"
            )
            continue
        for key, value in table.items():
            problem = _put(source, section, key, value, values)
            if problem:
                yield problem


def _put(source: Source, section: str, key: str, value: object, values: Values) -> FlexcError | None:
    spec = SCHEMA[section].get(key)
    if spec is None:
        return _unknown(source, section, key, value)
    values[section][key] = value  # present, if wrong: not to be reported as missing too
    try:
        values[section][key] = spec.read(value)
    except ValueError as error:
        unit = f" (in {spec.unit})" if spec.unit else ""
        message = f"{_joined(section, key)} = {_shown(value)} {error}{unit}"
        return FlexcError(message, where=source.at(section, key), remedy=f"{_joined(section, key)}: {spec.doc}")
    return None


def _shown(value: object) -> str:
    """Write a value for a message: short, whatever it is."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    text = toml_value(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown(source: Source, section: str, key: str, value: object) -> FlexcError:
    if isinstance(value, dict) and not section:
        remedy = did_you_mean(key, list(SECTIONS)) or f"sections: {', '.join(SECTIONS)}"
        return FlexcError(f"unknown section [{key}]", where=source.at(key, ""), remedy=remedy)
    elsewhere = [_joined(other, key) for other, fields in SCHEMA.items() if key in fields]
    close = f"did you mean '{elsewhere[0]}'?" if elsewhere else did_you_mean(key, list(SCHEMA[section]))
    remedy = close or f"known here: {', '.join(SCHEMA[section])}"
    return FlexcError(f"unknown key '{_joined(section, key)}'", where=source.at(section, key), remedy=remedy)


def _missing(source: Source, values: Values) -> list[FlexcError]:
    """Name what no file of the chain gives; a whole section that is absent counts once."""
    missing: list[str] = []
    for section, fields in SCHEMA.items():
        absent = [_joined(section, key) for key in fields if key not in values[section]]
        if section and len(absent) == len(fields):
            absent = [f"section [{section}]"]
        missing += absent
    remedy = 'give each a value, or start from a preset: inherit = "edge"'
    return [FlexcError(f"missing: {', '.join(missing)}", where=source.where, remedy=remedy)] if missing else []


def toml_value(value: object) -> str:
    """Write one value the way a machine file holds it; reading it back gives the same value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def write_machine(values: Mapping[str, Mapping[str, object]]) -> str:
    """Write sections as TOML text, the top (under ``""``) first."""
    blocks = []
    for section, fields in values.items():
        lines = [f"[{section}]"] if section else []
        blocks.append("\n".join([*lines, *(f"{key} = {toml_value(value)}" for key, value in fields.items())]))
    return "\n\n".join(blocks) + "\n"

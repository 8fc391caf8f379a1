"""The field tables of ``docs/machine.md``, written from the fields' statements and the presets."""

from __future__ import annotations

from .machine import Machine, load_machine
from .machine_fields import Spec
from .machine_sections import SECTIONS
from .machine_toml import SCHEMA, toml_value

PRESETS = ("edge", "resident", "server")


def field_tables() -> str:
    """Return, as Markdown, every section of a machine file: its fields, what they mean and the presets' values."""
    presets = [load_machine(name) for name in PRESETS]
    return "\n".join(_section(name, presets) for name in SECTIONS)


def _section(name: str, presets: list[Machine]) -> str:
    purpose = (SECTIONS[name].__doc__ or "").strip()
    heads = ["field", "meaning", "unit", *PRESETS, "allowed", "source"]
    rows = [
        _row(key, spec, [getattr(getattr(each, name), key) for each in presets]) for key, spec in SCHEMA[name].items()
    ]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join([f"### [{name}]", purpose, "", *(f"| {' | '.join(cells)} |" for cells in lines), ""])


def _row(key: str, spec: Spec, values: list[object]) -> list[str]:
    first, *others = map(_figure, values)
    return [
        f"`{key}`",
        spec.doc,
        spec.unit,
        first,
        *(("" if each == first else each) for each in others),
        spec.allowed(),
        spec.source,
    ]


def _figure(value: object) -> str:
    """Write a value for a reader: long whole numbers grouped in threes, as TOML allows too."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return f"{int(value):_}"
    return toml_value(value)

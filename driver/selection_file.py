"""Selections as files: which pattern every linear gets, to be looked at, edited, and used again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexc.files import write_lines
from flexc.isa.errors import FlexcError, UsageError, did_you_mean, raise_all
from flexc.passes.pattern import NM

FORMAT, VERSION = "flexc selection", 1


def save_selection(path: str | Path, model: str, method: str, patterns: Mapping[str, NM]) -> None:
    """Write patterns to a file, which appears complete or not at all.

    Raises:
        FlexcError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": Path(model).name,
        "method": method,
        "linears": {name: str(nm) for name, nm in patterns.items()},
    }
    write_lines([json.dumps(content, indent=1, ensure_ascii=False)], str(path))


def load_selection(path: str | Path, linears: Sequence[str], allowed_m: Sequence[int]) -> dict[str, NM]:
    """Read the patterns of a file; linears that it does not name stay dense.

    Args:
        path: the file.
        linears: names of the model's linears that are open to pruning.
        allowed_m: block lengths that the machine knows.

    Raises:
        FlexcError: no such file, not a selection; unknown linears, wrong patterns: all of them at once.
    """
    content = _read(Path(path))
    problems: list[FlexcError] = []
    patterns: dict[str, NM] = {}
    for name, text in content.items():
        if name not in linears:
            remedy = did_you_mean(name, linears) or "linears: see the report of flexc prune, or --save-selection"
            problems.append(FlexcError(f"the model has no linear '{name}' to prune", where=str(path), remedy=remedy))
            continue
        try:
            patterns[name] = _pattern(text, allowed_m)
        except UsageError as error:
            where = f"{path}: linear '{name}'"
            problems.append(FlexcError(f"{text!r}: {error.message}", where=where, remedy=error.remedy))
    raise_all(problems)
    return patterns


def _pattern(text: object, allowed_m: Sequence[int]) -> NM:
    if not isinstance(text, str):
        raise UsageError("not an N:M pattern", remedy="write it as 4:8, or dense")
    nm = NM.parse(text)
    if not nm.is_dense and nm.m not in allowed_m:
        raise UsageError(f"M is {nm.m}", remedy=f"the machine knows M = {', '.join(map(str, allowed_m))}")
    return nm


def _read(path: Path) -> dict[str, Any]:
    remedy = 'write it as {"format": "flexc selection", "linears": {"NAME": "4:8"}}, or by --save-selection'
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise FlexcError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise FlexcError(f"not a selection: {error}", where=str(path), remedy=remedy) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("linears"), dict):
        raise FlexcError("not a selection", where=str(path), remedy=remedy)
    if content.get("version", VERSION) != VERSION:
        text = f"a selection of version {content['version']}, this flexc knows {VERSION}"
        raise FlexcError(text, where=str(path), remedy="save it by --save-selection of this flexc")
    linears: dict[str, Any] = content["linears"]
    return linears


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, in which no name may stand twice: which one is meant is not known.

    Raises:
        ValueError: one does.
    """
    twice = [name for name, number in Counter(name for name, _ in pairs).items() if number > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands in it twice")
    return dict(pairs)

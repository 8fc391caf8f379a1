"""Measured divergences by assignment of patterns, remembered, and written down so that a stopped run can go on.

The file holds a line of JSON for each measurement behind a first line that says what was measured: which model, data
and way to prune. Each line is written as soon as its number is known, so nothing is lost when the process ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...frontend.linears import Linear
from ...isa.errors import FlexcError
from ..feeds import Feed
from ..pattern import NM
from .replay import Replay
from .table import Table

if TYPE_CHECKING:
    import onnx_ir as ir

Assignment = Mapping[str, NM]
"""Linear name -> pattern."""

_FORMAT = "flexc flow state 1"

_known: tuple[str, dict[str, float]] = ("", {})
"""The last context and its measurements: budgets are tried several times on one model."""


def forget() -> None:
    """Forget what was measured last; a state file stays."""
    global _known
    _known = ("", {})


class Measurements:
    """The divergence of a model by the patterns of its linears.

    Args:
        replay: runs it.
        table: the matrices of each pattern.
        context: digest of all that the numbers depend on but the patterns.
        path: file to go on from and to write to, or None.
        members: linear name -> all linears that change with it.

    Raises:
        FlexcError: the file holds something else, or cannot be read or written.
    """

    def __init__(
        self,
        replay: Replay,
        table: Table,
        context: str,
        path: Path | None,
        members: Mapping[str, Sequence[Linear]] | None = None,
    ) -> None:
        global _known
        self._replay, self._table, self._path = replay, table, path
        self._members = {name: [each.name for each in group] for name, group in (members or {}).items()}
        if _known[0] != context:
            _known = (context, {})
        self._values = _known[1]
        if path is not None:
            self._values.update(_read(path, context))
        self._at: dict[str, NM] = {}
        self._real: dict[str, NM] = {}

    def settle(self, assignment: Assignment) -> float:
        """Let linears have these patterns from now on; return the divergence then."""
        self._at = {**self._at, **self._all(assignment)}
        return self.measure({})

    def _all(self, assignment: Assignment) -> Assignment:
        return {each: nm for name, nm in assignment.items() for each in self._members.get(name, [name])}

    def measure(self, changes: Assignment) -> float:
        """Return the divergence with some linears in other patterns than settled."""
        changes = self._all(changes)
        key = _digest(sorted((name, str(nm)) for name, nm in {**self._at, **changes}.items()))
        if key not in self._values:
            behind = {name: nm for name, nm in self._at.items() if self._real.get(name) != nm}
            if behind:
                self._replay.settle({name: self._table.matrix(name, nm) for name, nm in behind.items()})
                self._real.update(behind)
            self._remember(
                key, self._replay.measure({name: self._table.matrix(name, nm) for name, nm in changes.items()})
            )
        return self._values[key]

    def work(self, linear: str) -> int:
        """Return how many segments of the model run again when a linear changes."""
        return self._replay.work(self._members.get(linear, [linear]))

    def _remember(self, key: str, value: float) -> None:
        self._values[key] = value
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, value]) + "\n")
            except OSError as error:
                raise FlexcError(f"cannot be written: {error.strerror or error}", where=str(self._path)) from None


def _read(path: Path, context: str) -> dict[str, float]:
    """Read a state file, or begin one where there is none or one of another selection; a line cut short is dropped."""
    header = json.dumps([_FORMAT, context])
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = text.split("\n")
        if not text or (lines[0] != header and lines[0].startswith(f'["{_FORMAT}"')):
            path.write_text(header + "\n", encoding="utf-8")
            return {}
    except (OSError, UnicodeDecodeError) as error:
        raise FlexcError(f"cannot be used as state file: {error}", where=str(path)) from None
    if lines[0] != header:
        raise FlexcError(
            "holds something else than the state of a selection", where=str(path), remedy="name another file"
        )
    if lines[-1]:
        path.write_text(text[: -len(lines[-1])], encoding="utf-8")
    values = {}
    for line in lines[1:-1]:
        key, value = json.loads(line)
        values[str(key)] = float(value)
    return values


def context_of(model: ir.Model, linears: Sequence[Linear], feeds: Sequence[Feed], *words: object) -> str:
    """Digest what measurements depend on: the graph, its weights, the windows, and further words."""
    digest = hashlib.sha256(repr(words).encode())
    for node in model.graph:
        parts = [str(value.name) for value in (*node.inputs, *node.outputs) if value is not None]
        digest.update(repr((node.name, node.op_type, parts)).encode())
    for linear in linears:
        digest.update(np.ascontiguousarray(linear.matrix()).data)
    for feed in feeds:
        for name in sorted(feed):
            digest.update(name.encode() + np.ascontiguousarray(feed[name]).tobytes())
    return digest.hexdigest()[:32]


def _digest(items: Any) -> str:
    return hashlib.sha256(repr(items).encode()).hexdigest()[:24]

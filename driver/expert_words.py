"""Experts with a declared capacity: how it is written, what a report says of it, and how many pairs were dropped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from flexc.emulation import Arrays
from flexc.frontend.routing import ROUTING_KEY
from flexc.isa.errors import UsageError
from flexc.isa.program import Program
from flexc.tables import count, percent

FULL = "full"
"""The capacity of experts that take as many rows as routing sends them."""

META = "routing"
"""Where a program keeps its routings, as :data:`flexc.frontend.routing.ROUTING_KEY` has them."""


def capacity_of(given: str | float | None) -> float | None:
    """Return the rows of an expert over its even share, None for as many as there are.

    Raises:
        UsageError: neither ``full`` nor a number above 0.
    """
    if given is None or given == FULL:
        return None
    try:
        factor = float(given)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        remedy = "give a number above 0, such as 1.25, or full: rows of an expert over its even share of them"
        raise UsageError("not a capacity of experts", where=f"--expert-capacity {given}", remedy=remedy)
    return factor


def routing_meta(properties: Mapping[str, str]) -> dict[str, str]:
    """Return what a program remembers of its model's routings."""
    return {META: properties[ROUTING_KEY]} if ROUTING_KEY in properties else {}


def routing_of(program: Program) -> dict[str, Any]:
    """Return a program's routings; empty where experts have no declared capacity."""
    return dict(json.loads(program.meta.get(META, "{}")))


def capacity_facts(routing: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a report of a compilation says of experts with a declared capacity."""
    if not routing:
        return []
    facts = []
    for each in routing["routings"]:
        text = f"{each['pairs']} row-expert pairs, {each['rows']} rows at most for each of {each['experts']} experts"
        beyond = f"pairs beyond are dropped, and counted in output '{routing['output']}'"
        facts.append(f"{text}; {beyond if each['may_drop'] else 'there can be no more'}")
    lines = [(f"{facts.count(text)} x " if facts.count(text) > 1 else "") + text for text in dict.fromkeys(facts)]
    rows = [("experts", line) for line in lines]
    if routing["open"]:
        rows.append(("experts", f"{routing['open']} choices of rows have no capacity: no TopK or ArgMax makes them"))
    if not lines:
        rows.append(("experts", "the declared capacity changes nothing: no expert would get fewer rows"))
    return rows


class DroppedPairs:
    """Counts, over windows, the pairs of rows and experts that were beyond an expert's capacity."""

    def __init__(self, routing: Mapping[str, Any]) -> None:
        self._output = routing.get("output", "")
        self._pairs = [each["pairs"] for each in routing.get("routings", []) if self._output]
        self.windows = 0
        self.dropped = [0] * len(self._pairs)

    def sink(self, _start: int, _inputs: Arrays, outputs: Arrays) -> None:
        """Take the outputs of a batch."""
        if self._pairs:
            found = outputs[self._output]
            self.windows += len(found)
            self.dropped = [old + int(new) for old, new in zip(self.dropped, found.sum(axis=0), strict=True)]

    def report(self) -> dict[str, Any] | None:
        """Return the numbers, None where no expert has a declared capacity."""
        if not self._pairs:
            return None
        pairs = [each * self.windows for each in self._pairs]
        return {"windows": self.windows, "pairs": pairs, "dropped": self.dropped}


def dropped_text(report: Mapping[str, Any]) -> str:
    """Return these numbers as a sentence."""
    dropped, pairs = sum(report["dropped"]), sum(report["pairs"])
    text = f"{count(dropped)} of {count(pairs)} row-expert pairs ({percent(dropped / max(1, pairs))}) were beyond"
    return f"{text} an expert's capacity and add nothing to the outputs"

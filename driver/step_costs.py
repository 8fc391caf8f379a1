"""What the steps of a generation cost: prefill and decode apart, a token and a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flexc.tables import Table, count, duration, energy


@dataclass(frozen=True)
class Step:
    """One run of a session: its kind, how many tokens went in, on how many before them, and what that cost.

    ``dropped`` are the pairs of rows and experts that were beyond a declared capacity.
    """

    kind: str
    tokens: int
    past: int
    cycles: int
    time_s: float
    energy_pj: float
    dropped: int = 0

    def as_kind(self, kind: str, past: int) -> Step:
        """Return the same step, said to be of another kind and on so many tokens."""
        return replace(self, kind=kind, past=past)


def phases(steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """Return, for prefill and decode: runs, tokens, cycles, seconds, picojoules; and these a token."""
    found = {}
    for kind in ("prefill", "decode"):
        chosen = [step for step in steps if step.kind == kind]
        tokens = sum(step.tokens for step in chosen)
        seconds, joules = sum(step.time_s for step in chosen), sum(step.energy_pj for step in chosen)
        found[kind] = {
            "runs": len(chosen),
            "tokens": tokens,
            "cycles": sum(step.cycles for step in chosen),
            "time_s": seconds,
            "energy_pj": joules,
            "time_a_token_s": seconds / tokens if tokens else 0.0,
            "tokens_per_s": tokens / seconds if seconds else 0.0,
            "energy_a_token_pj": joules / tokens if tokens else 0.0,
            "dropped_pairs": sum(step.dropped for step in chosen),
        }
    return found


def phase_table(found: dict[str, dict[str, Any]]) -> Table:
    """Return the phases as a table."""
    rows = [
        (
            kind,
            count(phase["runs"]),
            count(phase["tokens"]),
            count(phase["cycles"]),
            duration(phase["time_s"]),
            duration(phase["time_a_token_s"]),
            f"{phase['tokens_per_s']:.0f}",
            energy(phase["energy_pj"]),
            energy(phase["energy_a_token_pj"]),
        )
        for kind, phase in found.items()
    ]
    heads = (">runs", ">tokens", ">cycles", ">time", ">a token", ">tokens/s", ">energy", ">a token")
    return Table("Generation", ("phase", *heads), rows)

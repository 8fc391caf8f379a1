"""Energy: counted events times the machine's prices, and leakage over time; new prices need no new run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..isa.counters import COUNTERS
from ..isa.machine import Machine
from .timing import Timing

LEAKAGE = "leakage"
_PJ_OF_MW_S = 1e9


@dataclass(frozen=True)
class Energy:
    """Picojoules by event, with ``leakage`` as one of them: of the whole program, and of each op."""

    by_event: Mapping[str, float]
    ops: tuple[Mapping[str, float], ...]

    @property
    def total_pj(self) -> float:
        """All events of the program."""
        return sum(self.by_event.values())

    def op_pj(self, index: int) -> float:
        """All events of one op."""
        return sum(self.ops[index].values())


def energy_of(timing: Timing, machine: Machine) -> Energy:
    """Return what a program costs on a machine that is like its own but for the prices."""
    ops = tuple(_by_event(op.counters, op.cycles, machine) for op in timing.ops)
    return Energy(_by_event(timing.counters, timing.cycles, machine), ops)


def _by_event(counters: Mapping[str, int], cycles: int, machine: Machine) -> dict[str, float]:
    costs = {name: count * price(name, machine) for name, count in counters.items()}
    seconds = cycles / machine.clock.frequency_hz
    return costs | {LEAKAGE: machine.leakage_mw * seconds * _PJ_OF_MW_S}


def price(counter: str, machine: Machine) -> float:
    """Return the picojoules of one event."""
    return float(getattr(machine.energy, COUNTERS[counter][0]))

"""Budgets as they are written: ``cycles=12M``, ``energy=3mJ``, ``bits=x0.5``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flexc.isa.errors import UsageError, did_you_mean

QUANTITIES = {"cycles": "cycles", "energy": "pJ", "bits": "bits"}
"""What a budget can limit, and the unit it is counted in."""

_FACTORS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_JOULES = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "mJ": 1e9, "J": 1e12}
_EXAMPLES = "write it as cycles=12M, energy=3mJ, bits=40M, or x0.7 of the dense model's: cycles=x0.7"


@dataclass(frozen=True)
class Amount:
    """A limit on a quantity of the whole program: an amount, or a share of the dense program's (`relative`)."""

    quantity: str
    value: float
    relative: bool = False

    def of(self, dense: float) -> float:
        """Return the limit, given what the dense program takes."""
        return self.value * dense if self.relative else self.value

    @property
    def unit(self) -> str:
        """The unit it is counted in."""
        return QUANTITIES[self.quantity]


def parse_budget(text: str) -> Amount:
    """Read a budget.

    Raises:
        UsageError: an unknown quantity, or no positive amount of it.
    """
    name, _, amount = (part.strip() for part in text.partition("="))
    if name not in QUANTITIES:
        remedy = did_you_mean(name, list(QUANTITIES)) or _EXAMPLES
        raise UsageError(f"'{name}' is nothing that a budget can limit", remedy=remedy)
    relative = amount[:1] in ("x", "X")
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)", amount[1:] if relative else amount)
    factors = {"": 1.0} if relative else _FACTORS | (_JOULES if name == "energy" else {})
    if not found or found[2] not in factors or float(found[1]) <= 0:
        raise UsageError("not an amount", remedy=_EXAMPLES)
    return Amount(name, float(found[1]) * factors[found[2]], relative)

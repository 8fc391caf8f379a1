"""What every instruction computes: one function each, found by its mnemonic in ``HANDLERS``."""

from __future__ import annotations

from . import elementwise, macros, moves, quantise, reduce, rows
from .registry import HANDLERS, Call, Handler

__all__ = ["HANDLERS", "Call", "Handler", "elementwise", "macros", "moves", "quantise", "reduce", "rows"]

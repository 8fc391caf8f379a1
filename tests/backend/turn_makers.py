"""Unrolled recurrences as text: turns that read slices of common tensors and what the turn before hands on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def unrolled(turns: int, body: str, first: dict[str, str]) -> str:
    """Return the statements of all turns.

    ``{t}`` in ``body`` is the turn; ``{name}`` for a name of ``first`` is what the turn before called ``name``, or
    in the first turn what ``first`` says.
    """
    lines = []
    for turn in range(turns):
        before = {name: start if turn == 0 else f"{name}{turn - 1}" for name, start in first.items()}
        lines.append(body.format(t=turn, **before))
    return "\n".join(lines)


def stacked(turns: int, name: str, axis: int = 0, *, backwards: bool = False) -> str:
    """Return the Concat of a value of every turn."""
    order = reversed(range(turns)) if backwards else range(turns)
    return f"Concat<axis = {axis}>({', '.join(f'{name}{turn}' for turn in order)})"


def indices(turns: int, *, backwards: bool = False) -> dict[str, Array]:
    """Return the constants ``i0``, ``i1``, .. that pick the slice of every turn, and the axes ``zero`` and ``one``."""
    places = range(turns)[::-1] if backwards else range(turns)
    picks = {f"i{turn}": np.array(place, np.int64) for turn, place in enumerate(places)}
    return {**picks, "zero": np.array([0]), "one": np.array([1])}

"""Closeness end to end: the program's outputs beside those of a float model in onnxruntime, window by window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from flexc.emulation import Arrays
from flexc.verdict import DEGENERATE, Closeness

Array: TypeAlias = npt.NDArray[Any]


class Runs(Protocol):
    """A model in onnxruntime."""

    def run(self, feed: Arrays, /) -> Arrays:
        """Return the outputs of one window."""
        ...


@dataclass
class _Sums:
    """What adds up over the windows of one float output: dot product, squares of ours, theirs and the difference."""

    dot: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0
    apart: float = 0.0
    elements: int = 0

    def add(self, ours: Array, theirs: Array) -> None:
        a, b = ours.astype(np.float64).reshape(-1), theirs.astype(np.float64).reshape(-1)
        alike = ~np.isfinite(b) & ((a == b) | (np.isnan(a) & np.isnan(b)))
        if alike.any():
            a, b = np.where(alike, 0, a), np.where(alike, 0, b)
        difference = a - b
        self.dot += float(a @ b)
        self.ours += float(a @ a)
        self.theirs += float(b @ b)
        self.apart += float(difference @ difference)
        self.elements += b.size

    @property
    def degenerate(self) -> bool:
        """Whether the reference is zero throughout."""
        return math.sqrt(self.theirs / max(1, self.elements)) < DEGENERATE

    @property
    def cosine(self) -> float:
        """Cosine of the angle between ours and theirs; NaN where something is not finite."""
        return self.dot / (math.sqrt(self.ours * self.theirs) or math.inf)

    @property
    def relative_error(self) -> float:
        """Length of the difference over theirs."""
        return math.sqrt(self.apart / self.theirs)


class ClosenessSink:
    """Runs a float model on the first windows and adds up how its outputs and the program's agree.

    Cosine and relative error are those of the float output that agrees worst. Top-1 agreement looks at the first
    output: how often the greatest element along its last axis is the same one, or whole numbers are equal.
    """

    def __init__(self, session: Runs, most: int) -> None:
        self._session = session
        self._most = most
        self._windows = 0
        self._sums: dict[str, _Sums] = {}
        self._rows = self._agreeing = 0

    def sink(self, start: int, inputs: Arrays, outputs: Arrays) -> None:
        """Take a batch."""
        count = len(next(iter(outputs.values())))
        for place in range(min(count, self._most - start)):
            expected = self._session.run({name: array[place] for name, array in inputs.items()})
            for number, (name, reference) in enumerate(expected.items()):
                self._add(name, outputs[name][place], reference, first=number == 0)
            self._windows += 1

    def _add(self, name: str, ours: Array, theirs: Array, *, first: bool) -> None:
        is_float = theirs.dtype.kind == "f"
        if is_float:
            self._sums.setdefault(name, _Sums()).add(ours, theirs)
        if first and theirs.size and (not is_float or (theirs.ndim and theirs.shape[-1] > 1)):
            same = ours.argmax(axis=-1) == theirs.argmax(axis=-1) if is_float else np.equal(ours, theirs)
            self._rows += np.size(same)
            self._agreeing += int(np.count_nonzero(same))

    def result(self) -> Closeness:
        """Return the closeness over all windows so far."""
        judged = [sums for sums in self._sums.values() if not sums.degenerate]
        cosines = [sums.cosine for sums in judged]
        return Closeness(
            windows=self._windows,
            cosine=math.nan if any(map(math.isnan, cosines)) else min(cosines, default=1.0),
            relative_error=max((sums.relative_error for sums in judged), default=0.0),
            top1_agreement=self._agreeing / self._rows if self._rows else None,
            degenerate=not judged,
        )

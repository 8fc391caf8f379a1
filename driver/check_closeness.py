"""Closeness end to end: the program's outputs beside those of a float model in onnxruntime, window by window."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from flexc.emulation import Arrays
from flexc.passes.session import Session
from flexc.verdict import DEGENERATE, Closeness


class ClosenessSink:
    """Runs a float model on the first windows and adds up how its outputs and the program's agree.

    Cosine and relative error are taken over all float outputs at once; top-1 agreement over the last axis of those that
    have one of more than one element.
    """

    def __init__(self, model: ir.Model, most: int) -> None:
        """Open the model.

        Raises:
            FlexcError: onnxruntime refuses it.
        """
        self._session = Session(model)
        self._most = most
        self._windows = 0
        self._dot = self._ours = self._theirs = self._apart = 0.0
        self._rows = self._agreeing = self._elements = 0

    def sink(self, start: int, inputs: Arrays, outputs: Arrays) -> None:
        """Take a batch."""
        count = len(next(iter(outputs.values())))
        for place in range(min(count, self._most - start)):
            expected = self._session.run({name: array[place] for name, array in inputs.items()})
            for name, reference in expected.items():
                if reference.dtype.kind == "f" and name in outputs:
                    self._add(outputs[name][place], reference)
            self._windows += 1

    def _add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        a, b = ours.astype(np.float64).reshape(-1), theirs.astype(np.float64).reshape(-1)
        self._dot += float(a @ b)
        self._ours += float(a @ a)
        self._theirs += float(b @ b)
        a -= b
        self._apart += float(a @ a)
        self._elements += b.size
        if theirs.ndim and theirs.shape[-1] > 1:
            same = ours.argmax(axis=-1) == theirs.argmax(axis=-1)
            self._rows += same.size
            self._agreeing += int(np.count_nonzero(same))

    def result(self) -> Closeness:
        """Return the closeness over all windows so far; NaN where anything was not finite."""
        size = math.sqrt(self._theirs / max(1, self._elements))
        both = math.sqrt(self._ours) * math.sqrt(self._theirs)
        return Closeness(
            windows=self._windows,
            cosine=self._dot / both if both else float(self._ours == self._theirs),
            relative_error=math.sqrt(self._apart / self._theirs) if self._theirs else math.sqrt(self._apart),
            top1_agreement=self._agreeing / self._rows if self._rows else None,
            degenerate=size < DEGENERATE,
        )

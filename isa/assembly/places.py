"""Names for addresses in a listing."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from ..program import Program
from ..streams import SPACES
from ..tensors import extent


def one_line(text: str) -> str:
    """Return a text without line ends, so that it can stand in a comment."""
    return " ".join(text.split())


class Places:
    """Which tensor lies at an address while an op runs: tensors that are not needed at the same time share memory."""

    def __init__(self, program: Program) -> None:
        tensors = list(
            {each.name: each for each in (*program.inputs, *program.outputs, *program.debug.tensors)}.values()
        )
        #: The op that writes a tensor; of ops with one code the first, which the code is described for.
        writers: dict[str, int] = {}
        for number, op in enumerate(program.debug.ops):
            writers |= dict.fromkeys(op.writes, number)
        self._names = [each.name for each in tensors]
        self._spaces = np.array([SPACES.index(each.space) for each in tensors], np.int8)
        extents = [extent(each) for each in tensors]
        self._starts = np.array([start for start, _ in extents], np.int64)
        self._stops = np.array([stop for _, stop in extents], np.int64)
        self._written = np.array([writers.get(name, -1) for name in self._names], np.int64)
        ops = program.debug.ops
        first: dict[int, int] = {}
        for number, op in enumerate(ops):
            first.setdefault(op.first, number)
        self._firsts = sorted(first)
        self._ops = [first[each] for each in self._firsts]

    def name(self, pc: int, space: str, address: int) -> str:
        """Return the tensor that lies there when the op at ``pc`` has run, and how far behind its start; or nothing."""
        place = bisect_right(self._firsts, pc) - 1
        until = self._ops[place] if place >= 0 else -1
        here = (self._starts <= address) & (address < self._stops) & (self._written <= until)
        found = np.flatnonzero(here & (self._spaces == SPACES.index(space)))
        if not found.size:
            return ""
        last = found[np.argmax(self._written[found])]
        behind = address - int(self._starts[last])
        return one_line(self._names[last] + (f" + {behind:#x}" if behind else ""))

"""Which op each instruction counts for: the same one always, or in a loop over whole ops one an iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..isa.program import EVERY, Op, Program


class Ops:
    """The ops of a program by place and iteration of L0."""

    def __init__(self, program: Program) -> None:
        #: For the first op with some code, those with the same code in other iterations, itself among them.
        self.alike: dict[int, dict[int, int]] = {}
        known: dict[tuple[int, int], int] = {}
        for index, op in enumerate(program.debug.ops):
            first = known.setdefault((op.first, op.last), index)
            self.alike.setdefault(first, {})[op.iteration] = index
        self._ops: Sequence[Op] = program.debug.ops
        self._length = len(program.code)

    def at(self, first: int, iteration: int) -> int:
        """Return the op that the code of an op belongs to in an iteration of L0."""
        alike = self.alike[first]
        return alike.get(iteration, alike.get(EVERY, first))

    @property
    def several(self) -> Mapping[int, Mapping[int, int]]:
        """Those of ``alike`` that are not the same op in every iteration."""
        return {first: alike for first, alike in self.alike.items() if list(alike) != [EVERY]}

    def counted(self) -> Iterator[int]:
        """Yield for each instruction the first op that it counts for: its own, or else the next one, or the last."""
        ops = sorted((self._ops[index].first, self._ops[index].last, index) for index in self.alike)
        place = 0
        for pc in range(self._length):
            while place < len(ops) - 1 and pc >= ops[place][1]:
                place += 1
            yield ops[place][2] if ops else 0

    def around(self) -> list[int]:
        """Return for each instruction the first, innermost op that it is part of, or -1."""
        found = [-1] * self._length
        by_size = sorted(self.alike, key=lambda index: self._ops[index].first - self._ops[index].last)
        for index in by_size:  # the innermost last
            op = self._ops[index]
            found[op.first : op.last] = [index] * (op.last - op.first)
        return found

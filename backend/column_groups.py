"""The loops over the column groups of a linear, and which slot of the buffer the weights of a group lie in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..isa.streams import Step
from ..passes.mapping import Mapping
from .boxes import Strides
from .code import Builder, Loop
from .views import Dim


def comes_ahead(mapping: Mapping, builder: Builder) -> bool:
    """Return whether a group's weights come while the one before is worked on.

    Loops over pairs of groups, groups, pieces and steps of K then stand in one another.
    """
    return mapping.ahead and builder.free_levels >= 4


def counts(mapping: Mapping, ahead: bool) -> tuple[int, int]:
    """Return the iterations of the loop over pairs of groups and of the one inside it.

    Where weights come ahead, the last group stands apart, with the one before it where that has no other to pair with.
    """
    pairs = (mapping.col_groups - 1) // 2
    return (max(1, pairs), 2 if pairs else 1) if ahead else (1, mapping.col_groups)


@dataclass(frozen=True)
class ColumnGroups:
    """Where code stands among the column groups: in loops from group ``first`` on, or alone with that group.

    ``column`` is the first column of the linear. Weights that come ahead lie in the first slot for even groups, in the
    second for odd ones, by their place in the pair. A ring could not say so: where the kernels of like layers stand in
    one loop, it goes on from where the loops of other kernels have left it, at either slot, while the transfer before
    the loop and the groups after it are in no ring.
    """

    mapping: Mapping
    column: int
    pair: Loop
    group: Loop
    first: int = 0

    @property
    def loops(self) -> list[Loop]:
        """The loops, outermost first, saying what they go over."""
        columns, branches = self.mapping.branch_columns, self.mapping.shape.branches
        start, limit = self.column + self.first * columns, self.column + self.mapping.shape.n // branches
        unit = "columns" if branches == 1 else "columns of each branch"
        if self.pair.level is None:
            return [self.pair, self.group.over("column group", unit, columns, start=start, limit=limit)]
        pair = self.pair.over("pair of column groups", unit, 2 * columns, start=start, limit=limit)
        return [pair, self.group.over("column group", "columns of the pair", columns)]

    def alone(self, group: int) -> ColumnGroups:
        """Return the place outside the loops where a group stands alone."""
        return replace(self, pair=Loop(1, None), group=Loop(1, None), first=group)

    def step(self, by: int) -> list[Step]:
        """Return the steps of a stream that moves ``by`` bytes a group."""
        return self.pair.step(2 * by) + self.group.step(by)

    def dims(self, by: Strides) -> list[Dim]:
        """Return the loops as dims of what moves ``by`` a group."""
        return [(self.pair.count, tuple(2 * each for each in by)), (self.group.count, by)]

    def slot(self, distance: int, after: int = 0) -> tuple[int, list[Step]]:
        """Return where the weights of the group ``after`` groups later lie from the first of two slots on.

        ``distance`` is that between the slots, in bytes.
        """
        odd = (self.first + after) % 2
        return odd * distance, self.group.step(-distance if odd else distance)

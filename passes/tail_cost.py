"""What row work at the end of an array kernel costs, in numbers that the mapping can be chosen by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TailCost:
    """The cost of a tail on ``rows`` vectors of all their columns; loads, stores and room are bytes a vector.

    ``vector`` are cycles of the vector unit, ``last`` those of the instructions that still wait in its queue when
    control comes to the transfers of the next chunk: these overlap with no more than that.
    """

    whole: bool
    rows: int
    vector: int
    last: int
    loads: tuple[int, ...]
    stores: tuple[int, ...]
    room: int

    def cycles(self, vectors: int, share: float = 1.0, of: int | None = None) -> int:
        """Return the vector unit's cycles (or some ``of`` them) on so many vectors, or on a share of their columns."""
        each = self.vector if of is None else of
        return -(-round(each * vectors * share) // self.rows)

    def held(self, vectors: int) -> int:
        """Return the bytes of the buffer that working on so many whole rows at a time takes, at most ``rows``."""
        return self.room * min(vectors, self.rows)

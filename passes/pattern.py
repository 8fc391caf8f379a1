"""N:M patterns: the value, how it is written, and how the one already in a weight is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..isa.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatMatrix = NDArray[np.float32]

BLOCKS = (2, 4, 8, 16)
"""The block lengths M that a cell's index can address (log2 M = 1 to 4 bits)."""


@dataclass(frozen=True, order=True)
class NM:
    """At most `n` nonzero weights in each aligned block of `m` along the input dimension, in every output row.

    The last block of a row may be shorter: of t < m positions it keeps at most min(n, t).

    Raises:
        UsageError: `m` is not 1, 2, 4, 8 or 16, or not 1 <= n <= m.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if self.m != 1 and self.m not in BLOCKS:
            raise UsageError("M must be one of 2, 4, 8, 16", where=f"{self.n}:{self.m}")
        if self.n < 1:
            raise UsageError("N must be at least 1", where=f"{self.n}:{self.m}")
        if self.n > self.m:
            raise UsageError("N must not exceed M", where=f"{self.n}:{self.m}", remedy="N counts the weights kept")

    @classmethod
    def parse(cls, text: str) -> NM:
        """Read ``4:8`` or ``dense``.

        Raises:
            UsageError: the text is neither, or breaks a rule of the pattern.
        """
        if text.strip() == "dense":
            return DENSE
        n, colon, m = (part.strip() for part in text.partition(":"))
        if not (colon and n.isdecimal() and m.isdecimal()):
            raise UsageError("not an N:M pattern", where=text, remedy="write it as 4:8, or dense")
        return cls(int(n), int(m))

    @property
    def is_dense(self) -> bool:
        """Whether every weight is kept, so that no index is needed."""
        return self.n == self.m

    @property
    def index_bits(self) -> int:
        """Bits of index stored with each kept weight: log2 M, none when dense."""
        return 0 if self.is_dense else self.m.bit_length() - 1

    @property
    def density(self) -> float:
        """Share of weights kept, n / m."""
        return self.n / self.m

    def kept(self, k: int) -> int:
        """Weights that a row of `k` positions keeps at most, the shorter last block included."""
        blocks, tail = divmod(k, self.m)
        return blocks * self.n + min(self.n, tail)

    def stored_bits(self, k: int) -> int:
        """Bits that a row of `k` positions takes: INT8 weights kept, and the index of each."""
        return self.kept(k) * (8 + self.index_bits)

    def __str__(self) -> str:
        return "dense" if self.m == 1 else f"{self.n}:{self.m}"


DENSE = NM(1, 1)
"""Every weight kept, stored without indices."""


def covering(patterns: Iterable[NM]) -> NM:
    """Return the pattern with the fewest weights kept that every weight of these patterns also has.

    Its blocks are the longest: they hold whole shorter ones, the M being powers of two.
    """
    every = list(patterns)
    m = max(each.m for each in every)
    n = max(m if each.is_dense else each.n * (m // each.m) for each in every)
    return DENSE if n == m else NM(n, m)


Cost = Callable[[int, NM], tuple[float, float]]
"""(K of a weight, pattern) -> (cycles, bits) of one output row: what decides between patterns that all fit."""


def macro_cost(k: int, nm: NM, *, slots: int = 128, bus_bytes: int = 1024) -> tuple[float, float]:
    """Cycles a vector and stored bits of one output row of `k` weights on a macro with packed grouping.

    A tile holds floor(slots / N) blocks of M positions; a vector through a tile takes max(1, ceil(M * slots / (N *
    bus_bytes))) cycles, as its activations come over the bus. The defaults are the published macro: 4 sub-macros of
    32 rows, 1024 activations a cycle.
    """
    packed = DENSE if nm.is_dense else nm
    tile_k = slots // packed.n * packed.m
    cycles = max(1, -(-packed.m * slots // (packed.n * bus_bytes)))
    return float(-(-k // tile_k) * cycles), float(packed.stored_bits(k))


def detect(matrix: FloatMatrix, allowed_m: Iterable[int] = BLOCKS, cost: Cost = macro_cost) -> NM:
    """Find the N:M pattern that a weight already has, exactly.

    For each M of `allowed_m` the smallest N that every block of every row satisfies is taken; among those, and
    dense, the one with fewest cycles, then fewest bits by `cost` wins (then the smaller M).

    Args:
        matrix: weights [n, k], one output channel a row.
        allowed_m: the block lengths to look for.
        cost: cycles and bits of a row in a pattern.
    """
    k = matrix.shape[1]
    worst = block_maxima(matrix)
    fitting = [DENSE] + [NM(max(1, worst[m]), m) for m in sorted(allowed_m) if m > 1]
    return min((nm for nm in fitting if nm == DENSE or not nm.is_dense), key=lambda nm: (*cost(k, nm), nm.m))


def fits(matrix: FloatMatrix, nm: NM) -> bool:
    """Return whether every aligned block of every row of `matrix` [n, k] has at most `nm.n` nonzeros."""
    return nm.is_dense or block_maxima(matrix)[nm.m] <= nm.n


def block_maxima(matrix: FloatMatrix) -> dict[int, int]:
    """Most nonzeros in any aligned block of M positions of any row of `matrix` [n, k], for each M of `BLOCKS`."""
    import numpy as np

    n, k = matrix.shape
    worst = dict.fromkeys(BLOCKS, 0)
    rows = max(1, _CHUNK // max(1, k))
    padded = -(-k // BLOCKS[-1]) * BLOCKS[-1]
    for start in range(0, n, rows):
        part = matrix[start : start + rows]
        counts = np.zeros((len(part), padded), np.uint8)
        np.not_equal(part, 0, out=counts[:, :k], casting="unsafe")
        for m in BLOCKS:
            counts = counts[:, 0::2] + counts[:, 1::2]
            worst[m] = max(worst[m], int(counts.max(initial=0)))
        if all(worst[m] == m for m in BLOCKS):
            break  # nothing fits but dense; the rest cannot change that
    return worst


_CHUNK = 1 << 20
"""Weights looked at in one go: the byte-sized counts then stay in the cache."""

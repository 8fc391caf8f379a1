"""Mapping: how one linear is cut into tiles and in which order they run, chosen by the instructions' own durations.

A linear multiplies ``rows`` vectors of length K by a weight of N columns. A tile is what one macro holds: ``depth``
positions of K (``blocks`` blocks of M) by 32 columns. ``macros`` x ``slices`` macros work at once: ``macros`` on
neighbouring columns, each ``slices`` of them on different parts of K whose sums are then added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, product
from typing import TYPE_CHECKING

from ..isa.instruction import Groups
from .estimate import estimate
from .layout import aligned
from .pattern import DENSE, NM
from .tail_cost import TailCost

if TYPE_CHECKING:
    from ..isa.machine import Machine

#: Part of the buffer that is left for what is small: scales and rounding up to whole slots.
RESERVED = 2048
#: The estimate is about that close to the timed program, so mappings within it count as equally fast.
TOLERATED = 0.03
#: Share of a dense weight's bits from which on storing a sparse one as dense may pay.
DENSE_WORTH_TRYING = 0.7


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class LinearShape:
    """What is to be mapped: vectors, their length, output columns, the weight's pattern."""

    rows: int
    k: int
    n: int
    pattern: NM
    #: The block of vectors in the buffer is a multiple of this many (a row of pixels of a Conv).
    unit: int = 1
    #: Column groups must cover the N columns without padding: another part follows them.
    exact: bool = False
    #: The weight is made at run time: its tiles come a whole column group at a time, and several groups are exact.
    written: bool = False
    #: Row work that follows while results are in the buffer; several column groups must then be exact.
    tail: TailCost | None = None
    #: The N columns are so many equal parts, of whose columns the row work reads one each: a column group takes as many
    #: of each, side by side.
    branches: int = 1


@dataclass(frozen=True)
class Run:
    """``count`` pieces of ``size`` vectors each, the first from row ``start`` of the block on, ``step`` rows apart."""

    start: int
    count: int
    size: int
    step: int


@dataclass(frozen=True)
class Mapping:
    """One way to cut a linear; see the module.

    ``resident_rows`` vectors lie in the buffer at once and are worked on ``vectors`` at a time (see ``runs``); weights
    come a column group at a time (or, with ``by_step``, one step of K at a time) into ``weight_slots`` slots of the
    buffer. ``acc_slots`` halves of the accumulators and ``out_slots`` slots for results take turns.
    """

    shape: LinearShape
    pattern: NM
    blocks: int
    steps: int
    slices: int
    macros: int
    col_groups: int
    vectors: int
    resident_rows: int
    by_step: bool
    weight_slots: int
    acc_slots: int
    out_slots: int
    tile_bytes: int

    @property
    def pieces(self) -> int:
        """Pieces of vectors in a block of rows."""
        return _ceil(self.resident_rows, self.vectors)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The pieces as runs of equal ones."""
        return runs_of(self.resident_rows, self.vectors)

    @property
    def ahead(self) -> bool:
        """Whether a column group's weights can come while the group before is worked on, however long control waits.

        The slots must take turns by column group, from the first on, and those of pieces by piece: the last groups have
        loops of their own, which begin with the first slot, so an even number of pieces must have come before.
        """
        turning = self.col_groups > 1 and self.weight_slots == 2 and self.runs[0].count > 1
        even = sum(run.count for run in self.runs) % 2 == 0
        return turning and even and not (self.by_step or self.shape.written or self.resident_rows < self.shape.rows)

    @property
    def depth(self) -> int:
        """Positions of K in a tile."""
        return self.blocks * self.pattern.m

    @property
    def k_padded(self) -> int:
        """Length of a vector in the buffer: K rounded up to whole tiles."""
        return self.depth * self.slices * self.steps

    @property
    def columns(self) -> int:
        """Columns of a column group."""
        return self.macros * 32

    @property
    def width(self) -> int:
        """Columns of a column group that results are taken of: all, unless the only group is wider than N."""
        return min(self.columns, self.shape.n)

    @property
    def branch_columns(self) -> int:
        """Columns of a column group that belong to one branch."""
        return self.columns // self.shape.branches

    @property
    def branch_width(self) -> int:
        """Columns of a branch that results of a column group are taken of."""
        return self.width // self.shape.branches

    @property
    def n_padded(self) -> int:
        """N rounded up to whole column groups."""
        return self.columns * self.col_groups

    @property
    def step_bytes(self) -> int:
        """Weight bytes of one step of K of one column group."""
        return self.slices * self.macros * self.tile_bytes

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales and biases of one column group."""
        return 2 * 4 * self.columns

    @property
    def group_bytes(self) -> int:
        """Bytes of one column group as they lie in DRAM: scales and biases, then the tiles step by step."""
        return aligned(self.scale_bytes) + aligned(self.steps * self.step_bytes)

    @property
    def slot_bytes(self) -> int:
        """Bytes of a weight slot of the buffer."""
        return self.step_bytes if self.by_step else self.group_bytes

    def buffer_bytes(self, resident: bool) -> int:
        """Return the bytes of buffer that the mapping needs."""
        rows = aligned(self.resident_rows * self.k_padded) + aligned(4 * self.resident_rows)
        out = self._result_bytes()
        scales = 2 * aligned(self.scale_bytes) if self.by_step or resident else 0
        weights = 0 if resident else self.weight_slots * aligned(self.slot_bytes)
        return rows + out + scales + weights + RESERVED

    def _result_bytes(self) -> int:
        """Return the bytes for results: slots of pieces, or what a tail works on and all that it needs besides."""
        tail = self.shape.tail
        if tail is None:
            return self.out_slots * aligned(4 * self.vectors * self.columns)
        if tail.whole:
            return aligned(4 * self.resident_rows * self.shape.n) + tail.held(self.resident_rows) + RESERVED
        share = self.vectors * self.width / self.shape.n
        return aligned(4 * self.vectors * self.width) + round(tail.room * share) + RESERVED


@lru_cache(maxsize=4096)
def choose(shape: LinearShape, machine: Machine) -> Mapping | None:
    """Return the mapping with the fewest instructions among those about as fast as the fastest; None: none fits.

    Instructions cost energy and time in the control processor that the estimate leaves out. A weight whose pattern
    saves nothing here (say 7:8) may run as dense.
    """
    dense = [DENSE] if _stored_share(shape.pattern) > DENSE_WORTH_TRYING else []
    patterns = dict.fromkeys([shape.pattern, *dense])
    macros = machine.array.macros
    while not (fitting := [each for pattern in patterns for each in candidates(shape, pattern, machine, macros)]):
        if macros == 1:
            return None
        macros //= 2  # the buffer is too small for tiles of all macros at once
    costs = [(estimate(mapping, groups_of(mapping, machine), machine), mapping) for mapping in fitting]
    limit = min(cycles for cycles, _ in costs) * (1 + TOLERATED)
    return min((each for each in costs if each[0] <= limit), key=lambda each: (instructions(each[1]), each[0]))[1]


def instructions(mapping: Mapping) -> int:
    """Return about how many instructions the loops of a mapping issue."""
    blocks, pieces = _ceil(mapping.shape.rows, mapping.resident_rows), mapping.pieces
    a_step = 4 if mapping.by_step else 3
    return blocks * mapping.col_groups * (6 + pieces * (4 + mapping.slices + mapping.steps * a_step))


def _stored_share(pattern: NM) -> float:
    """Return the stored bits of a weight over those of a dense one."""
    return pattern.density * (8 + pattern.index_bits) / 8


def candidates(shape: LinearShape, pattern: NM, machine: Machine, macros: int) -> Iterator[Mapping]:
    """Yield the mappings on at most so many macros that fit the buffer and are worth comparing.

    More slots never take longer, so of mappings that differ in nothing else the first that fits will do.
    """
    for base, acc_slots in product(_tilings(shape, pattern, machine, macros), (2, 1)):
        limit = machine.array.accumulator_vectors // acc_slots
        for resident in _row_blocks(shape, limit):
            sized = replace(base, vectors=_even(resident, limit), resident_rows=resident, acc_slots=acc_slots)
            for by_step in (False, True) if resident <= limit and not shape.written else (False,):
                slotted = (
                    replace(sized, by_step=by_step, weight_slots=weight_slots, out_slots=out_slots)
                    for weight_slots, out_slots in product((2, 1), (2, 1))
                )
                resident_weights, room = machine.array.resident, machine.buffer.bytes
                yield from islice((each for each in slotted if each.buffer_bytes(resident_weights) <= room), 1)


def _tilings(shape: LinearShape, pattern: NM, machine: Machine, most: int) -> Iterator[Mapping]:
    array, branches = machine.array, shape.branches
    total = _ceil(shape.k, pattern.m)
    tiles = _ceil(total, machine.blocks_per_tile(pattern.n, pattern.m))
    column_tiles = _ceil(shape.n // branches, array.columns)
    slices = 1
    while slices <= min(16, tiles, most // branches):
        steps = _ceil(tiles, slices)
        blocks = _ceil(total, steps * slices)
        groups = _ceil(column_tiles, min(column_tiles, most // branches // slices))
        tile_bytes = machine.tile_bytes(pattern.n, pattern.m, blocks)
        macros = _ceil(column_tiles, groups)
        slices *= 2
        padded = macros * groups != column_tiles or shape.n // branches % array.columns
        if padded and (shape.exact or ((shape.written or shape.tail) and groups > 1)):
            continue
        wide = macros * branches
        yield Mapping(shape, pattern, blocks, steps, slices // 2, wide, groups, 1, 1, False, 1, 1, 1, tile_bytes)


def _even(rows: int, most: int) -> int:
    """Return the size of the fewest pieces of at most ``most`` rows, of equal size where possible."""
    pieces = _ceil(rows, most)
    return _ceil(rows, pieces)


def runs_of(rows: int, vectors: int) -> tuple[Run, ...]:
    """Return runs that cover all rows in pieces of at most ``vectors``, at most one more than needed.

    Slots take turns from one iteration of a loop to the next, so that a run must not have a single piece, and must have
    an even number where another follows. What does not divide is covered by pieces that overlap by a few rows, which
    are then worked on twice.
    """
    whole, rest = divmod(rows, vectors)
    if not rest:
        return (Run(0, whole, vectors, vectors),)
    if (rows - vectors) % whole == 0:
        return (Run(0, whole + 1, vectors, (rows - vectors) // whole),)
    if whole % 2:
        whole, rest = whole - 1, rest + vectors
    return Run(0, whole, vectors, vectors), Run(whole * vectors, 2, _ceil(rest, 2), rest // 2)


def _row_blocks(shape: LinearShape, limit: int) -> Iterator[int]:
    """Yield sizes of the block of vectors held in the buffer, from all of them down to one unit."""
    held = shape.rows
    while held > shape.unit:
        yield held
        held = min(held - 1, _even(held, max(limit, held // 2) if held > limit else max(1, held // 2)))
        held = max(shape.unit, held // shape.unit * shape.unit)
    yield held


def groups_of(mapping: Mapping, machine: Machine) -> Groups:
    """Return the sub-macro grouping of a mapping."""
    array, pattern = machine.array, mapping.pattern
    bits = machine.index_bits(pattern.m)
    return Groups(pattern.n, pattern.m, mapping.blocks, bits, array.packing, array.select)

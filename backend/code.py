"""Writing instructions: loops, the buffer of one kernel, taps and ops; :mod:`.assign` gives streams their registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..isa.fields import Value
from ..isa.instruction import LEVELS, Operands
from ..isa.machine import Machine
from ..isa.program import Op, Tap, Tile
from ..isa.streams import DTYPES, Step, Stream
from ..isa.table import BY_MNEMONIC
from ..passes.layout import aligned
from .units import Line, Unit, register_count
from .views import Storage


class DoesNotFit(Exception):
    """A kernel needs more buffer, streams or loop levels than there are; its plan must be smaller."""


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel: ``level`` is its counter; a loop of one iteration has none and costs nothing.

    ``tile`` says what it goes over, for listings.
    """

    count: int
    level: int | None
    tile: Tile | None = None

    def over(self, what: str, unit: str, size: int, *, step: int | None = None, start: int = 0, limit: int = 0) -> Loop:
        """Return the loop, saying which ``unit`` of a kernel each iteration works on; see :class:`..isa.program.Tile`.

        Iterations follow one another without gaps where no ``step`` is given.
        """
        step = size if step is None else step
        step = step if self.count > 1 else 0
        return replace(self, tile=Tile(0, what, self.count, unit, size, step, start, limit))

    def step(self, by: int, mod: int = 0) -> list[Step]:
        """Return the step of a stream that moves ``by`` bytes an iteration, if it moves at all."""
        return [Step(self.level, by, mod)] if self.level is not None and by and mod != 1 else []


@dataclass(frozen=True)
class Moving:
    """Where a storage lies in each turn of a loop over nodes: ``by`` bytes further each time, round a ring or not.

    Kernels inside such a loop are written for one turn; they see an address of :data:`MOVING` in its place.
    """

    storage: Storage
    offset: int
    by: int
    period: int = 0


#: The address from which on addresses stand for storages that move: number i for those around (i + 1) * MOVING.
MOVING = 1 << 44


@dataclass
class Pending:
    """An instruction whose streams have no registers yet."""

    mnemonic: str
    streams: dict[str, Stream] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    taps: list[Tap] = field(default_factory=list)

    def wait(self, *tokens: int) -> Pending:
        """Make it wait for these semaphores too."""
        return self._more("wait", tokens)

    def post(self, *tokens: int) -> Pending:
        """Make it post these semaphores too."""
        return self._more("post", tokens)

    def _more(self, name: str, tokens: tuple[int, ...]) -> Pending:
        before = self.values.get(name, ())
        assert isinstance(before, tuple)
        self.values[name] = (*before, *tokens)
        return self


@dataclass
class Block:
    """A loop around instructions and loops."""

    loop: Loop
    body: Tree


Tree = list[Pending | Block]
"""Instructions and loops around instructions, in order."""


def nest(loops: Sequence[Loop], body: Tree) -> Tree:
    """Return the body inside these loops, the outermost first."""
    for loop in reversed(loops):
        body = [Block(loop, body)]
    return body


def leaves(tree: Sequence[Pending | Block]) -> Iterator[Pending]:
    """Yield the instructions of a tree in order."""
    for item in tree:
        if isinstance(item, Pending):
            yield item
        else:
            yield from leaves(item.body)


def busy(pending: Pending, machine: Machine) -> int:
    """Return the cycles that an instruction keeps its engine busy."""
    rule = BY_MNEMONIC[pending.mnemonic].duration
    return 0 if rule is None else rule(Operands(machine, pending.values, pending.streams)).busy


class Semaphores:
    """The semaphores that all kernels share.

    ``*_FULL`` count what is there to be read and are 0 between kernels. ``EMPTY[name][slots - 1]`` counts free slots:
    the first of the pair holds one token between kernels, for a single slot, the second holds two.
    """

    IN_FULL, OUT_FULL, CELLS_FULL, ACC_FULL, WEIGHTS_FULL, SCALES_FULL, ROWS_FULL, ZEROS_FULL, HELD_FULL = range(1, 10)
    EMPTY: ClassVar[dict[str, tuple[int, int]]] = {
        name: (10 + 2 * place, 11 + 2 * place)
        for place, name in enumerate(("in", "out", "cells", "acc", "weights", "scales", "rows", "sums"))
    }

    @classmethod
    def prologue(cls) -> list[Pending]:
        """Return the instructions that put the first tokens in."""
        code: list[Pending] = []
        for one, two in cls.EMPTY.values():
            code += [Pending("sync", {}, {"engine": "vector"}).post(one, two)]
            code += [Pending("sync", {}, {"engine": "vector"}).post(two)]
        return code


class Builder:
    """Collects the code of a program, unit by unit; places in it count lines until streams have registers."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.units: list[Unit] = []
        self.length = 0
        self.ops: list[Op] = []
        self.taps: list[Tap] = []
        self.tiles: list[Tile] = []
        self._moving: Sequence[Moving] = ()
        self._outer: list[Loop] = []
        self.begin_kernel()

    def begin_kernel(self) -> None:
        """Forget the loops and the buffer of the kernel before."""
        self._depth = len(self._outer)
        self._buffer_top = 0

    def begin_turns(self, count: int, moving: Sequence[Moving]) -> None:
        """Open a loop around whole kernels, in which the storages of ``moving`` move."""
        self.begin_kernel()
        self._outer, self._moving = self.loops(count), moving
        self.tiles.append(Tile(self.length, "turn", count))
        self.emit("loop", level=0, count=count)

    def end_turns(self) -> None:
        """Close the loop around kernels."""
        self.emit("endloop", level=0)
        self._outer, self._moving = [], ()
        self.begin_kernel()

    def emit(self, mnemonic: str, **values: Value) -> None:
        """Add an instruction without streams."""
        self._add([Line(mnemonic, {}, values)])

    def _add(self, lines: list[Line]) -> None:
        self.units.append(Unit(lines))
        self.length += len(lines)

    def buffer(self, size: int, slots: int = 1) -> int:
        """Return the address of ``slots`` pieces of the on-chip buffer of ``size`` bytes, each aligned."""
        address = self._buffer_top
        self._buffer_top += slots * aligned(size)
        if self._buffer_top > self.machine.buffer.bytes:
            raise DoesNotFit(f"{self._buffer_top} bytes of buffer")
        return address

    def _placed(self, stream: Stream) -> Stream:
        """Return a stream on a storage that moves as it is in the first turn, with the step that moves it."""
        number, offset = divmod(stream.base + MOVING // 2, MOVING)
        if stream.space not in ("dram", "const") or not number:
            return stream
        each = self._moving[number - 1]
        base = each.storage.address + each.offset + offset - MOVING // 2
        moves = self._outer[0].step(each.by, each.period)
        return replace(stream, base=base, steps=(*moves, *stream.steps))

    def loops(self, *counts: int) -> list[Loop]:
        """Return nested loops, the outermost first; levels go to those that turn more than once."""
        loops = []
        for count in counts:
            loops.append(Loop(count, self._depth if count > 1 else None))
            self._depth += count > 1
        if self.free_levels < 0:
            raise DoesNotFit(f"{self._depth} loop levels")
        return loops

    @property
    def free_levels(self) -> int:
        """Loops that there are still levels for."""
        return min(LEVELS, self.machine.control.loop_levels) - self._depth

    def end_loops(self, loops: Sequence[Loop]) -> None:
        """Give the levels of these loops back: what follows may use them again."""
        self._depth -= sum(loop.level is not None for loop in loops)

    def write(self, tree: Sequence[Pending | Block]) -> None:
        """Write the instructions and loops of a tree, whose streams are all set before it begins."""
        lines: list[Line] = []
        self._write(tree, lines)
        needed = len({stream for line in lines for stream in line.streams.values()})
        if needed > register_count(self.machine):
            raise DoesNotFit(f"{needed} streams")
        self._add(lines)

    def _write(self, tree: Sequence[Pending | Block], lines: list[Line]) -> None:
        for item in tree:
            here = self.length + len(lines)
            if isinstance(item, Pending):
                placed = {name: self._placed(stream) for name, stream in item.streams.items()}
                lines.append(Line(item.mnemonic, placed, dict(item.values)))
                self.taps += [replace(tap, pc=here) for tap in item.taps]
                continue
            if item.loop.tile is not None:
                self.tiles.append(replace(item.loop.tile, pc=here))
            if item.loop.level is None:
                self._write(item.body, lines)
            else:
                lines.append(Line("loop", {}, {"level": item.loop.level, "count": item.loop.count}))
                self._write(item.body, lines)
                lines.append(Line("endloop", {}, {"level": item.loop.level}))


def window(
    space: str,
    dtype: str,
    base: int,
    shape: tuple[int, int],
    pitch: tuple[int, int] | None = None,
    steps: Sequence[Step] = (),
) -> Stream:
    """Return a stream over rows x cols with (row, column) pitches in bytes; dense where none are given."""
    stream = Stream.dense(space, dtype, base, *shape)
    if pitch is not None:
        stream = normalised(replace(stream, row_pitch=pitch[0], col_pitch=pitch[1]))
    return replace(stream, steps=tuple(sorted(steps, key=lambda step: step.level)))


def normalised(stream: Stream) -> Stream:
    """Return the stream with the pitches of single rows and columns set to the dense ones: they mean nothing."""
    size = DTYPES[stream.dtype]
    col = size if stream.cols == 1 else stream.col_pitch
    row = stream.cols * size if stream.rows == 1 else stream.row_pitch
    return replace(stream, row_pitch=row, col_pitch=col)


def turned(stream: Stream) -> Stream:
    """Return the stream with rows and columns exchanged."""
    return replace(stream, rows=stream.cols, cols=stream.rows, row_pitch=stream.col_pitch, col_pitch=stream.row_pitch)

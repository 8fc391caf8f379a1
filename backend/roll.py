"""Ops that come again with addresses that move evenly, such as the layers of a network, become one loop.

The code of every op is compared line by line, addresses of weights and values apart. Where a sequence of ops repeats
with a period, these addresses decide: from one turn to the next each moves by the same distance, or to and fro between
two places, as values do that replace one another. Constants of like layers lie evenly because they are placed in the
order of use, values because memory is given out alike for like lifetimes; where they do not, code stays as it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..isa.instruction import LEVELS, STREAMS
from ..isa.machine import Machine
from ..isa.program import EVERY, Op, Tap, Tile
from ..isa.streams import Step, Stream
from ..passes.periods import Stretch, stretches
from .rings import fillers
from .units import Line, Unit

#: Instructions that a loop must save to be worth it.
_LEAST_SAVED = 16
#: Ops of a stretch that are tried as the first of a turn.
_MOST_SHIFTS = 64
#: Memories in which addresses may differ from turn to turn: in the others every kernel begins anew.
_MOVING = ("const", "dram", "cells")

_Bases: TypeAlias = npt.NDArray[np.int64]


@dataclass
class Written:
    """Code without registers, and what is known about its lines."""

    units: list[Unit]
    ops: list[Op]
    taps: list[Tap]
    tiles: list[Tile]


@dataclass(frozen=True)
class Turns:
    """Ops of which each ``period`` is a turn of one loop, and how the addresses in the lines of a turn move.

    ``before`` are lines that come before each line of a turn, and at last those after it.
    """

    start: int
    period: int
    count: int
    moves: tuple[tuple[Step, ...], ...]
    before: Sequence[Sequence[Line]]


def roll(code: Written, machine: Machine) -> Written:
    """Return the code with loops around what repeats; ops and taps inside hold in their own iteration."""
    lines = [line for unit in code.units for line in unit.lines]
    signs = _signs(code.ops, lines, min(LEVELS, machine.control.loop_levels))
    found = [turns for stretch in stretches(signs, least=2) for turns in _even(code.ops, lines, stretch)]
    return _Writer(code, found).written() if found else code


def _signs(ops: Sequence[Op], lines: Sequence[Line], levels: int) -> list[int]:
    """Return a number for each op: equal for ops with the same code, addresses of weights and values apart."""
    numbers: dict[Hashable, int] = {}
    signs = []
    for place, op in enumerate(ops):
        own = lines[op.first : op.last]
        apart = place > 0 and ops[place - 1].last != op.first
        alone = apart or max(map(_level, own), default=0) + 1 >= levels
        signs.append(numbers.setdefault(place if alone else tuple(map(_sign, own)), len(numbers)))
    return signs


def _sign(line: Line) -> Hashable:
    streams = tuple((name, replace(each, base=0) if _moves(each) else each) for name, each in line.streams.items())
    return line.mnemonic, streams, repr(sorted(line.values.items()))  # 0.0 and -0.0 are equal but not alike


def _moves(stream: Stream) -> bool:
    return stream.space in _MOVING


def _level(line: Line) -> int:
    level = line.values.get("level", 0)
    assert isinstance(level, int)
    return level


def _even(ops: Sequence[Op], lines: Sequence[Line], stretch: Stretch) -> list[Turns]:
    """Return the turns of a stretch in which all addresses move evenly, from the first op on that gives the most."""
    rest = stretch.stop - stretch.start - stretch.turns * stretch.period
    bases = [_bases(lines[op.first : op.last]) for op in ops[stretch.start : stretch.stop]]
    tried = (
        list(_runs(ops, lines, Stretch(stretch.start + shift, stretch.stop, stretch.period), bases[shift:]))
        for shift in range(min(rest, _MOST_SHIFTS) + 1)
    )
    return max(tried, key=lambda found: sum((turns.count - 1) * turns.period for turns in found))


def _runs(
    ops: Sequence[Op], lines: Sequence[Line], stretch: Stretch, bases: Sequence[Sequence[int]]
) -> Iterator[Turns]:
    """Yield turns side by side in which all addresses move evenly, with the first op of the stretch a first one."""
    period, starts = stretch.period, range(0, stretch.turns * stretch.period, stretch.period)
    even = _Evenness(np.array([[*chain(*bases[start : start + period])] for start in starts], np.int64))
    turn = lines[ops[stretch.start].first : ops[stretch.start + period - 1].last]
    needed = len({stream for line in turn for stream in line.streams.values()})
    before = fillers(turn)
    if before is None:
        return
    filling = sum(map(len, before))
    around = 0 if needed <= STREAMS else 2 * STREAMS  # registers that may have to be set before the loop, and after
    place = 0
    while place < len(starts) - 1:
        end = even.end(place)
        if even.end(place + 1) > end + 1:  # the first turn is not like the others
            place += 1
            continue
        moves = even.moves(place, end)
        if (end - place - 1) * len(turn) - sum(map(len, moves)) - around - filling >= _LEAST_SAVED:
            yield Turns(stretch.start + starts[place], period, end - place, moves, before)
        place = end


def _bases(lines: Sequence[Line]) -> list[int]:
    return [stream.base for line in lines for stream in line.streams.values() if _moves(stream)]


class _Evenness:
    """Addresses by turn, and how far they go on evenly."""

    def __init__(self, bases: _Bases) -> None:
        self.bases = bases
        self.straight = bases[2:] - bases[1:-1] == bases[1:-1] - bases[:-2]
        self.to_and_fro = bases[2:] == bases[:-2]

    def end(self, first: int) -> int:
        """Return the turn up to which every address moves evenly from a first one on."""
        straight = to_and_fro = np.ones(self.bases.shape[1], np.bool_)
        for place in range(first, len(self.straight)):
            straight, to_and_fro = straight & self.straight[place], to_and_fro & self.to_and_fro[place]
            if not np.all(straight | to_and_fro):
                return place + 2
        return len(self.bases)

    def moves(self, first: int, end: int) -> tuple[tuple[Step, ...], ...]:
        """Return how each address moves in these turns: by a step, or not at all."""
        by = self.bases[first + 1] - self.bases[first]
        straight = np.all(self.straight[first : end - 2], axis=0)
        return tuple(
            (Step(0, distance, 0 if on else 2),) if distance else ()
            for distance, on in zip(by.tolist(), straight.tolist(), strict=True)
        )


class _Writer:
    """Writes the code anew: of every loop one turn, all else as it is."""

    def __init__(self, code: Written, loops: Sequence[Turns]) -> None:
        self.code, self.loops = code, loops
        self.units: list[Unit] = []
        self.tiles: list[Tile] = []
        self.length = 0
        #: For every line its place in the new code, and in which iteration of a loop around whole ops it stands.
        self.places: list[int] = []
        self.iterations: list[int] = []

    def written(self) -> Written:
        """Return the new code."""
        ops, units = self.code.ops, iter(self.code.units)
        for loop in self.loops:
            while len(self.places) < ops[loop.start].first:
                self._keep(next(units))
            self._roll(loop, units)
        for unit in units:
            self._keep(unit)
        tiles = [self._tile(tile) for tile in self.code.tiles if self.iterations[tile.pc] in (EVERY, 0)]
        tiles = sorted([*self.tiles, *tiles], key=lambda tile: tile.pc)
        return Written(self.units, list(map(self._op, ops)), list(map(self._tap, self.code.taps)), tiles)

    def _keep(self, unit: Unit) -> None:
        self.places += range(self.length, self.length + len(unit.lines))
        self.iterations += [EVERY] * len(unit.lines)
        self._add(unit)

    def _roll(self, loop: Turns, units: Iterator[Unit]) -> None:
        """Write a loop: the lines of its first turn, those of the others are the same."""
        self.tiles.append(Tile(self.length, "turn", loop.count))
        self._add(Unit([Line("loop", {}, {"level": 0, "count": loop.count})]))
        lines = len(loop.before) - 1
        places = self.length + np.arange(lines) + np.cumsum([*map(len, loop.before[:-1])])
        self.places += places.tolist() * loop.count
        self.iterations += [turn for turn in range(loop.count) for _ in range(lines)]
        before, moves = iter(loop.before), iter(loop.moves)
        for unit in _taken(units, lines):
            self._add_turning(unit, before, moves)
        self._fill(next(before))
        self._add(Unit([Line("endloop", {}, {"level": 0})]))
        _taken(units, (loop.count - 1) * lines)

    def _add_turning(self, unit: Unit, before: Iterator[Sequence[Line]], moves: Iterator[tuple[Step, ...]]) -> None:
        """Add a unit of a turn: what comes before its first line is a unit of its own."""
        filled = [(next(before), line) for line in unit.lines]
        self._fill(filled[0][0])
        inside = [each for fill, line in filled[1:] for each in (*fill, line)]
        self._add(Unit([_moving(line, moves) for line in (unit.lines[0], *inside)]))

    def _fill(self, lines: Sequence[Line]) -> None:
        if lines:
            self._add(Unit([_moving(line, iter(())) for line in lines]))

    def _add(self, unit: Unit) -> None:
        self.units.append(unit)
        self.length += len(unit.lines)

    def _op(self, op: Op) -> Op:
        first, last = self.places[op.first], self.places[op.last - 1] + 1
        return replace(op, first=first, last=last, iteration=self.iterations[op.first])

    def _tap(self, tap: Tap) -> Tap:
        place, iteration = self.places[tap.pc], self.iterations[tap.pc]
        if iteration == EVERY:
            return replace(tap, pc=place)
        steps, col_steps = _deeper(tap.steps), _deeper(tap.col_steps)
        turn = tap.turn + 1 if tap.names else tap.turn
        return replace(tap, pc=place, steps=steps, col_steps=col_steps, turn=turn, iteration=iteration)

    def _tile(self, tile: Tile) -> Tile:
        return replace(tile, pc=self.places[tile.pc])


def _taken(units: Iterator[Unit], lines: int) -> list[Unit]:
    """Take so many lines of units."""
    taken: list[Unit] = []
    while lines:
        taken.append(next(units))
        lines -= len(taken[-1].lines)
    return taken


def _moving(line: Line, moves: Iterator[tuple[Step, ...]]) -> Line:
    """Return a line as it stands in a loop around it: its own loops are a level deeper, addresses move."""
    streams = {
        name: replace(each, steps=(*(next(moves) if _moves(each) else ()), *_deeper(each.steps)))
        for name, each in line.streams.items()
    }
    level = {"level": _level(line) + 1} if "level" in line.values else {}
    return Line(line.mnemonic, streams, {**line.values, **level})


def _deeper(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(replace(step, level=step.level + 1) for step in steps)

"""Registers for streams: every unit finds its streams set, and as few as possible are set again.

In code without loops around units, the register set anew is the one whose stream is needed again last (L. A. Belady,
"A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966). What a turn of a
loop finds in a register is what the turn before has left there; so the body of a loop sets its own, but for some that
stay set in all turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

from ..isa.encoding import fits, instr
from ..isa.fields import Value
from ..isa.instruction import Instr
from ..isa.machine import Machine
from ..isa.program import Debug, Op, Tap, Tensor, Tile
from ..isa.streams import Stream
from .units import Unit, register_count

#: How many more streams stay set in all turns of a loop, from one number that is tried to the next.
_STEP = 4


@dataclass
class Run:
    """Units that follow one another."""

    units: list[Unit] = field(default_factory=list)


@dataclass
class Around:
    """A loop around units: its first and its last line are units of their own."""

    first: Unit
    body: list[Run | Around]
    last: Unit

    @property
    def count(self) -> int:
        """Its iterations."""
        count = self.first.lines[0].values["count"]
        assert isinstance(count, int)
        return count


Held: TypeAlias = Mapping[Stream, int]


@dataclass
class Assigned:
    """The code; and for every line the place of its instruction, and where what is set for it begins."""

    code: list[Instr] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def debug(self, ops: Iterable[Op], taps: Iterable[Tap], tiles: Iterable[Tile], tensors: Iterable[Tensor]) -> Debug:
        """Return what is known about lines as what is known about instructions."""
        starts = [*self.starts, len(self.code)]
        return Debug(
            ops=tuple(replace(op, first=starts[op.first], last=starts[op.last]) for op in ops),
            taps=tuple(replace(tap, pc=self.places[tap.pc]) for tap in taps),
            tiles=tuple(replace(tile, pc=self.places[tile.pc]) for tile in tiles),
            tensors=tuple(tensors),
        )


def assign(units: Sequence[Unit], machine: Machine) -> Assigned:
    """Return the code of units, none of which uses more streams than the machine has registers."""
    assigned, count = Assigned(), register_count(machine)
    _write(_parsed(iter(units), count), list(range(count)), {}, assigned)
    return assigned


def _parsed(units: Iterator[Unit], count: int) -> list[Run | Around]:
    """Return units up to the end of the loop that they stand in; loops that need few streams become units."""
    found: list[Run | Around] = [Run()]
    for unit in units:
        if unit.closes:
            return [*found, Run([unit])]
        if not unit.opens:
            _add(found, unit)
            continue
        *body, end = _parsed(units, count)
        assert isinstance(end, Run)
        loop = Around(unit, body, end.units[0])
        whole = Unit([line for each in (unit, *_units(body), loop.last) for line in each.lines])
        if len(whole.streams) <= count:
            _add(found, whole)
        else:
            found += [loop, Run()]
    return found


def _add(nodes: Sequence[Run | Around], unit: Unit) -> None:
    run = nodes[-1]
    assert isinstance(run, Run)
    run.units.append(unit)


def _write(nodes: Sequence[Run | Around], free: list[int], kept: Held, out: Assigned) -> None:
    for node in nodes:
        if isinstance(node, Run):
            chosen = [(unit, sets) for unit, sets in zip(node.units, _chosen(node, len(free), kept), strict=True)]
            _write_run(chosen, free, kept, out)
            continue
        inside = _kept(node, len(free), kept)
        registers = dict(zip(inside, free, strict=False))
        _write_unit(node.first, registers, {}, out)
        _write(node.body, free[len(inside) :], {**kept, **registers}, out)
        _write_unit(node.last, {}, {}, out)


def _write_run(chosen: Iterable[tuple[Unit, dict[Stream, int]]], free: list[int], kept: Held, out: Assigned) -> None:
    held: dict[int, Stream] = {}
    where = dict(kept)
    for unit, sets in chosen:
        for stream, place in sets.items():
            where.pop(held.get(place, stream), None)
            held[place], where[stream] = stream, free[place]
        _write_unit(unit, {stream: free[place] for stream, place in sets.items()}, where, out)


def _write_unit(unit: Unit, sets: Held, where: Held, out: Assigned) -> None:
    start = len(out.code)
    for stream, register in sets.items():
        out.code += _set(register, stream)
    for line in unit.lines:
        out.starts.append(start if line is unit.lines[0] else len(out.code))
        out.places.append(len(out.code))
        registers = {name: where[stream] for name, stream in line.streams.items()}
        out.code.append(instr(line.mnemonic, **registers, **line.values))


def _set(register: int, stream: Stream) -> Iterator[Instr]:
    kind: dict[str, Value] = {"space": stream.space, "dtype": stream.dtype}
    place = {"stream": register, "base": stream.base, "rows": stream.rows, "cols": stream.cols}
    steps = [{"level": step.level, "by": step.stride, "mod": step.period} for step in stream.steps]
    small = next((step for step in steps if fits("slide", **kind, **place, **step)), None)
    if small is None:
        yield instr("stream", **kind, **place)
    else:
        yield instr("slide", **kind, **place, **small)
    if not stream.is_dense:
        yield instr("pitch", stream=register, row=stream.row_pitch, col=stream.col_pitch)
    for step in steps:
        if step is not small:
            yield instr("step", stream=register, **step)


@lru_cache(1 << 14)
def cost(stream: Stream) -> int:
    """Return how many instructions set a stream."""
    return sum(1 for _ in _set(0, stream))


def _chosen(run: Run, count: int, kept: Held) -> list[dict[Stream, int]]:
    """Return for every unit the streams to set before it, and in which of ``count`` registers."""
    uses: dict[Stream, list[int]] = {}
    for place in reversed(range(len(run.units))):
        for stream in run.units[place].streams:
            uses.setdefault(stream, []).append(place)
    held: dict[Stream, int] = {}
    free = list(range(count - 1, -1, -1))
    chosen = []
    for unit in run.units:
        own = [stream for stream in unit.streams if stream not in kept]
        sets: dict[Stream, int] = {}
        for stream in own:
            uses[stream].pop()
        for stream in own:
            if stream not in held:
                register = free.pop() if free else held.pop(_least_needed(held, uses, set(own)))
                held[stream] = sets[stream] = register
        free.extend(held.pop(stream) for stream in own if not uses[stream])
        chosen.append(sets)
    return chosen


def _least_needed(held: Held, uses: Mapping[Stream, list[int]], own: set[Stream]) -> Stream:
    """Return what is held and needed again last; the unit's own streams stay."""
    return max((stream for stream in held if stream not in own), key=lambda stream: (uses[stream][-1], held[stream]))


def _kept(loop: Around, count: int, kept: Held) -> list[Stream]:
    """Return the streams that stay set in all turns of a loop: as many as make its turns set the fewest in all."""
    candidates = _candidates(loop, count, kept)

    def total(number: int) -> int:
        inside = dict.fromkeys([*kept, *candidates[:number]], 0)
        return sum(map(cost, candidates[:number])) + loop.count * sum(
            cost(stream) for run in _runs(loop) for sets in _chosen(run, count - number, inside) for stream in sets
        )

    numbers = [*range(0, len(candidates), _STEP), len(candidates)]
    return candidates[: min(numbers, key=total)]


def _candidates(loop: Around, count: int, kept: Held) -> list[Stream]:
    """Return streams that every unit leaves room for, those first whose setting costs most."""
    set_anew = Counter(stream for run in _runs(loop) for sets in _chosen(run, count, kept) for stream in sets)
    units = [set(unit.streams) for unit in _units(loop.body)]
    room = [count - len(streams - set(kept)) for streams in units]
    found = []
    for stream in sorted(set_anew, key=lambda each: -set_anew[each] * cost(each)):
        others = [place for place, streams in enumerate(units) if stream not in streams]
        if all(room[place] for place in others):
            found.append(stream)
            for place in others:
                room[place] -= 1
    return found


def _runs(loop: Around) -> Iterator[Run]:
    return (node for node in loop.body if isinstance(node, Run))


def _units(nodes: Iterable[Run | Around]) -> Iterator[Unit]:
    for node in nodes:
        if isinstance(node, Run):
            yield from node.units
        else:
            yield from _units(node.body)

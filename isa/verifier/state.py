"""Verifier, state: follows streams, groups and latched activations through the code and checks every access.

A loop's body is followed again as long as its state on entry changes: setting registers again to the same is all that
bodies do, so this is once or twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..instruction import Groups, Instr
from ..program import Program
from ..registers import SETTING, changed, groups_of, stream_of
from ..streams import Stream
from ..tensors import extent
from .access import Access, access_of_tensor
from .checks import Checks
from .flow import Flow, Loop
from .memory import Written
from .operands import group_problems

Problem = tuple[int, str]
_ROUNDS = 4
#: A body that sets registers inside loops in loops is followed several times; so often an instruction at most.
_VISITS = 64
#: Accesses noted an instruction, on average: the same again does not count.
_NOTED = 8
#: Elements that all instructions together may work on: more would not end in sensible time.
MOST_WORK = 10**15


def state_problems(flow: Flow, program: Program, uses: dict[int, dict[Access, None]]) -> Iterator[Problem]:
    """Yield instructions whose operands are not set, do not fit, or reach outside their memory.

    What each instruction touches is added to ``uses``.
    """
    walker = _Walker(flow, program, uses)
    yield from walker.block(0, len(flow.code))
    if walker.work > MOST_WORK:
        yield 0, f"the loops work on {walker.work} elements in all; allowed: {MOST_WORK}"


@dataclass
class _State:
    """What control has set so far."""

    streams: dict[int, Stream] = field(default_factory=dict)
    groups: Groups | None = None
    act: Stream | None = None

    def copy(self) -> _State:
        """Return the state as it is now."""
        return _State(dict(self.streams), self.groups, self.act)


class _Walker:
    """One pass over the code."""

    def __init__(self, flow: Flow, program: Program, uses: dict[int, dict[Access, None]]) -> None:
        self.uses = uses
        self.flow, self.program, self.machine = flow, program, program.machine
        self.checks = Checks(program)
        self.state = _State()
        self.open: Mapping[int, Loop] = {}
        self.totals: Mapping[int, int] = {}
        self.times, self.work, self.visits, self.noted = 1, 0, 0, 0
        self.written = {space: Written() for space in self.checks.sizes}
        self.loaded: dict[Groups, Written] = {}
        self.pc = 0
        self.later: list[tuple[int, str, str, list[tuple[int, int]]]] = []
        self.written["const"].add(0, self.checks.sizes["const"])
        for tensor in program.inputs:
            if tensor.space == "dram":
                self.written["dram"].add(*extent(tensor))

    def block(self, first: int, last: int) -> Iterator[Problem]:
        """Follow a stretch of code."""
        pc = first
        while pc < last:
            self.visits += 1
            loop = self.flow.loops.get(pc)
            if loop is not None:
                yield from self.loop(loop)
                pc = loop.last
            else:
                self.pc = pc
                for message in self.step(pc, self.flow.code[pc]):
                    yield pc, message
            pc += 1

    def loop(self, loop: Loop) -> Iterator[Problem]:
        """Follow a loop's body until its state on entry no longer changes."""
        totals = self.flow.totals[loop.first] if not self.open else self.totals
        self.enter({**self.open, loop.level: loop}, totals)
        self.times *= loop.count
        for _ in range(min(loop.count, _ROUNDS)):
            if self.visits > _VISITS * len(self.flow.code) or self.noted > _NOTED * len(self.flow.code) + 1000:
                yield loop.first, "loops in loops set registers again and again; set them before the outermost loop"
                break
            before = self.state.copy()
            yield from self.block(loop.first + 1, loop.last)
            if self.state == before:
                break
        self.times //= loop.count
        self.enter({level: each for level, each in self.open.items() if level != loop.level}, self.totals)
        if not self.open:
            yield from self.overdue()

    def enter(self, opened: Mapping[int, Loop], totals: Mapping[int, int]) -> None:
        """Note which loops are open."""
        self.open, self.totals = opened, totals
        self.checks.enter(opened, totals)

    def step(self, pc: int, instruction: Instr) -> Iterator[str]:
        """Follow one instruction."""
        if not instruction.spec.queued:
            yield from self.control(instruction)
        elif instruction.mnemonic == "host":
            yield from self.host(pc, instruction.integer("segment"))
        elif instruction.mnemonic != "sync":
            yield from self.execute(pc, instruction)

    def control(self, instruction: Instr) -> Iterator[str]:
        """Follow what sets registers."""
        streams, number = self.state.streams, instruction.values.get("stream")
        if instruction.mnemonic == "groups":
            self.state.groups = groups_of(instruction)
            yield from group_problems(self.state.groups, instruction, self.machine)
        elif instruction.mnemonic in SETTING:
            streams[instruction.integer("stream")] = self.checks.same(stream_of(instruction))
        elif isinstance(number, int):
            if number not in streams:
                yield f"s{number} is changed before a `stream` has set it"
                return
            streams[number] = self.checks.same(changed(streams[number], instruction))

    def host(self, pc: int, number: int) -> Iterator[str]:
        """A host segment reads and writes its tensors, which lie in their memories."""
        segment = self.program.segments[number]
        for tensor in segment.inputs:
            low, high = extent(tensor)
            if low < high and not self.written[tensor.space].meets(low, high):
                yield f"reads '{tensor.name}' at {low:#x} of {tensor.space}, where nothing has been written"
        for tensor in segment.outputs:
            self.written[tensor.space].add(*extent(tensor))
        accesses = [access_of_tensor(tensor, writes=False) for tensor in segment.inputs]
        accesses += [access_of_tensor(tensor, writes=True) for tensor in segment.outputs]
        self.uses[pc] = dict.fromkeys(access for access in accesses if access is not None)

    def execute(self, pc: int, instruction: Instr) -> Iterator[str]:
        """Check one instruction of an engine and note what it touches and writes."""
        streams: dict[str, Stream] = {}
        missing = list(self.operands(instruction, streams))
        if missing:
            yield from missing
            return
        checked = self.checks.checked(instruction, streams, self.state.groups)
        yield from checked.problems
        self.work += self.times * checked.work
        uses = self.uses.setdefault(pc, {})
        before = len(uses)
        uses.update(checked.uses)
        self.noted += len(uses) - before
        if checked.inside:
            yield from self.contents(instruction, streams, checked.reached)

    def operands(self, instruction: Instr, streams: dict[str, Stream]) -> Iterator[str]:
        """Find the operands; yield what is not set."""
        spec = instruction.spec
        for name in dict.fromkeys((*spec.writes, *spec.reads)):
            number = instruction.values.get(name)
            if name not in instruction.values and self.state.act is not None:
                streams[name] = self.state.act  # a mac reads what lda latched
            elif name not in instruction.values:
                yield "no `lda` has latched activations"
            elif isinstance(number, int) and number in self.state.streams:
                streams[name] = self.state.streams[number]
            elif number != -1:
                yield f"{name}=s{number} is used before a `stream` has set it"
        if instruction.mnemonic == "lda":
            self.state.act = streams.get("act")
        if instruction.mnemonic in ("ldw", "mac") and self.state.groups is None:
            yield f"{instruction.mnemonic} before any `groups`"

    def contents(
        self, instruction: Instr, streams: Mapping[str, Stream], accesses: Mapping[str, tuple[int, int]]
    ) -> Iterator[str]:
        """Check that what is read was written before; then note what is written."""
        reads = [name for name in instruction.spec.reads if name in streams]
        if instruction.values.get("mode") == "add":
            reads += instruction.spec.writes
        for name in reads:
            if streams[name].space != "cells":
                yield from self.read(name, streams[name], *accesses[name])
        groups = self.state.groups
        if "cells" in reads and groups is not None:
            written = self.loaded.get(groups)
            if written is None or not all(written.covers(*part) for part in self.checks.units(streams["cells"])):
                yield f"cells reads units that no `ldw` has written under {groups.n}:{groups.m}, {groups.blocks} blocks"
        for name in instruction.spec.writes:
            if name == "cells" and groups is not None:
                for part in self.checks.units(streams[name]):
                    self.load(groups, *part)
            else:
                self.written[streams[name].space].add(*accesses[name])

    def read(self, name: str, stream: Stream, low: int, high: int) -> Iterator[str]:
        """Check that all of what is read was written; of what has gaps or moves, the first and the last element.

        A loop's first turn must find it written before; later turns may read what turns of the same loop have written.
        """
        written = self.written[stream.space]
        if not written.meets(low, high):
            yield f"{name} reads {stream.space} at {low:#x}, where nothing has been written"
            return
        gapless = high - low == stream.bytes and stream.runs()[0] == 1
        parts = [(low, high)] if gapless else _edges(low, high, stream)
        if all(written.covers(*part) for part in parts):
            return
        message = f"{name} reads {stream.space} at {low:#x}..{high:#x}, of which only a part has been written"
        start, end = (stream.base + edge for edge in stream.extent())
        if self.open and all(written.covers(*part) for part in _edges(start, end, stream)):
            self.later.append((self.pc, stream.space, message, parts))
        else:
            yield message

    def overdue(self) -> Iterator[Problem]:
        """At the end of the outermost loop: what its first turn found written, later turns may have written."""
        for pc, space, message, parts in self.later:
            if not all(self.written[space].covers(*part) for part in parts):
                yield pc, message
        self.later = []

    def load(self, groups: Groups, low: int, high: int) -> None:
        """Units are written: they now hold weights of these groups and of no others."""
        for other in self.loaded.values():
            other.remove(low, high)
        self.loaded.setdefault(groups, Written()).add(low, high)


def _edges(low: int, high: int, stream: Stream) -> list[tuple[int, int]]:
    """Return where the first and the last element of a stretch lie."""
    return [(low, low + stream.itemsize), (high - stream.itemsize, high)]

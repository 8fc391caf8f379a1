"""What orders the accesses of a small program, found the slow way: every iteration, every byte, every pair."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from flexc.isa.instruction import ENGINES, LEVELS, Instr
from flexc.isa.program import Program
from flexc.isa.streams import Step, Stream


@dataclass
class Event:
    """One executed instruction: ``before`` has a bit for each thing certain to be done when it starts.

    ``since`` is the first event after the last barrier. Event k's own work is bit 2k, what
    a mac delivers late bit 2k + 1.
    """

    pc: int
    instruction: Instr
    engine: str
    before: int
    since: int
    touched: list[tuple[str, bool, bool, int]] = field(default_factory=list)


class Oracle:
    """Carries a program out with nothing but its order."""

    def __init__(self, program: Program) -> None:
        self.code = program.code
        self.events: list[Event] = []
        self.streams: dict[int, Stream] = {}
        self.act: Stream | None = None
        self.iterations = [0] * LEVELS
        self.running = [0] * LEVELS
        self.counts = [0] * LEVELS
        self.tokens: dict[int, deque[int]] = {}
        self.known = dict.fromkeys(ENGINES, 0)
        self.sums: list[int] = []
        self.barrier = 0
        self.block(0, len(self.code), 0)

    def block(self, first: int, last: int, depth: int) -> None:
        pc = first
        while pc < last:
            if self.code[pc].mnemonic == "loop":
                pc = self.loop(pc, depth)
            else:
                self.step(pc, self.code[pc])
            pc += 1

    def loop(self, pc: int, depth: int) -> int:
        level, end, opened = self.code[pc].integer("level"), pc, 0
        while opened >= 0:
            end += 1
            opened += {"loop": 1, "endloop": -1}.get(self.code[end].mnemonic, 0)
        if not depth:
            self.counts = [0] * LEVELS
        start = self.counts[level]
        for place in range(self.code[pc].integer("count")):
            self.iterations[level], self.running[level] = place, start + place
            self.block(pc + 1, end, depth + 1)
        self.iterations[level] = self.running[level] = 0
        self.counts[level] = start + self.code[pc].integer("count")
        return end

    def step(self, pc: int, instruction: Instr) -> None:
        whole, word = instruction.integer, instruction.word
        match instruction.mnemonic:
            case "stream":
                stream = Stream.dense(word("space"), word("dtype"), whole("base"), whole("rows"), whole("cols"))
                self.streams[whole("stream")] = stream
            case "pitch":
                number = whole("stream")
                self.streams[number] = self.streams[number].with_pitch(whole("row"), whole("col"))
            case "step":
                step = Step(whole("level"), whole("by"), whole("mod"))
                self.streams[whole("stream")] = self.streams[whole("stream")].with_step(step)
            case "barrier":
                self.barrier = len(self.events)
                self.known = dict.fromkeys(ENGINES, (1 << 2 * len(self.events)) - 1)
            case _ if instruction.spec.queued:
                self.execute(pc, instruction)

    def execute(self, pc: int, instruction: Instr) -> None:
        engine = instruction.spec.engine_of(instruction.values)
        before = self.known[engine]
        for token in instruction.tokens("wait"):
            before |= self.tokens[token].popleft()
        bit = 1 << 2 * len(self.events)
        event = Event(pc, instruction, engine, before, self.barrier)
        self.touch(event)
        self.events.append(event)
        late = instruction.mnemonic == "mac"
        self.known[engine] = before | bit | (0 if late else 2 * bit)
        if late:
            self.sums.append(2 * bit)
        done = self.known[engine]
        if late or (instruction.mnemonic == "sync" and engine == "array"):
            for each in self.sums:
                done |= each
        for token in instruction.tokens("post"):
            self.tokens.setdefault(token, deque()).append(done)
        for token in instruction.tokens("release"):
            self.tokens.setdefault(token, deque()).append(self.known[engine])

    def touch(self, event: Event) -> None:
        spec = event.instruction.spec
        for name in dict.fromkeys((*spec.reads, *spec.writes)):
            number = event.instruction.values.get(name)
            stream = self.act if number is None else self.streams.get(int(str(number)))
            if stream is not None and stream.space != "const":
                writes = name in spec.writes
                late = writes and spec.mnemonic == "mac"
                event.touched.append((stream.space, writes, late, self.bytes(stream)))
        if spec.mnemonic == "lda":
            self.act = self.streams[event.instruction.integer("act")]

    def bytes(self, stream: Stream) -> int:
        """Return a bit for each byte (unit, in cells) that a stream covers now."""
        base = stream.address(self.iterations, self.running)
        if stream.space == "cells":
            return ((1 << stream.rows) - 1) << base
        covered = 0
        for i in range(stream.rows):
            for j in range(stream.cols):
                covered |= ((1 << stream.itemsize) - 1) << base + i * stream.row_pitch + j * stream.col_pitch
        return covered

    def hazards(self) -> Iterator[tuple[int, int]]:
        """Yield the pcs of two accesses that can meet and that nothing orders."""
        for place, event in enumerate(self.events):
            for other in range(event.since, place):
                earlier = self.events[other]
                if earlier.engine != event.engine and self.clash(other, earlier, event):
                    yield earlier.pc, event.pc

    def clash(self, number: int, earlier: Event, event: Event) -> bool:
        for space, writes, late, touched in earlier.touched:
            if event.before >> (2 * number + late) & 1:
                continue
            for other, also, _, bytes_ in event.touched:
                if space == other and (writes or also) and touched & bytes_:
                    return True
        return False

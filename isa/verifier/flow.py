"""Verifier, control flow: loops match, levels are not reused inside themselves, the program ends, and soon enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..fields import Field, OptionalStream, Register, Tokens
from ..instruction import Instr, Instruction
from ..machine import Machine
from ..program import Program

#: A program may issue so many instructions at most: more would not end in sensible time.
MOST_EXECUTED = 10**10


@dataclass(frozen=True)
class Loop:
    """A loop of the code: from ``first`` (the ``loop``) to ``last`` (its ``endloop``)."""

    first: int
    last: int
    level: int
    count: int


class Flow:
    """The loops of a program; ``faults`` are those of its structure."""

    def __init__(self, code: Sequence[Instr]) -> None:
        self.code = code
        self.loops: dict[int, Loop] = {}
        self.faults: list[tuple[int, str]] = []
        #: How many iterations of each level the outermost loop that begins at a place comprises.
        self.totals: dict[int, dict[int, int]] = {}
        self.executed = 0
        self._match()
        if not self.faults:
            self._count()

    def _match(self) -> None:
        opened: list[tuple[int, int]] = []
        for pc, instruction in enumerate(self.code):
            if instruction.mnemonic == "loop":
                level = instruction.integer("level")
                if any(level == other for _, other in opened):
                    self.faults.append((pc, f"loop level L{level} is already open; a loop inside needs another level"))
                opened.append((pc, level))
            elif instruction.mnemonic == "endloop":
                self._close(pc, instruction.integer("level"), opened)
        for pc, level in opened:
            self.faults.append((pc, f"loop L{level} has no endloop"))

    def _close(self, pc: int, level: int, opened: list[tuple[int, int]]) -> None:
        if not opened or opened[-1][1] != level:
            inner = f"the innermost open loop is L{opened[-1][1]}" if opened else "no loop is open"
            self.faults.append((pc, f"endloop L{level} ends no loop: {inner}"))
            return
        first, _ = opened.pop()
        self.loops[first] = Loop(first, pc, level, self.code[first].integer("count"))

    def _count(self) -> None:
        """Count executions; and per outermost loop, the iterations of every level."""
        times: list[int] = [1]
        opened: list[Loop] = []
        totals: dict[int, int] = {}
        for pc, instruction in enumerate(self.code):
            self.executed += times[-1]
            if pc in self.loops:
                if not opened:
                    totals = self.totals[pc] = {}
                opened.append(self.loops[pc])
                times.append(times[-1] * self.loops[pc].count)
                totals[self.loops[pc].level] = totals.get(self.loops[pc].level, 0) + times[-1]
            elif instruction.mnemonic == "endloop":
                opened.pop()
                times.pop()


def flow_problems(flow: Flow, program: Program) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with loops, with the end, and with numbers of registers that this machine lacks."""
    yield from flow.faults
    halts = [pc for pc, instruction in enumerate(flow.code) if instruction.mnemonic == "halt"]
    end = len(flow.code)
    if not end or halts[-1:] != [end - 1]:
        yield max(0, end - 1), "the program does not end with halt"
    for pc in halts:
        if pc != end - 1:
            yield pc, "halt stands before the end; only the last instruction may be halt"
    if flow.executed > MOST_EXECUTED:
        yield 0, f"the loops issue {flow.executed} instructions in all; allowed: {MOST_EXECUTED}"
    limits = _Limits(program.machine)
    for pc, instruction in enumerate(flow.code):
        for message in limits.beyond(instruction):
            yield pc, message
        if instruction.mnemonic == "host" and instruction.integer("segment") >= len(program.segments):
            number, have = instruction.integer("segment"), len(program.segments)
            yield pc, f"host segment {number} does not exist; the program has {have}"


class _Limits:
    """The numbers that the encoding allows but the machine has not."""

    def __init__(self, machine: Machine) -> None:
        control = machine.control
        self.limits = {"s": ("streams", control.streams), "L": ("loop levels", control.loop_levels)}
        self.limits |= {"ch": ("DMA channels", machine.dram.channels), "t": ("semaphores", control.semaphores)}
        self.known: dict[int, list[tuple[Field, str, str, int]]] = {}

    def beyond(self, instruction: Instr) -> Iterator[str]:
        """Yield numbers of an instruction that the machine has not."""
        spec = instruction.spec
        if spec.opcode not in self.known:
            self.known[spec.opcode] = list(self._fields(spec))
        for field, prefix, title, limit in self.known[spec.opcode]:
            value = instruction.values[field.name]
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and number >= limit:
                    name = f"semaphore t{number}" if prefix == "t" else f"{field.name}={prefix}{number}"
                    yield f"{name}: this machine has {limit} {title}"
        if spec.mnemonic == "sync" and instruction.word("engine") == "dma1" and self.limits["ch"][1] < 2:
            yield "engine dma1: this machine has 1 DMA channels"

    def _fields(self, spec: Instruction) -> Iterator[tuple[Field, str, str, int]]:
        """Yield the fields that can hold a number beyond the machine's: (field, prefix, what it numbers, limit)."""
        for field in spec.fields:
            if not isinstance(field, Register | OptionalStream | Tokens):
                continue
            prefix = field.prefix if isinstance(field, Register) else "t" if isinstance(field, Tokens) else "s"
            title, limit = self.limits[prefix]
            if field.count > limit:
                yield field, prefix, title, limit

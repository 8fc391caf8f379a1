"""Control flow, once for values and time: code as a tree of loops whose leaves know their operands.

Stream registers, groups and the latched activations are state that instructions set and later ones mean. All that
loops can do to this state is set it again to the same, so an instruction sees at most two states in a loop: that of the
first iteration and that of all others. Hence a loop has a body for each, the same one where they agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..isa.errors import FlexcError
from ..isa.instruction import LEVELS, Groups, Instr, Operands
from ..isa.program import Program, Tensor
from ..isa.registers import CHANGING, SETTING, changed, groups_of, stream_of
from ..isa.streams import DTYPES, Stream

_GROUPS, _ACT = "groups", "act"
_State = dict[int | str, Stream | Groups]


@dataclass(frozen=True, eq=False)
class Leaf:
    """An instruction with its operands: streams by operand name; a ``mac`` also has the latched ``act``."""

    pc: int
    instr: Instr
    engine: str
    streams: Mapping[str, Stream]
    groups: Groups | None


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop over ``level``: ``first`` is the body in iteration 0, ``rest`` in all others."""

    pc: int
    end: int
    level: int
    count: int
    first: Block
    rest: Block


@dataclass(frozen=True, eq=False)
class Block:
    """Leaves and loops in order."""

    nodes: tuple[Leaf | Loop, ...]


@dataclass(frozen=True)
class Tree:
    """A whole program."""

    program: Program
    root: Block

    @cached_property
    def executions(self) -> Mapping[int, int]:
        """How often the instruction at each pc is issued; ``endloop`` is not, it only marks a place."""
        counts: dict[int, int] = {}
        for leaf, times in visits(self.root):
            counts[leaf.pc] = counts.get(leaf.pc, 0) + times
        return counts


def build(program: Program) -> Tree:
    """Return the tree of a program, up to its ``halt``.

    Raises:
        FlexcError: loops do not match, or an operand's stream, the groups or the activations were never set.
    """
    return Tree(program, _Builder(program.code).run())


def visits(block: Block, times: int = 1) -> Iterator[tuple[Leaf, int]]:
    """Every leaf with the number of its executions; one that stands in both bodies of a loop comes twice."""
    for node in block.nodes:
        if isinstance(node, Leaf):
            yield node, times
        elif node.first is node.rest:
            yield from visits(node.first, times * node.count)
        else:
            yield from visits(node.first, times)
            yield from visits(node.rest, times * (node.count - 1))


def running_totals(outermost: Loop) -> list[int]:
    """Return how many iterations of every level one execution of a loop comprises, at least 1."""
    totals = [0] * LEVELS
    _count_iterations(outermost, 1, totals)
    return [max(1, total) for total in totals]


def _count_iterations(loop: Loop, times: int, totals: list[int]) -> None:
    totals[loop.level] += loop.count * times
    bodies = ((loop.first, loop.count),) if loop.first is loop.rest else ((loop.first, 1), (loop.rest, loop.count - 1))
    for body, count in bodies:
        for node in body.nodes:
            if isinstance(node, Loop):
                _count_iterations(node, times * count, totals)


def operands(leaf: Leaf, program: Program) -> Operands:
    """Return what the duration and counter rules see of a leaf."""
    segment_bytes = 0
    if leaf.instr.mnemonic == "host":
        segment = program.segments[leaf.instr.integer("segment")]
        segment_bytes = sum(tensor_bytes(tensor) for tensor in (*segment.inputs, *segment.outputs))
    return Operands(program.machine, leaf.instr.values, leaf.streams, leaf.groups, segment_bytes)


def stream_operands(instr: Instr) -> list[str]:
    """Return the names of the operands that are streams, in the table's order; a ``mac`` also reads what is latched."""
    spec = instr.spec
    return [field.name for field in spec.operands if field.name in spec.reads or field.name in spec.writes]


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes of all elements of a tensor."""
    return math.prod(tensor.shape) * DTYPES[tensor.dtype]


def at(pc: int, program: Program) -> str:
    """Return words for a place in the code: the pc and the op it belongs to, of several with this code the first."""
    names = [op.name for op in program.debug.ops if op.first <= pc < op.last]
    return f"pc {pc} ({program.code[pc].mnemonic})" + (f" of {names[0]}" if names else "")


class _Builder:
    """Follows the text of the code, carrying the state along."""

    def __init__(self, code: Sequence[Instr]) -> None:
        self.code = code
        self.ends = _match_loops(code)
        self.state: _State = {}
        self.open: set[int] = set()

    def run(self) -> Block:
        halts = [pc for pc, instr in enumerate(self.code) if instr.mnemonic == "halt"]
        if not halts:
            raise FlexcError("the program has no halt")
        if any(start < halts[0] < end for start, end in self.ends.items()):
            raise FlexcError(f"pc {halts[0]}: halt stands inside a loop")
        return self.block(0, halts[0] + 1)

    def block(self, first: int, last: int) -> Block:
        nodes: list[Leaf | Loop] = []
        pc = first
        while pc < last:
            nodes.append(self.leaf(pc))
            if self.code[pc].mnemonic == "loop":
                nodes.append(self.loop(pc))
                pc = self.ends[pc]
            pc += 1
        return Block(tuple(nodes))

    def loop(self, pc: int) -> Loop:
        instr, end = self.code[pc], self.ends[pc]
        level, count = instr.integer("level"), instr.integer("count")
        if level in self.open:
            raise FlexcError(f"pc {pc}: loop level L{level} is already open")
        self.open.add(level)
        needed = self.read_before_set(pc + 1, end)
        before = {name: self.state.get(name) for name in needed}
        first = rest = self.block(pc + 1, end)
        if count > 1 and any(self.state.get(name) != before[name] for name in needed):
            rest = self.block(pc + 1, end)
        self.open.remove(level)
        return Loop(pc, end, level, count, first, rest)

    def read_before_set(self, first: int, last: int) -> set[int | str]:
        """Return the state that a stretch of code takes from before it."""
        needed: set[int | str] = set()
        known: set[int | str] = set()
        for instr in self.code[first:last]:
            needed.update(_used(instr) - known)
            known.update(_set(instr))
        return needed

    def leaf(self, pc: int) -> Leaf:
        instr = self.code[pc]
        if not instr.spec.queued:
            self.control(pc, instr)
            return Leaf(pc, instr, "control", {}, None)
        numbers = {name: instr.integer(name) for name in stream_operands(instr)}
        streams = {name: self.stream(pc, number) for name, number in numbers.items() if number >= 0}
        if instr.mnemonic == "lda":
            self.state[_ACT] = streams["act"]
        if instr.mnemonic == "mac":
            streams["act"] = self.latched(pc)
        groups = self.groups(pc) if instr.mnemonic in ("ldw", "mac") else None
        return Leaf(pc, instr, instr.spec.engine_of(instr.values), streams, groups)

    def control(self, pc: int, instr: Instr) -> None:
        match instr.mnemonic:
            case name if name in SETTING:
                self.state[instr.integer("stream")] = stream_of(instr)
            case name if name in CHANGING:
                number = instr.integer("stream")
                self.state[number] = changed(self.stream(pc, number), instr)
            case "groups":
                self.state[_GROUPS] = groups_of(instr)

    def stream(self, pc: int, number: int) -> Stream:
        stream = self.state.get(number)
        if not isinstance(stream, Stream):
            raise FlexcError(f"pc {pc}: {self.code[pc].mnemonic} uses s{number}, which no `stream` has set")
        return stream

    def latched(self, pc: int) -> Stream:
        act = self.state.get(_ACT)
        if not isinstance(act, Stream):
            raise FlexcError(f"pc {pc}: mac without activations; an `lda` must come before")
        return act

    def groups(self, pc: int) -> Groups:
        groups = self.state.get(_GROUPS)
        if not isinstance(groups, Groups):
            raise FlexcError(f"pc {pc}: {self.code[pc].mnemonic} before any `groups`")
        return groups


def _used(instr: Instr) -> set[int | str]:
    if instr.mnemonic in CHANGING:
        return {instr.integer("stream")}
    used: set[int | str] = {instr.integer(name) for name in stream_operands(instr)}
    used.discard(-1)
    if instr.mnemonic == "mac":
        used.add(_ACT)
    return used | {_GROUPS} if instr.mnemonic in ("ldw", "mac") else used


def _set(instr: Instr) -> set[int | str]:
    match instr.mnemonic:
        case name if name in SETTING:
            return {instr.integer("stream")}
        case "groups":
            return {_GROUPS}
        case "lda":
            return {_ACT}
        case _:
            return set()


def _match_loops(code: Sequence[Instr]) -> dict[int, int]:
    """Return the pc of the ``endloop`` of every ``loop``."""
    ends: dict[int, int] = {}
    open_loops: list[int] = []
    for pc, instr in enumerate(code):
        if instr.mnemonic == "loop":
            open_loops.append(pc)
        elif instr.mnemonic == "endloop":
            if not open_loops or code[open_loops[-1]].integer("level") != instr.integer("level"):
                raise FlexcError(f"pc {pc}: endloop L{instr.integer('level')} ends no open loop")
            ends[open_loops.pop()] = pc
    if open_loops:
        raise FlexcError(f"pc {open_loops[-1]}: this loop has no endloop")
    return ends

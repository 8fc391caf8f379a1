"""A program's instructions as text, one line an execution: when it starts and ends, where, what, and for which node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ..isa.assembly.disassembler import format_instruction
from ..isa.assembly.source import at_iteration
from ..isa.instruction import LEVELS
from ..isa.program import Program, Tile
from .ops import Ops
from .stepping import Clock, Executed, in_order
from .walk import build

_HEAD = f"; {'start':>7}..{'end':<9} {'engine':<7} {'pc':>6}  {'iterations':<11} instruction"


class Places:
    """What is known about each place in the code: open loops, and the node or, without one, the label before it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._texts: dict[int, str] = {}
        self.loops = list(_open_loops(program))
        self._ops = Ops(program)
        self._around = self._ops.around()
        self._tiles = list(_open_tiles(program))
        self._labels = list(_latest_labels(program))

    def node(self, pc: int, iterations: Sequence[int]) -> str:
        """Return the node that an instruction is for; without one, the label that it stands behind, or nothing."""
        op = self._around[pc]
        return self.program.debug.ops[self._ops.at(op, iterations[0])].name if op >= 0 else self._labels[pc]

    def text(self, pc: int) -> str:
        """Return an instruction as assembly."""
        if pc not in self._texts:
            self._texts[pc] = format_instruction(self.program.code[pc])
        return self._texts[pc]

    def iterations(self, pc: int, iterations: tuple[int, ...]) -> str:
        """Return the iteration of every loop that is open at a place."""
        return " ".join(f"L{level}={iterations[level]}" for level in self.loops[pc])

    def coordinates(self, pc: int, iterations: tuple[int, ...]) -> str:
        """Return what the open loops are at: ``column group 3: columns 384..511; K step 0: K 0..127 of 128``."""
        return "; ".join(at_iteration(tile, iterations[level]) for level, tile in self._tiles[pc])

    def line(self, done: Executed) -> str:
        """Return the line of one execution."""
        pc = done.leaf.pc
        head = f"{done.start:>9}..{done.end:<9} {done.leaf.engine:<7} {pc:>6}"
        node = self.node(pc, done.iterations)
        text = f"{head}  {self.iterations(pc, done.iterations):<11} {self.text(pc)}"
        return f"{text:<96}  ; {node}" if node else text


def _open_loops(program: Program) -> Iterator[tuple[int, ...]]:
    loops: tuple[int, ...] = ()
    for instr in program.code:
        if instr.mnemonic == "endloop":
            loops = loops[:-1]
        yield loops
        if instr.mnemonic == "loop":
            loops = (*loops, instr.integer("level"))


def _open_tiles(program: Program) -> Iterator[tuple[tuple[int, Tile], ...]]:
    """Yield for every instruction the levels around it that have a tile coordinate, with it."""
    known = {tile.pc: tile for tile in program.debug.tiles}
    opened: list[tuple[int, Tile | None]] = []
    for pc, instr in enumerate(program.code):
        if instr.mnemonic == "endloop":
            opened.pop()
        yield tuple((level, tile) for level, tile in opened if tile is not None)
        if instr.mnemonic == "loop":
            opened.append((instr.integer("level"), known.get(pc)))


def _latest_labels(program: Program) -> Iterator[str]:
    label = ""
    for pc in range(len(program.code)):
        label = program.debug.labels.get(pc, label)
        yield label


def trace_instructions(program: Program, limit: int | None = None) -> Iterator[str]:
    """Yield a heading, a line for every instruction executed, and the total; nothing is kept.

    Lines come in the order in which control issues; what waits for a token that a later instruction posts comes when
    it starts. Values play no part: no inputs are needed.

    Args:
        program: what to trace.
        limit: lines of instructions at most; None for all.

    Raises:
        FlexcError: control flow is malformed, or an instruction waits for a token that never comes.
    """
    tree, places = build(program), Places(program)
    clock = Clock(tree)
    iterations = [0] * LEVELS
    executed = (done for leaf in in_order(tree.root, iterations) for done in clock.issue(leaf, iterations))
    yield _HEAD
    count = 0
    for done in islice(executed, limit):
        yield places.line(done)
        count += 1
    if next(executed, None) is not None:
        yield f"; ... the first {count} instructions; there are more"
    else:
        yield f"; {clock.engines.finish()} cycles, {count} instructions"

"""What connects a listing with the model it came from: nodes, names of addresses, what groups do; colours."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import FlexcError, did_you_mean
from ..instruction import WORD_BYTES, Instr
from ..program import EVERY, Op, Program, Tile
from ..registers import SETTING
from .places import Places, one_line

if TYPE_CHECKING:
    from ..machine import Machine

_INSTRUCTION = re.compile(r"((?:[0-9a-f]{8,}: (?:[0-9a-f]{8} ){3}[0-9a-f]{8})?\s+)(\w+)(.*?)(  ; .*)?$")
_GREEN, _CYAN, _MAGENTA, _YELLOW, _DIM, _PLAIN = (f"\033[{code}m" for code in (32, 36, 35, 33, 2, 0))


def describe_op(op: Op) -> str:
    """Return one line about an op: its name, operator, pattern, engine, and why it runs there."""
    pattern = f" {op.nm}" if op.nm else ""
    reason = f": {op.reason}" if op.reason else ""
    return one_line(f"node {op.name} ({op.op_type}){pattern} on {op.engine}{reason}")


def selected(program: Program, offsets: tuple[int, int] | None, node: str | None) -> set[int]:
    """Return the instructions in a range of byte offsets, of ops that a name fits.

    Raises:
        FlexcError: no op or graph node has this name, or it in its name.
    """
    chosen = set(range(len(program.code)))
    if offsets is not None:
        chosen &= set(range(max(0, offsets[0]) // WORD_BYTES, min(-(-offsets[1] // WORD_BYTES), len(program.code))))
    if node is not None:
        ops = program.debug.ops
        found = [op for op in ops if node in op.names] or [op for op in ops if node in op.name]
        if not found:
            known = [name for op in ops for name in op.names]
            raise FlexcError(f"no node '{node}' in the program", remedy=did_you_mean(node, known))
        chosen &= {pc for op in found for pc in range(op.first, op.last)}
    return chosen


class Notes:
    """What is known about places in the code and in memory."""

    def __init__(self, program: Program) -> None:
        self.opening: dict[int, list[int]] = defaultdict(list)
        self.closing: dict[int, list[int]] = defaultdict(list)
        self.taps: dict[int, list[int]] = defaultdict(list)
        #: Ops with the same code, one an iteration of the loop around it; all others alone.
        self.alike: dict[tuple[int, int, bool], list[Op]] = defaultdict(list)
        for number, op in enumerate(program.debug.ops):
            self.alike[op.first, op.last, op.iteration == EVERY].append(op)
            self.opening[op.first].append(number)
            if op.first != op.last:
                self.closing[op.last].append(number)
        for number, tap in enumerate(program.debug.taps):
            self.taps[tap.pc].append(number)
        self.tiles: dict[int, list[int]] = defaultdict(list)
        for number, tile in enumerate(program.debug.tiles):
            self.tiles[tile.pc].append(number)
        self.all_tiles = program.debug.tiles
        self.places = Places(program)
        self.machine = program.machine

    def introduces(self, op: Op) -> Iterator[str]:
        """Yield the line about an op, if it is the first with this code: what it is, and what it is in iterations."""
        alike = self.alike[op.first, op.last, op.iteration == EVERY]
        if op.iteration == EVERY:
            yield describe_op(op)
        elif op is alike[0]:
            yield f"{describe_op(op)}; in L0 {', '.join(one_line(f'{each.iteration}: {each.name}') for each in alike)}"

    def comment(self, pc: int, instruction: Instr) -> str:
        """Return what an instruction's numbers mean, or nothing."""
        if instruction.mnemonic in SETTING:
            return self.places.name(pc, instruction.word("space"), instruction.integer("base"))
        return ""

    def headings(self, pc: int, instruction: Instr) -> Iterator[str]:
        """Yield what is worth a line of its own before an instruction: tile coordinates, how groups are joined."""
        for number in self.tiles.get(pc, ()):
            yield describe_tile(self.all_tiles[number], instruction)
        if instruction.mnemonic == "groups":
            yield describe_groups(instruction, self.machine)


def describe_tile(tile: Tile, instruction: Instr) -> str:
    """Return a tile coordinate in words: ``L0: column group 0..7, columns 128 * L0 + 0..127 of 1000``."""
    level = f"L{instruction.integer('level')}" if instruction.mnemonic == "loop" and tile.count > 1 else ""
    reach = _reach(tile, level or "i")
    if tile.count == 1:
        return one_line(f"{tile.what}: {reach}" if reach else tile.what)
    counted = f"{tile.what} 0..{tile.count - 1}" + (f", {reach}" if reach else "")
    return one_line(f"{level}: {counted}" if level else counted)


def _reach(tile: Tile, counter: str) -> str:
    """Return which of its units a tile takes, as an expression of the loop's counter."""
    if not tile.unit or (tile.count > 1 and (tile.start, tile.step, tile.size) == (0, 1, 1)):
        return ""
    total = f" of {tile.limit}" if tile.limit else ""
    if tile.count == 1:
        return f"{tile.unit} {taken(tile, 0)}"
    moving = counter if tile.step == 1 else f"{tile.step} * {counter}"
    place = f"{tile.start} + {moving}" if tile.start else moving
    if tile.size > 1:
        return f"{tile.unit} {place} + 0..{tile.size - 1}{total}"
    return f"{tile.unit} {place}{total}" if tile.size else f"{tile.unit} from {place} on{total}"


def at_iteration(tile: Tile, iteration: int) -> str:
    """Return a tile coordinate in one iteration of its loop: ``column group 3: columns 384..511 of 1000``."""
    return one_line(f"{tile.what} {iteration}" + (f": {tile.unit} {taken(tile, iteration)}" if tile.unit else ""))


def taken(tile: Tile, iteration: int) -> str:
    """Return which of its units a tile takes in an iteration: ``128..255 of 1000``."""
    first = tile.start + iteration * tile.step
    last = first + tile.size - 1
    total = f" of {tile.limit}" if tile.limit else ""
    if not tile.size:
        return f"from {first} on{total}"
    if tile.limit and last >= tile.limit:
        last, total = tile.limit - 1, f"{total}, then padding"
    return (f"{first}..{last}" if last > first else f"{first}") + total


def describe_groups(instruction: Instr, machine: Machine) -> str:
    """Return in words how ``groups`` joins the sub-macros: what shares a block, the cells in use, index and merge."""
    n, m, blocks, slots, index, merge = map(instruction.integer, ("n", "m", "blocks", "slots", "index", "merge"))
    cells = f"{_counted(blocks, 'block')} x {_counted(n, 'slot')} = {slots} of {machine.slots} cells a column"
    if m == 1:
        return f"dense: {slots} of {machine.slots} cells a column, one activation each, merge {merge} sub-macros"
    facts = [cells, f"{index} index bits", f"{m} activations a group", f"merge {merge} sub-macros"]
    facts += _SELECTION[instruction.word("select")]
    return f"{n}:{m} {_sharing(n, instruction.word('packing'), machine)}: " + ", ".join(facts)


#: What a way of selecting activations adds to a description.
_SELECTION = {
    "incell": (),
    "literal": ("literal selection takes further slots a block",),
    "phased": ("one pair of a block at a time",),
    "shared": ("one pattern for all columns",),
}


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _sharing(n: int, packing: str, machine: Machine) -> str:
    """Return what shares a block of activations, as the slots of a block lie in the rows of the sub-macros."""
    subs = machine.array.sub_macros
    rows, idle = -(-n // subs), -n % subs
    if n == 1:
        return f"disaggregated ({subs} blocks a row, one a sub-macro)"
    if n == subs:
        return f"aggregated (one block a row, all {subs} sub-macros share it)"
    if n < subs and not subs % n:
        return f"aggregated ({subs // n} blocks a row, {n} sub-macros share one)"
    if idle and packing == "packed":
        return f"aggregated ({n} slots in a row share a block, blocks run on)"
    if n < subs:
        return f"aggregated ({_counted(subs // n, 'block')} a row, {n} sub-macros share one, {subs % n} idle)"
    rest = f", {idle} idle" if idle else ""
    return f"aggregated ({rows} rows of {subs} sub-macros share a block{rest})"


def colored(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines with terminal colours: comments, directives, labels, mnemonics."""
    for line in lines:
        yield _colored(line)


def _colored(line: str) -> str:
    if line.lstrip().startswith(";"):
        return f"{_GREEN}{line}{_PLAIN}"
    if line.startswith("."):
        word, blank, rest = line.partition(" ")
        return f"{_MAGENTA}{word}{_PLAIN}{blank}{rest}"
    if line.endswith(":"):
        return f"{_YELLOW}{line}{_PLAIN}"
    found = _INSTRUCTION.match(line)
    if found is None:
        return line
    listed, mnemonic, operands, comment = found.groups(default="")
    note = f"{_GREEN}{comment}{_PLAIN}" if comment else ""
    return f"{_DIM}{listed}{_PLAIN}{_CYAN}{mnemonic}{_PLAIN}{operands}{note}"

"""What connects a listing with the model it came from: nodes, names of addresses, what groups do; colours."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from .errors import FlexcError, did_you_mean
from .instruction import WORD_BYTES, Instr
from .program import Op, Program
from .tensors import extent

_INSTRUCTION = re.compile(r"((?:[0-9a-f]{8,}: (?:[0-9a-f]{8} ){3}[0-9a-f]{8})?\s+)(\w+)(.*?)(  ; .*)?$")
_GREEN, _CYAN, _MAGENTA, _YELLOW, _DIM, _PLAIN = (f"\033[{code}m" for code in (32, 36, 35, 33, 2, 0))


def describe_op(op: Op) -> str:
    """Return one line about an op: its name, operator, pattern, engine, and why it runs there."""
    pattern = f" {op.nm}" if op.nm else ""
    reason = f": {op.reason}" if op.reason else ""
    return one_line(f"node {op.name} ({op.op_type}){pattern} on {op.engine}{reason}")


def one_line(text: str) -> str:
    """Return a text without line ends, so that it can stand in a comment."""
    return " ".join(text.split())


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
        found = [op for op in ops if node in (op.name, *op.nodes)] or [op for op in ops if node in op.name]
        if not found:
            known = [name for op in ops for name in (op.name, *op.nodes)]
            raise FlexcError(f"no node '{node}' in the program", remedy=did_you_mean(node, known))
        chosen &= {pc for op in found for pc in range(op.first, op.last)}
    return chosen


class Notes:
    """What is known about places in the code and in memory."""

    def __init__(self, program: Program) -> None:
        self.opening: dict[int, list[int]] = defaultdict(list)
        self.closing: dict[int, list[int]] = defaultdict(list)
        self.taps: dict[int, list[int]] = defaultdict(list)
        for number, op in enumerate(program.debug.ops):
            self.opening[op.first].append(number)
            if op.first != op.last:
                self.closing[op.last].append(number)
        for number, tap in enumerate(program.debug.taps):
            self.taps[tap.pc].append(number)
        tensors = [*program.inputs, *program.outputs, *program.debug.tensors]
        self.names: dict[str, list[tuple[int, int, str]]] = {"const": [], "dram": []}
        for space, start, stop, name in sorted({(each.space, *extent(each), each.name) for each in tensors}):
            self.names.setdefault(space, []).append((start, stop, name))
        self.starts = {space: [start for start, _, _ in names] for space, names in self.names.items()}
        self.sub_macros = program.machine.array.sub_macros

    def comment(self, instruction: Instr) -> str:
        """Return what an instruction's numbers mean, or nothing."""
        if instruction.mnemonic == "stream":
            return self.name(instruction.word("space"), instruction.integer("base"))
        return describe_groups(instruction, self.sub_macros) if instruction.mnemonic == "groups" else ""

    def name(self, space: str, address: int) -> str:
        """Return the tensor that an address lies in, and how far behind its start; nothing where it is in none."""
        place = bisect_right(self.starts.get(space, []), address) - 1
        start, stop, name = self.names[space][place] if place >= 0 else (0, 0, "")
        if not start <= address < stop:
            return ""
        return one_line(name if address == start else f"{name} + {address - start:#x}")


def describe_groups(instruction: Instr, sub_macros: int) -> str:
    """Return in words how the sub-macros are joined."""
    n, m, blocks = (instruction.integer(name) for name in ("n", "m", "blocks"))
    if m == 1:
        return f"dense: {blocks} slots, every sub-macro on its own, {sub_macros} sums merged"
    joined = "disaggregated: every slot its own block" if n == 1 else f"aggregated: {n} slots share a block"
    return f"{n}:{m}, {blocks} blocks of {m} activations; {joined}"


def colored(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines with terminal colours: comments, directives, labels, mnemonics."""
    for line in lines:
        yield _colored(line)


def _colored(line: str) -> str:
    if line.startswith(";"):
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

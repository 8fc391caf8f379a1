"""Proves, without running it, that a program is safe to run: what it refuses, it names with place, rule and node.

A program without problems keeps every access inside its memory, ends, cannot wait for a token that never comes, gives
every instruction operands that fit together, and orders all accesses of different engines that could meet. The cost
grows with the code, not with the iterations of its loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import FlexcError, raise_all
from ..instruction import WORD_BYTES
from ..program import Program
from .access import Access
from .flow import Flow, flow_problems
from .hazards import hazard_problems
from .memory import tensor_problems
from .state import state_problems
from .states import persistence_problems
from .tokens import token_problems

#: Problems reported before the rest is cut off.
MOST_PROBLEMS = 100


def verify(program: Program, lines: Sequence[str] = ()) -> list[FlexcError]:
    """Return what is wrong with a program, at most ``MOST_PROBLEMS`` problems; an empty list when it is safe to run.

    Each names the instruction (byte offset as a listing shows it, mnemonic) and the node of the graph that it is for.
    ``lines`` are names of the instructions' places in a source, to be shown instead of the offsets.
    """
    found: dict[str, FlexcError] = {}
    for error in _problems(program, _Names(program, lines)):
        found.setdefault(str(error), error)
        if len(found) >= MOST_PROBLEMS:
            break
    return list(found.values())


def check(program: Program) -> None:
    """Raise the problems of a program, if it has any, as :class:`FlexcError`."""
    raise_all(verify(program))


def _problems(program: Program, names: _Names) -> Iterator[FlexcError]:
    flow = Flow(program.code)
    uses: dict[int, dict[Access, None]] = {}
    found = False
    for pc, message in _simple_problems(flow, program, uses):
        found = True
        yield FlexcError(message, where="program" if pc is None else names.place(pc))
    if found:
        return  # tokens must be there and operands known before engines can be followed
    for hazard in hazard_problems(flow, {pc: tuple(each) for pc, each in uses.items()}, names.place):
        yield FlexcError(hazard.message, where=names.place(hazard.pc), remedy=hazard.remedy)


def _simple_problems(
    flow: Flow, program: Program, uses: dict[int, dict[Access, None]]
) -> Iterator[tuple[int | None, str]]:
    """Yield what is wrong with single instructions, loops and tensors; note what every instruction touches."""
    basis = [*tensor_problems(program), *persistence_problems(program), *flow_problems(flow, program)]
    yield from basis
    if basis:
        return  # what follows needs loops that match, and tensors that are where they say
    yield from token_problems(flow)
    yield from state_problems(flow, program, uses)


class _Names:
    """Names of places in the code."""

    def __init__(self, program: Program, lines: Sequence[str]) -> None:
        self.code = program.code
        self.lines = lines
        self.ops = program.debug.ops

    def place(self, pc: int) -> str:
        """Return the offset (or line) and the mnemonic of an instruction and the node it is for."""
        mnemonic = self.code[pc].mnemonic if pc < len(self.code) else "end"
        nodes = [
            op for op in self.ops if op.first <= pc < op.last
        ]  # of ops with the same code the first stands for all
        node = min(nodes, key=lambda op: op.last - op.first, default=None)
        place = self.lines[pc] if pc < len(self.lines) else f"{pc * WORD_BYTES:#010x}"
        return f"{place} {mnemonic}" + (f" (node {node.name})" if node else "")

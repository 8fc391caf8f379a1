"""What a program may take at most: memory to load, verify and run it, and the instructions that a run issues.

A program file declares both in its header; a reader refuses a file that would take more before it believes the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import FlexcError
from .instruction import Instr
from .machine import Machine
from .records import values_in

#: Bytes that a value of a JSON section takes as an object, and a byte of its text (up to four a letter, and copies).
_A_VALUE, _A_LETTER = 160, 4
#: Bytes that an entry of the section table takes as an object.
_A_SECTION = 512
#: Bytes that an instruction takes: decoded, with what the verifier and the emulator note about it.
_AN_INSTRUCTION = 4096
#: Intermediate values of one vector instruction, for each byte of the memories it works on: float64, several times.
_INTERMEDIATE = 24
#: The same of transfers through indices, for each byte of DRAM: int64 places for indices of four bytes.
_INDEXED = 3
#: Decoded weights are kept for the next windows up to so many bytes.
MOST_DECODED = 1 << 30
#: What is issued more often than this counts as issued so often.
_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Budget:
    """Bytes that loading, verifying and running one window take at most, and instructions issued in a run.

    The data of the file itself are mapped into memory and not counted; nor is what onnxruntime takes in host segments.
    """

    memory: int
    executed: int


def budget_of(code: Sequence[Instr], machine: Machine, dram_bytes: int, read: int) -> Budget:
    """Return what a program takes; ``read`` is what its other sections take when they are read."""
    on_chip = machine.buffer.bytes + machine.accumulator_bytes
    indexed = any(each.mnemonic in ("gather", "scatter") for each in code)
    memory = read + code_bytes(len(code)) + _decoded(code, machine)
    memory += max(0, dram_bytes) * (1 + _INDEXED * indexed) + on_chip * (1 + _INTERMEDIATE)
    return Budget(memory, min(sum(times for _, times in executions(code)), _ENDLESS))


def table_bytes(sections: int, names: int) -> int:
    """Return what a section table takes whose names have so many bytes."""
    return sections * _A_SECTION + names * _A_LETTER


def text_bytes(text: bytes) -> int:
    """Return what the objects of a JSON text take."""
    return values_in(text) * _A_VALUE + len(text) * _A_LETTER


def code_bytes(instructions: int) -> int:
    """Return what so many instructions take."""
    return instructions * _AN_INSTRUCTION


def executions(code: Sequence[Instr]) -> Iterator[tuple[Instr, int]]:
    """Yield every instruction with how often it is issued; ``endloop`` only marks a place. Loops may be malformed."""
    times = [1]
    for instruction in code:
        if instruction.mnemonic == "endloop":
            del times[max(1, len(times) - 1) :]
            continue
        yield instruction, times[-1]
        if instruction.mnemonic == "loop":
            times.append(min(times[-1] * instruction.integer("count"), _ENDLESS))


def _decoded(code: Sequence[Instr], machine: Machine) -> int:
    """Return what decoded weights take: float32, every position of a block, for each tile that is ever loaded."""
    loads = sum(times for each, times in executions(code) if each.mnemonic == "ldw")
    depth = max((each.integer("blocks") * each.integer("m") for each in code if each.mnemonic == "groups"), default=0)
    # 4 bytes a position, and at most 3 a slot for the tile itself and half a byte more of indices
    return min(loads * machine.array.macros * machine.array.columns * depth * 6, MOST_DECODED)


def check_budget(needed: Budget, declared: Budget, where: str) -> None:
    """Raise FlexcError where a program takes more than its file declares."""
    for title, need, allowed in (
        ("bytes of memory", needed.memory, declared.memory),
        ("executed instructions", needed.executed, declared.executed),
    ):
        if need > allowed:
            raise FlexcError(f"declares {allowed} {title}, but takes {need}", where=where)

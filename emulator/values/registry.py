"""Which function carries out which instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..array import ArrayModel
from ..walk import Leaf


@dataclass
class Call:
    """What a function is told beside its operands: the instruction, and the machine around it."""

    leaf: Leaf
    array: ArrayModel
    iterations: list[int]
    host: Callable[[int], None]

    @property
    def immediate(self) -> float:
        """The number in the instruction."""
        value = self.leaf.instr.values["imm"]
        assert isinstance(value, float | int)
        return float(value)

    @property
    def adds(self) -> bool:
        """Whether a result is added to what is there: ``mode``, in the present iteration."""
        mode = self.leaf.instr.values["mode"]
        return mode == "add" or (mode == "first" and self.iterations[self.leaf.instr.integer("level")] > 0)


#: The call, then the stream operands in the table's order: [windows or 1, rows, columns], or None where left out.
Handler: TypeAlias = Callable[..., None]
HANDLERS: dict[str, Handler] = {}


def handler(mnemonic: str) -> Callable[[Handler], Handler]:
    """Register the function that follows as the meaning of an instruction."""

    def register(function: Handler) -> Handler:
        HANDLERS[mnemonic] = function
        return function

    return register

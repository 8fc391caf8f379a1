"""A listing names what lies at an address while an op runs, not what lies there before or after."""

from __future__ import annotations

import numpy as np

from flexc.isa.assembly.places import Places
from flexc.isa.encoding import instr
from flexc.isa.machine import load_machine
from flexc.isa.program import Debug, Op, Program, Tensor


def tensor(name: str, address: int, rows: int = 16) -> Tensor:
    return Tensor(name, "f32", (rows, 4), "dram", address, (16, 4))


def op(name: str, first: int, *writes: str) -> Op:
    return Op(name, "Add", (name,), "vector", "", first, first + 2, writes=writes)


def places() -> Places:
    """Return those of a program whose first and third op write to the same memory."""
    debug = Debug(
        ops=(op("one", 0, "first"), op("two", 2, "second"), op("three", 4, "third", "y")),
        tensors=(tensor("first", 256), tensor("second", 512), tensor("third", 256, rows=8), tensor("y", 1024)),
    )
    return Places(
        Program(
            code=(instr("barrier"),) * 5 + (instr("halt"),),
            machine=load_machine("edge"),
            const=np.zeros(0, np.uint8),
            weight_bytes=0,
            dram_bytes=2048,
            inputs=(tensor("x", 0),),
            outputs=(tensor("y", 1024),),
            debug=debug,
        )
    )


def test_what_shares_memory_is_told_apart_by_the_op() -> None:
    names = places()
    assert [names.name(pc, "dram", 256) for pc in range(6)] == ["first"] * 4 + ["third"] * 2


def test_inputs_lie_there_throughout_and_outputs_once_written() -> None:
    names = places()
    assert [names.name(pc, "dram", 0) for pc in (0, 5)] == ["x", "x"]
    assert [names.name(pc, "dram", 1024) for pc in (0, 3, 4)] == ["", "", "y"]


def test_the_middle_of_a_tensor_and_what_no_tensor_is() -> None:
    names = places()
    assert names.name(2, "dram", 512 + 40) == "second + 0x28"
    assert names.name(4, "dram", 256 + 8 * 16) == "first + 0x80"
    assert names.name(2, "dram", 2000) == ""
    assert names.name(2, "buf", 0) == ""

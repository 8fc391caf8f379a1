"""Windows are independent: a batch gives, bit for bit, what each window gives alone, in whatever order runs come."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flexc.emulator import bind, parallel
from flexc.emulator.run import Executor
from flexc.isa.encoding import instr
from flexc.isa.instruction import Instr
from flexc.isa.program import Program
from flexc.isa.table import VECTOR
from tests.emulator import programs as p

ROWS, COLS = 4, 64
UNARY = [each.mnemonic for each in VECTOR if [o.name for o in each.operands] == ["dst", "a"]]
REDUCTIONS = [name for name in UNARY if name.startswith("vr") and name not in ("vrecip", "vround")]
REALS = [name for name in UNARY if name not in (*REDUCTIONS, "vnot", "visnan")]


def step(rng: random.Random) -> Iterator[Instr]:
    """One thing to do with the matrix in s0, the scratch in s1, the column in s2, int8 in s3 and the square in s4."""
    match rng.randrange(8):
        case 0:
            yield instr(
                rng.choice(["vadd", "vsub", "vmul", "vdiv", "vmax", "vmin"]), dst=1, a=0, b=rng.choice([0, 1, 2])
            )
        case 1:
            yield instr(rng.choice(REALS), dst=1, a=0)
        case 2:
            yield instr(rng.choice(REDUCTIONS), dst=2, a=rng.choice([0, 1]))
        case 3:
            yield instr("quant", dst=3, a=0, scale=2)
            yield instr("ldw", cells=6, src=7)
            yield instr("lda", act=3)
            yield instr("mac", acc=8, cells=6, mode=rng.choice(["clear", "add"]))
            yield instr("dequant", dst=5, acc=8, sx=2, sw=9)
        case 4:
            yield instr("vmm", dst=1, a=0, b=4, mode=rng.choice(["clear", "add"]))
        case 5:
            yield instr("copy", dst=0, src=1, channel=0)
        case 6:
            yield instr("vtanh", dst=0, a=1)
        case _:
            yield instr("vmul", dst=0, a=1, imm=rng.uniform(-2, 2))


def random_program(seed: int) -> Program:
    rng = random.Random(seed)
    shape = p.groups_of(2, 4, COLS // 4)
    size = ROWS * COLS * 4
    code = [
        p.groups(2, 4, COLS // 4),
        p.stream(0, "dram", "f32", 0, ROWS, COLS),
        p.stream(1, "buf", "f32", 0, ROWS, COLS),
        p.stream(2, "buf", "f32", size, ROWS, 1),
        p.stream(3, "buf", "i8", 2 * size, ROWS, COLS),
        p.stream(4, "dram", "f32", size, COLS, COLS),
        instr("pitch", stream=4, row=4, col=COLS * 4) if rng.random() < 0.5 else instr("barrier"),
        p.stream(5, "buf", "f32", 3 * size, ROWS, 32),
        p.stream(6, "cells", "i8", 0, 1, 1),
        p.stream(7, "const", "u8", 0, 1, shape.tile_bytes(32)),
        p.stream(8, "acc", "i32", 0, ROWS, 32),
        p.stream(9, "const", "f32", 4096, 1, 32),
    ]
    code += [each for _ in range(12) for each in step(rng)]
    tile, _ = p.random_tile(np.random.default_rng(seed), shape)
    const = np.zeros(4096 + 128, np.uint8)
    const[: tile.size] = tile
    const[4096:] = np.linspace(0.1, 2, 32).astype(np.float32).view(np.uint8)
    tensors = [p.tensor("x", "f32", (ROWS, COLS), 0), p.tensor("w", "f32", (COLS, COLS), size)]
    return p.program(code, const=const, inputs=tensors, outputs=tensors)


def feeds(seed: int, windows: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    shapes = {"x": (ROWS, COLS), "w": (COLS, COLS)}
    return {name: rng.standard_normal((windows, *shape)).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_a_batch_equals_single_runs(seed: int, divided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if divided:  # in two threads even where it does not pay
        monkeypatch.setattr(parallel, "WORTHWHILE", 1)
        monkeypatch.setattr(bind, "WORTHWHILE", 1)
    executor, given = Executor(random_program(seed)), feeds(seed, 5)
    whole = executor.run(given)
    alone = [executor.run({name: value[i : i + 1] for name, value in given.items()}) for i in range(5)]
    again = executor.run(given)
    for name, value in whole.items():
        assert value.tobytes() == np.concatenate([each[name] for each in alone]).tobytes()
        assert value.tobytes() == again[name].tobytes()

"""The macro array's values against products worked out slot by slot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from flexc.emulator.array import FaultyArray
from flexc.emulator.run import Executor, run
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.instruction import Instr
from flexc.isa.program import Program
from tests.emulator import programs as p

# machine edge: 128 slots a column, so so many blocks of n slots fit
PATTERNS = [(1, 1, 128), (2, 4, 64), (4, 8, 32), (1, 8, 128), (8, 16, 16), (3, 8, 42), (1, 16, 128), (1, 2, 5)]


def kernel(n: int, m: int, blocks: int, vectors: int, macros: int = 2, mode: str = "clear") -> list[Instr]:
    """Weights from const, activations from DRAM, sums to DRAM at 0x8000; two products into the same sums."""
    shape = p.groups_of(n, m, blocks)
    return [
        p.groups(n, m, blocks),
        p.stream(0, "const", "u8", 0, macros, shape.tile_bytes(32)),
        p.stream(1, "cells", "i8", 0, macros, 1),
        p.stream(2, "dram", "i8", 0, vectors, shape.depth),
        p.stream(3, "buf", "i8", 64, vectors, shape.depth),
        p.stream(4, "acc", "i32", 0, vectors, 32 * macros),
        instr("pitch", stream=4, row=4 * 32 * 4, col=4),
        p.stream(5, "dram", "i32", 0x8000, vectors, 32 * macros),
        instr("ldw", cells=1, src=0, post=(1,)),
        instr("copy", dst=3, src=2, channel=0, post=(2,)),
        instr("lda", act=3, wait=(1, 2)),
        instr("mac", acc=4, cells=1),
        instr("mac", acc=4, cells=1, mode=mode, post=(3,)),
        instr("store", dst=5, acc=4, wait=(3,)),
    ]


def made(n: int, m: int, blocks: int, vectors: int, mode: str) -> tuple[Program, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(n * 100 + m)
    tiles = [p.random_tile(rng, p.groups_of(n, m, blocks)) for _ in range(2)]
    program = p.program(
        kernel(n, m, blocks, vectors, mode=mode),
        const=np.concatenate([tile for tile, _ in tiles]),
        inputs=[p.tensor("x", "i8", (vectors, m * blocks), 0)],
        outputs=[p.tensor("y", "i32", (vectors, 64), 0x8000)],
    )
    return program, np.concatenate([dense for _, dense in tiles], axis=1)


@pytest.mark.parametrize(("n", "m", "blocks"), PATTERNS)
@pytest.mark.parametrize(("vectors", "mode"), [(1, "clear"), (5, "add")])
def test_products_are_exact(n: int, m: int, blocks: int, vectors: int, mode: str) -> None:
    program, dense = made(n, m, blocks, vectors, mode)
    x = np.random.default_rng(3).integers(-128, 128, (3, vectors, m * blocks)).astype(np.int8)
    expected = x.astype(np.int64) @ dense * (2 if mode == "add" else 1)
    assert np.array_equal(run(program, {"x": x})["y"], expected)


def test_extreme_products_stay_exact() -> None:
    tile = p.pack(np.full((32, 128), -128, np.int8), np.zeros((32, 128), np.uint8), 3)
    program, _ = made(1, 8, 128, 2, "clear")
    program = p.program(program.code[:-1], const=np.tile(tile, 2), inputs=program.inputs, outputs=program.outputs)
    result = run(program, {"x": np.full((1, 2, 1024), -128, np.int8)})["y"]
    assert (result == 128 * 128 * 128).all()


def test_a_broken_multiplier_shows_in_its_column_only() -> None:
    program, dense = made(2, 4, 64, 4, "clear")
    x = np.random.default_rng(1).integers(-128, 128, (2, 4, 256)).astype(np.int8)
    last_mac = max(pc for pc, each in enumerate(program.code) if each.mnemonic == "mac")
    broken = Executor(program, lambda cache: FaultyArray(cache, last_mac, macro=1, column=7, columns=32))
    difference = broken.run({"x": x})["y"] - x.astype(np.int64) @ dense
    assert (difference[:, :, 39] == 1).all()
    assert np.count_nonzero(difference) == difference[:, :, 39].size


def test_weights_computed_at_run_time_differ_between_windows() -> None:
    rng = np.random.default_rng(5)
    shape = p.groups_of(2, 4, 3)
    tiles = [p.random_tile(rng, shape) for _ in range(3)]
    code = [
        p.groups(2, 4, 3),
        p.stream(0, "dram", "u8", 0, 1, shape.tile_bytes(32)),
        p.stream(1, "cells", "i8", 2, 1, 1),
        p.stream(2, "dram", "i8", 0x4000, 2, 12),
        p.stream(3, "acc", "i32", 0, 2, 32),
        p.stream(4, "dram", "i32", 0x8000, 2, 32),
        instr("ldw", cells=1, src=0),
        instr("lda", act=2),
        instr("mac", acc=3, cells=1),
        instr("store", dst=4, acc=3),
    ]
    inputs = [p.tensor("w", "u8", (shape.tile_bytes(32),), 0), p.tensor("x", "i8", (2, 12), 0x4000)]
    executor = Executor(p.program(code, inputs=inputs, outputs=[p.tensor("y", "i32", (2, 32), 0x8000)]))
    x = rng.integers(-128, 128, (3, 2, 12)).astype(np.int8)
    for order in ([0, 1, 2], [2, 2, 2], [1, 0, 1]):  # the second run finds other bytes at the same site
        result = executor.run({"w": np.stack([tiles[i][0] for i in order]), "x": x})["y"]
        expected = np.stack([each.astype(np.int64) @ tiles[i][1] for each, i in zip(x, order, strict=True)])
        assert np.array_equal(result, expected)


def test_slices_and_accum_join_partial_sums() -> None:
    rng = np.random.default_rng(6)
    shape = p.groups_of(4, 8, 2)
    tiles = [p.random_tile(rng, shape) for _ in range(4)]
    code = [
        p.groups(4, 8, 2),
        p.stream(0, "const", "u8", 0, 1, shape.tile_bytes(32)),
        instr("step", stream=0, level=0, by=shape.tile_bytes(32), mod=0),
        p.stream(1, "cells", "i8", 0, 1, 1),
        instr("step", stream=1, level=0, by=1, mod=0),
        instr("loop", level=0, count=4),
        instr("ldw", cells=1, src=0),
        instr("endloop", level=0),
        p.stream(2, "cells", "i8", 0, 4, 1),
        p.stream(3, "dram", "i8", 0, 3, 32),
        p.stream(4, "acc", "i32", 0, 3, 128),
        p.stream(5, "acc", "i32", 0, 3, 64),
        instr("pitch", stream=5, row=512, col=4),
        p.stream(6, "acc", "i32", 256, 3, 64),
        instr("pitch", stream=6, row=512, col=4),
        p.stream(7, "dram", "i32", 0x8000, 3, 64),
        instr("lda", act=3),
        instr("mac", acc=4, cells=2, slices=2),
        instr("accum", dst=5, src=6),
        instr("store", dst=7, acc=5),
    ]
    program = p.program(
        code,
        const=np.concatenate([tile for tile, _ in tiles]),
        inputs=[p.tensor("x", "i8", (3, 32), 0)],
        outputs=[p.tensor("y", "i32", (3, 64), 0x8000)],
    )
    x = rng.integers(-128, 128, (2, 3, 32)).astype(np.int8)
    dense = np.block([[tiles[0][1], tiles[1][1]], [tiles[2][1], tiles[3][1]]])
    assert np.array_equal(run(program, {"x": x})["y"], x.astype(np.int64) @ dense)


def test_accumulators_wrap_around() -> None:
    code = [
        p.stream(0, "acc", "i32", 0, 1, 2),
        p.stream(1, "acc", "i32", 64, 1, 2),
        p.stream(2, "dram", "i32", 0, 1, 2),
        instr("vadd", dst=0, a=2, b=2),
        instr("vmov", dst=0, a=2),
        instr("vmov", dst=1, a=2),
        instr("accum", dst=0, src=1),
        instr("store", dst=2, acc=0),
    ]
    tensor = p.tensor("x", "i32", (2,), 0)
    result = run(p.program(code, inputs=[tensor], outputs=[tensor]), {"x": np.array([[2**31 - 1, -5]], np.int32)})
    assert result["x"].tolist() == [[-2, -10]]


@pytest.mark.parametrize(
    ("drop", "message"),
    [("ldw", "no `ldw` has written"), ("lda", "an `lda` must come before"), ("groups", "before any `groups`")],
)
def test_missing_preparation_is_named(drop: str, message: str) -> None:
    program, _ = made(2, 4, 64, 1, "clear")
    code = [each for each in program.code[:-1] if each.mnemonic != drop]
    with pytest.raises(FlexcError, match=message):
        run(p.program(code, const=program.const, inputs=program.inputs), {"x": np.zeros((1, 1, 256), np.int8)})

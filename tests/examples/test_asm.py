"""The hand-written programs do what their comments say: outputs, cycles, and when every engine does what."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flexc.emulator.run import run
from flexc.emulator.timing import time_program
from flexc.emulator.trace import trace_instructions
from flexc.isa.assembly.assembler import assemble, assemble_file
from flexc.isa.assembly.disassembler import Options, disassemble
from flexc.isa.object_file import load, save
from flexc.isa.program import Program
from flexc.isa.verifier import verify

FOLDER = Path(__file__).parents[2] / "examples" / "asm"
FILES = sorted(FOLDER.glob("*.s"))

_ROW = re.compile(r"^; (\w+)\[(\d+), (\d+):(\d+)\] = (.+)$", re.MULTILINE)
_CYCLES = re.compile(r"^; cycles = (\d+)$", re.MULTILINE)
_WORK = re.compile(r"^; +(dma0|dma1|weights|array|vector|control) +(\d+)\.\.(\d+) +(\S.*?)(?:  .*)?$", re.MULTILINE)
_TRACED = re.compile(r"^ *(\d+)\.\.(\d+) +(\w+) +\d+ +(?:L\d=\d+ )* *([^;]*?) *(?:;.*)?$")


def stated(text: str, program: Program) -> dict[str, npt.NDArray[np.float64]]:
    """Return the outputs in a program's comments; every element must be stated."""
    outputs = {tensor.name: np.full(tensor.shape, np.nan) for tensor in program.outputs}
    for name, row, first, last, numbers in _ROW.findall(text):
        outputs[name][int(row), int(first) : int(last)] = [float(each) for each in numbers.split(",")]
    return outputs


def traced(program: Program) -> list[tuple[str, int, int, str]]:
    """Return (engine, start, end, instruction) of all that is executed, without tokens and modes."""
    found = [_TRACED.match(line) for line in trace_instructions(program)]
    every = [(each[3], int(each[1]), int(each[2]), each[4]) for each in found if each is not None]
    return [(engine, start, end, re.sub(r" \w+=.*", "", text)) for engine, start, end, text in every]


def test_there_are_examples_of_every_grouping() -> None:
    assert [path.name for path in FILES] == ["gemm_4_8.s", "gemv_2_4.s", "ungrouped_1_8.s"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestExample:
    def test_it_is_safe(self, path: Path) -> None:
        assert verify(assemble_file(path)) == []

    def test_it_gives_the_stated_outputs(self, path: Path) -> None:
        program = assemble_file(path)
        expected = stated(path.read_text(), program)
        for name, values in run(program, {}).items():
            np.testing.assert_array_equal(values[0].astype(np.float64), expected[name])

    def test_it_takes_the_stated_cycles(self, path: Path) -> None:
        (cycles,) = _CYCLES.findall(path.read_text())
        assert time_program(assemble_file(path)).cycles == int(cycles)

    def test_every_engine_does_what_is_stated_when_it_is_stated(self, path: Path) -> None:
        rows = [(engine, int(start), int(end), text) for engine, start, end, text in _WORK.findall(path.read_text())]
        engines = {engine for engine, *_ in rows}
        settings = ("loop", "groups", "stream", "pitch", "step", "halt")
        executed = [row for row in traced(assemble_file(path)) if row[3].split()[0] not in settings]
        if "control" not in engines:  # barriers are stated where there are any
            assert not any(text == "barrier" for *_, text in executed)
        assert sorted(rows) == sorted(executed)

    def test_it_survives_the_object_file_and_the_listing(self, path: Path, tmp_path: Path) -> None:
        program = assemble_file(path)
        save(program, tmp_path / "it.fxc")
        again = load(tmp_path / "it.fxc")
        assert again.code == program.code
        assert bytes(again.const) == bytes(program.const)
        listed = assemble("\n".join(disassemble(again, Options(embed=True))), str(tmp_path / "it.s"))
        assert listed.code == program.code
        assert bytes(listed.const) == bytes(program.const)


def matrix(program: Program, offset: int, n: int, m: int, blocks: int) -> npt.NDArray[np.int64]:
    """Return the dense matrix of a tile, read cell by cell as docs/isa.md says."""
    columns, slots, bits = program.machine.array.columns, n * blocks, m.bit_length() - 1
    a_column = -(-slots * bits // 8)
    tile = bytes(program.const[offset:])
    dense = np.zeros((blocks * m, columns), np.int64)
    for column in range(columns):
        start = columns * slots + column * a_column
        word = int.from_bytes(tile[start : start + a_column], "little")
        for slot in range(slots):
            index = word >> slot * bits & (m - 1)
            weight = int.from_bytes(tile[column * slots + slot : column * slots + slot + 1], signed=True)
            dense[slot // n * m + index, column] += weight
    return dense


def constants(program: Program, dtype: str, *shape: int, skip: int = 0) -> npt.NDArray[np.float64]:
    count = int(np.prod(shape))
    return np.frombuffer(bytes(program.const[program.weight_bytes + skip :]), dtype, count).reshape(shape).astype(float)


def test_ungrouped_is_a_matrix_product() -> None:
    program = assemble_file(FOLDER / "ungrouped_1_8.s")
    product = constants(program, "i1", 2, 32) @ matrix(program, 0, 1, 8, 4)
    np.testing.assert_array_equal(run(program, {})["y"][0], product)


def test_gemv_is_a_matrix_product_with_scales_and_bias() -> None:
    program = assemble_file(FOLDER / "gemv_2_4.s")
    x, (sx, *scales) = constants(program, "i1", 1, 16), constants(program, "<f4", 65, skip=16)
    product = x @ matrix(program, 0, 2, 4, 4) * sx * scales[:32] + scales[32:]
    np.testing.assert_array_equal(run(program, {})["y"][0], product)


def test_gemm_is_a_matrix_product_over_all_tiles() -> None:
    program = assemble_file(FOLDER / "gemm_4_8.s")
    tiles = [matrix(program, 44 * tile, 4, 8, 2) for tile in range(6)]
    weights = np.block([[tiles[0], tiles[3]], [tiles[1], tiles[4]], [tiles[2], tiles[5]]])
    np.testing.assert_array_equal(run(program, {})["y"][0], constants(program, "i1", 4, 48) @ weights)


def test_the_change_that_the_readme_proposes_works() -> None:
    text = (FOLDER / "ungrouped_1_8.s").read_text(encoding="utf-8").split(".constants")[0]
    declared = ".input  x dtype=i8  shape=[2, 32]\n.output y dtype=i32 shape=[2, 32] address=64"
    assert declared in (FOLDER / "README.md").read_text(encoding="utf-8")
    text = text.replace(".output y dtype=i32 shape=[2, 32]", declared).replace("s2, const,", "s2, dram,")
    program = assemble(text)
    assert verify(program) == []
    x = np.random.default_rng(0).integers(-128, 128, (1, 2, 32)).astype(np.int8)
    np.testing.assert_array_equal(run(program, {"x": x})["y"][0], x[0].astype(int) @ matrix(program, 0, 1, 8, 4))


def test_the_readme_states_the_cycles() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        assert re.search(rf"\| \[{path.name}\].* \| {time_program(assemble_file(path)).cycles} \|", readme)

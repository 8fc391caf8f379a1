"""Mappings cover the whole linear, fit the machine, and take about as long as estimated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexc.backend.lower import lower
from flexc.emulator.timing import time_program
from flexc.frontend.load import load
from flexc.isa.machine import Machine, load_machine
from flexc.passes.estimate import estimate
from flexc.passes.mapping import LinearShape, Mapping, choose, groups_of, runs_of
from flexc.passes.pattern import DENSE, NM
from flexc.passes.quantise import quantise
from tests.backend.compare import SMALL, small_machine
from tests.backend.models import parsed

MACHINES: dict[str, Machine] = {name: load_machine(name) for name in ("edge", "server", "resident")} | {
    str(size): small_machine(*size) for size in SMALL
}
SHAPES = st.builds(
    LinearShape,
    st.integers(1, 700),
    st.integers(1, 3000),
    st.integers(1, 900),
    st.sampled_from([DENSE, NM(1, 2), NM(2, 4), NM(3, 8), NM(7, 8), NM(1, 16), NM(5, 16)]),
    st.sampled_from([1, 1, 7, 28]),
)


def assert_sound(mapping: Mapping, shape: LinearShape, machine: Machine) -> None:
    """Check that a mapping covers a linear and stays within every memory."""
    array = machine.array
    assert mapping.k_padded >= shape.k
    assert mapping.n_padded >= shape.n
    assert mapping.macros * mapping.slices <= array.macros
    assert mapping.buffer_bytes(array.resident) <= machine.buffer.bytes
    assert mapping.vectors * mapping.acc_slots <= array.accumulator_vectors
    assert mapping.blocks * groups_of(mapping, machine).n <= machine.slots
    assert mapping.resident_rows <= max(shape.rows, shape.unit)
    assert mapping.resident_rows % shape.unit == 0 or mapping.resident_rows == shape.rows
    assert not mapping.by_step or mapping.pieces == 1


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=12)
@given(shape=SHAPES)
def test_what_is_chosen_covers_the_linear_and_fits(name: str, shape: LinearShape) -> None:
    machine = MACHINES[name]
    mapping = choose(shape, machine)
    assert mapping is not None or machine.buffer.bytes < 1 << 17
    if mapping is not None:
        assert_sound(mapping, shape, machine)


@pytest.mark.parametrize("name", ["edge", "server"])
def test_no_columns_are_padded_where_others_follow(name: str) -> None:
    for n in (32, 64, 96, 160, 320):
        mapping = choose(LinearShape(50, 200, n, DENSE, exact=True), MACHINES[name])
        assert mapping is not None
        assert mapping.n_padded == n


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 128))
def test_runs_cover_all_rows_with_little_overlap(rows: int, most: int) -> None:
    least = -(-rows // most)
    vectors = -(-rows // least)
    runs = runs_of(rows, vectors)
    pieces = [(run.start + i * run.step, run.size) for run in runs for i in range(run.count)]
    covered = {row for start, size in pieces for row in range(start, start + size)}
    assert covered == set(range(rows))
    assert all(size <= vectors for _, size in pieces)
    assert len(pieces) <= least + 1
    assert sum(size for _, size in pieces) - rows < max(2, least)
    assert len(runs) == 1 or all(run.count % 2 == 0 for run in runs)


def test_nothing_fits_a_machine_without_room() -> None:
    assert choose(LinearShape(1, 4096, 32, DENSE), small_machine(4, 1, 1)) is None


def timed(rows: int, k: int, n: int, machine: Machine) -> tuple[int, int]:
    """Return (estimated, timed) cycles of a linear alone."""
    text = f"(float[{rows},{k}] x) => (float[] y) {{ y = MatMul(x, w) }}"
    weight = np.random.default_rng(0).standard_normal((k, n)).astype(np.float32)
    program = lower(quantise(load(parsed(text, w=weight))), machine)
    timing = time_program(program)
    place = next(i for i, op in enumerate(program.debug.ops) if op.engine == "array")
    mapping = choose(LinearShape(rows, k, n, DENSE), machine)
    assert mapping is not None
    assert mapping.resident_rows == rows
    return estimate(mapping, groups_of(mapping, machine), machine), timing.ops[place].cycles


@pytest.mark.parametrize("name", ["edge", "server", "resident"])
@pytest.mark.parametrize("size", [(1, 768, 768), (16, 256, 1024), (128, 768, 256), (200, 130, 100)], ids=str)
def test_the_estimate_is_close_to_the_timed_program(name: str, size: tuple[int, int, int]) -> None:
    estimated, real = timed(*size, MACHINES[name])
    assert 0.75 < estimated / real < 1.33

"""States: what a run leaves in DRAM is what the next one finds, also in another program of the same machine."""

from __future__ import annotations

import numpy as np

from flexc.emulator.run import Executor
from tests.isa.test_states import program

STEP = np.arange(4, dtype=np.float32)[np.newaxis]


def test_a_state_starts_at_zero_and_is_kept_only_when_asked() -> None:
    executor = Executor(program())
    for expected, resume in ((1, False), (1, False), (2, True), (3, True), (1, False)):
        out = executor.run({"step": STEP}, resume=resume)["present"]
        np.testing.assert_array_equal(out, STEP * expected)


def test_a_state_can_be_given() -> None:
    executor = Executor(program())
    np.testing.assert_array_equal(executor.run({"step": STEP, "past": STEP * 10})["present"], STEP * 11)
    np.testing.assert_array_equal(executor.run({"step": STEP}, resume=True)["present"], STEP * 12)


def test_programs_that_share_a_machine_share_its_states() -> None:
    dram = np.zeros((1, 128), np.uint8)
    first, second = Executor(program()), Executor(program())
    for executor in (first, second):
        executor.use(dram)
    first.run({"step": STEP})
    second.run({"step": STEP * 5}, resume=True)
    np.testing.assert_array_equal(first.run({"step": STEP}, resume=True)["present"], STEP * 7)


def test_windows_have_states_of_their_own() -> None:
    steps = np.concatenate([STEP, STEP * 3])
    executor = Executor(program())
    executor.run({"step": steps})
    np.testing.assert_array_equal(executor.run({"step": steps}, resume=True)["present"], steps * 2)

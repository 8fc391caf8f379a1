"""Compiling a small model for a machine, checking the program in every way there is, and comparing with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.frontend.load import load
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from flexc.isa.verifier import verify
from flexc.passes.prune import prune
from flexc.passes.quantise import quantise
from flexc.passes.session import Session

Array = npt.NDArray[Any]

#: Machines that are too small for much: buffer in KB, macros, weight sets (0: all weights resident).
SMALL = ((8, 1, 1), (16, 2, 2), (16, 4, 1), (12, 2, 16), (16, 4, 0), (64, 8, 2))


def small_machine(buffer_kb: int, macros: int, weight_sets: int) -> Machine:
    """Return the edge preset with another buffer and array."""
    return Machine.from_toml(
        f'inherit = "edge"\nname = "small{buffer_kb}k"\ndescription = "too small for much"\n'
        f"[array]\nmacros = {macros}\nweight_sets = {weight_sets}\nresident = {str(weight_sets == 0).lower()}\n"
        f"[buffer]\nbytes = {buffer_kb * 1024}\n"
    )


def machine_of(number: int) -> Machine:
    """Return one of the small machines or a preset; the number counts round."""
    presets = ("edge", "resident")
    place = number % (len(SMALL) + len(presets))
    return small_machine(*SMALL[place]) if place < len(SMALL) else load_machine(presets[place - len(SMALL)])


def compiled(model: onnx.ModelProto, machine: Machine) -> tuple[ir.Model, Program]:
    """Return the quantised graph and its program, which the verifier finds nothing wrong with and which ends."""
    graph = load(model)
    prune(graph, "keep")
    graph = quantise(graph)
    program = lower(graph, machine)
    problems = verify(program)
    assert not problems, [str(each) for each in problems[:3]]
    assert time_program(program) == time_program(program, jump=False)
    return graph, program


def assert_same(
    model: onnx.ModelProto, machine: Machine, feeds: Mapping[str, Array], exact: Mapping[str, bool] | None = None
) -> Program:
    """Compile, run and compare all windows of ``feeds``; ``exact`` says which outputs must agree bit by bit (all)."""
    graph, program = compiled(model, machine)
    results = Executor(program).run(feeds)
    session = Session(graph)
    assert set(results) == set(session.outputs)
    for window in range(len(next(iter(feeds.values())))):
        expected = session.run({name: np.asarray(array[window]) for name, array in feeds.items()})
        for name, value in expected.items():
            compare(name, results[name][window], value, exact=exact is None or exact.get(name, True))
    return program


def compare(name: str, result: Array, expected: Array, *, exact: bool) -> None:
    """Compare one output: every element, or within 1e-4 of the greatest magnitude."""
    assert result.shape == expected.shape, f"{name}: {result.shape}, not {expected.shape}"
    assert result.dtype == expected.dtype, f"{name}: {result.dtype}, not {expected.dtype}"
    if exact:
        np.testing.assert_array_equal(result, expected, err_msg=name)
        return
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance, err_msg=name)

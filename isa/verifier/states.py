"""Verifier, states: what stays in DRAM from run to run lies in one place, and nothing else lies there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..program import Program, Tensor
from ..tensors import extent

Problem = tuple[int | None, str]


def persistence_problems(program: Program) -> Iterator[Problem]:
    """Yield what is wrong with states: both ends must be there, once, in one place of dram that nothing else shares."""
    inputs, outputs = ({each.name: each for each in side} for side in (program.inputs, program.outputs))
    for state in program.states:
        title = f"state '{state.input}' -> '{state.output}'"
        ends = ((state.input, inputs, "input"), (state.output, outputs, "output"))
        missing = [f"{title}: the program has no {what} '{name}'" for name, side, what in ends if name not in side]
        yield from ((None, message) for message in missing)
        if not missing:
            yield from ((None, f"{title} {message}") for message in _ends(inputs[state.input], outputs[state.output]))
    for what, names in (("input", [s.input for s in program.states]), ("output", [s.output for s in program.states])):
        yield from ((None, f"{what} '{name}' belongs to two states") for name in _repeated(names))
    yield from _shared(program)


def _ends(before: Tensor, after: Tensor) -> Iterator[str]:
    if replace(before, name=after.name) != after:
        yield "does not stay in place: type, shape, address or strides of its two ends differ"
    if before.space != "dram":
        yield f"lies in {before.space}; allowed: dram"


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    again: set[str] = set()
    for name in names:
        (again if name in seen else seen).add(name)
    return sorted(again)


def _shared(program: Program) -> Iterator[Problem]:
    """Go through everything that is exchanged in the order of addresses; compare each with what reaches furthest."""
    resident, becomes = {state.input for state in program.states}, {state.output for state in program.states}
    lying = [(*extent(each), each.name, each.name in resident) for each in program.inputs if each.space == "dram"]
    lying += [
        (*extent(each), each.name, False)
        for each in program.outputs
        if each.space == "dram" and each.name not in becomes
    ]
    furthest, name, owned = 0, "", False
    for low, high, other, state in sorted(lying):
        if low < min(furthest, high) and (owned or state):
            yield None, f"state '{other if state else name}' shares memory with '{name if state else other}'"
        if high > furthest:
            furthest, name, owned = high, other, state

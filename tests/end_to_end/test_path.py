"""The whole path: every model on every machine with every kind of pattern is compiled, run and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flexc
from flexc.isa.machine import preset_names
from flexc.isa.program import Tensor
from flexc.isa.verifier import verify

from .models import MODELS, branching, recurrent

PATTERNS = ("none", "2:4", "4:8", "1:8", "3:8", "8:16")
WINDOWS = 3


def data(tensors: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """Several windows of random inputs; whole numbers are tokens below 48."""
    rng = np.random.default_rng(4)
    found = {}
    for tensor in tensors:
        shape = (WINDOWS, *tensor.shape)
        whole = tensor.dtype == "i64"
        found[tensor.name] = rng.integers(0, 48, shape) if whole else rng.standard_normal(shape).astype(np.float32)
    return found


def build(model: str, target: str, pattern: str) -> flexc.Program:
    prune, nm = ("none", None) if pattern == "none" else ("magnitude", pattern)
    return flexc.compile(MODELS[model](), target, prune=prune, nm=nm)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("target", preset_names())
@pytest.mark.parametrize("model", MODELS)
def test_compiled_run_and_checked(model: str, target: str, pattern: str) -> None:
    program = build(model, target, pattern)
    assert verify(program.image) == []
    feeds = data(program.image.inputs)
    verdict = program.check(feeds, MODELS[model](), windows=2)
    assert verdict.passed, verdict.line()
    assert verdict.notes == []
    assert verdict.array_ops == {"mlp": 3, "image": 4, "decoder": 6}[model]
    assert verdict.reference is not None
    assert verdict.reference.cosine > 0.99
    result = program.run(feeds)
    assert result.cycles > 0
    assert result.energy_pj > 0
    assert sum(layer.cycles for layer in result.layers) == result.cycles


@pytest.mark.parametrize("model", MODELS)
def test_the_assembled_listing_runs_alike(model: str, tmp_path: Path) -> None:
    from flexc.cli import main

    program = build(model, "edge", "3:8")
    first, listing, second = tmp_path / "a.fxc", tmp_path / "a.s", tmp_path / "b.fxc"
    program.save(first)
    assert main(["disasm", str(first), "-o", str(listing)]) == 0
    assert main(["asm", str(listing), "-o", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    feeds = data(program.image.inputs)
    one, other = program.run(feeds), flexc.load(second).run(feeds)
    assert one.cycles == other.cycles
    assert one.energy_by_event == other.energy_by_event
    assert all(one.outputs[name].tobytes() == other.outputs[name].tobytes() for name in one.outputs)


def test_only_what_the_machine_cannot_do_goes_to_the_host() -> None:
    ops = build("mlp", "edge", "none").image.debug.ops
    assert [op.nodes for op in ops if op.engine == "host"] == [("integral",)]


def test_subgraphs_may_read_what_is_around_them() -> None:
    program = flexc.compile(branching())
    verdict = program.check(data(program.image.inputs), branching())
    assert verdict.passed, verdict.line()
    assert verdict.operators["If"].kind == "host"


def test_a_scan_is_a_hardware_loop() -> None:
    """Its first turn multiplies zeros: it is folded, and stands before the loop."""
    program = flexc.compile(recurrent())
    verdict = program.check(data(program.image.inputs), recurrent())
    assert verdict.passed, verdict.line()
    assert "a loop of 5 turns" in [op.reason for op in program.image.debug.ops]
    assert not [op for op in program.image.debug.ops if op.engine == "host"]


def test_patterns_cost_less() -> None:
    cycles = [build("decoder", "edge", pattern).run(data_of_decoder()).macs for pattern in ("none", "2:4", "1:8")]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > cycles[-1]


def data_of_decoder() -> dict[str, np.ndarray]:
    return {"tokens": np.arange(8)[np.newaxis]}

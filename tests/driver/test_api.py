"""The Python API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flexc
from flexc.isa.errors import FlexcError, UsageError

from .conftest import mlp_proto


@pytest.fixture(scope="module")
def program() -> flexc.Program:
    return flexc.compile(mlp_proto(), "resident", prune="magnitude", nm="4:8")


def x(*leading: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((*leading, 1, 3, 37)).astype(np.float32)


def test_one_window(program: flexc.Program) -> None:
    result = program.run({"x": x()})
    assert result.outputs["y"].shape == (1, 3, 5)
    assert result.windows == 1
    assert result.cycles == sum(layer.cycles for layer in result.layers)
    assert result.energy_pj == pytest.approx(sum(result.energy_by_event.values()))
    assert repr(result).startswith(f"<flexc.Result: y float32[1, 3, 5]; {result.cycles} cycles, ")


def test_several_windows(program: flexc.Program) -> None:
    result = program.run({"x": x(4)})
    assert result.outputs["y"].shape == (4, 1, 3, 5)
    assert result.outputs["y"][2].tobytes() == program.run({"x": x(4)[2]}).outputs["y"].tobytes()


def test_saved_and_loaded(program: flexc.Program, tmp_path: Path) -> None:
    program.save(tmp_path / "p.fxc")
    again = flexc.load(tmp_path / "p.fxc")
    assert again.image.code == program.image.code
    assert again.run({"x": x()}).outputs["y"].tobytes() == program.run({"x": x()}).outputs["y"].tobytes()
    assert repr(again) == repr(program)


def test_check(program: flexc.Program) -> None:
    verdict = program.check({"x": x(3)}, mlp_proto(), windows=1)
    assert verdict.passed
    assert verdict.windows == 1
    assert verdict.reference is not None
    assert verdict.model is not None
    assert verdict.reference.windows == verdict.model.windows == 3


def test_wrong_feeds(program: flexc.Program) -> None:
    with pytest.raises(FlexcError, match="input 'x' is missing"):
        program.run({})
    with pytest.raises(FlexcError, match="no input 'z'"):
        program.run({"x": x(), "z": x()})
    with pytest.raises(FlexcError, match="must be float32"):
        program.run({"x": x().astype(np.float64)})


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="N must not exceed M"):
        flexc.compile(mlp_proto(), nm="5:4")
    with pytest.raises(UsageError, match="unknown machine"):
        flexc.compile(mlp_proto(), "edgy")


def test_compiling_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(mlp_proto().SerializeToString())
    code = f"import flexc, sys; flexc.compile({str(tmp_path / 'm.onnx')!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'decompile'"):
        _ = flexc.decompile
    assert {"compile", "load", "Program"} <= set(dir(flexc))

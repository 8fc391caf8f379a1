"""The examples on the command line: assembled, run, stepped through and traced."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from flexc.cli import main

FOLDER = Path(__file__).parents[2] / "examples" / "asm"


@pytest.fixture
def gemm(tmp_path: Path) -> str:
    """The assembled GEMM."""
    program = tmp_path / "gemm.fxc"
    assert main(["asm", str(FOLDER / "gemm_4_8.s"), "-o", str(program)]) == 0
    return str(program)


def test_a_run_reports_the_cycles(gemm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", gemm]) == 0
    assert "90 = 180 ns" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (["--step"], "pc 0, fetch_x"),
        (["--break", "tile"], "pc 26, L0=0 L1=0, tile"),
        (["--until", "write_y"], "pc 34, write_y"),
        (["--step", "--break", "tile", "--until", "write_y"], "pc 0, fetch_x"),
    ],
)
def test_stepping(
    gemm: str, options: list[str], first: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("g\nq\n"))
    capsys.readouterr()
    assert main(["run", gemm, *options]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(first)
    assert "(flexc) q" in shown


def test_a_trace_needs_no_more_than_the_program(gemm: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["run", gemm, "--trace-instructions"]) == 0
    assert capsys.readouterr().out.endswith("; 90 cycles, 60 instructions\n")
    assert main(["run", gemm, "--trace-instructions", "--limit", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trace-instructions", "--limit", "-1"], "--limit -1"),
        (["--step", "--json"], "--json does not go with --step"),
        (["--until", "write_x"], "did you mean 'write_y'?"),
    ],
)
def test_what_makes_no_sense_is_refused(
    gemm: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", gemm, *options]) != 0
    assert message in capsys.readouterr().err

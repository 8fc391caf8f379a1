"""Errors are for the person who typed the command: one clear line, the right exit code, nothing left behind."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from flexc import cli

from .conftest import Call


def test_broken_models(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    cut, text = tmp_path / "cut.onnx", tmp_path / "text.onnx"
    cut.write_bytes(mlp.read_bytes()[:-2000])
    text.write_text("this is no model\n", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    for path, message in (
        (tmp_path / "none.onnx", "no such file"),
        (cut, "cut short"),
        (text, "not an ONNX file"),
        (tmp_path, "is a folder"),
    ):
        done = flexc("compile", path, "-o", tmp_path / "out.fxc")
        assert done.code == 1
        assert done.out == ""
        assert done.err.startswith(f"error: {path}: ")
        assert message in done.err.splitlines()[0]
        assert "Traceback" not in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_cannot_be_written(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    done = flexc("compile", mlp, "-o", tmp_path / "no" / "such" / "out.fxc")
    assert done.code == 1
    assert "out.fxc: cannot be written: No such file or directory" in done.err


def test_an_output_never_replaces_what_it_is_made_of(
    flexc: Call, mlp: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listing = tmp_path / "a.s"
    assert flexc("disasm", compiled, "-o", listing).code == 0
    (tmp_path / "link.onnx").symlink_to(mlp)
    for words, source in (
        (("compile", mlp, "-o", mlp.name), mlp),
        (("compile", mlp, "-o", "link.onnx"), mlp),
        (("disasm", compiled, "-o", compiled), compiled),
        (("asm", listing, "-o", listing), listing),
        (("run", compiled, "--random-inputs", "1", "--output", compiled), compiled),
    ):
        before = source.read_bytes()
        done = flexc(*words)
        assert (done.code, done.out) == (2, "")
        assert ": would replace what it is made of" in done.err
        assert source.read_bytes() == before


@pytest.mark.parametrize("command", ["run", "disasm", "verify", "inspect"])
def test_broken_programs(command: str, flexc: Call, compiled: Path, mlp: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.fxc"
    cut.write_bytes(compiled.read_bytes()[:3000])
    words = ["--random-inputs", "1"] if command == "run" else []
    for path, message in (
        (tmp_path / "none.fxc", "no such file"),
        (cut, "is truncated"),
        (mlp, "is not a flexc program file"),
    ):
        done = flexc(command, path, *words)
        assert done.code == 1
        assert message in done.err.splitlines()[0]


def test_unsafe_programs_are_refused(flexc: Call, compiled: Path, tmp_path: Path) -> None:
    listing, unsafe = tmp_path / "a.s", tmp_path / "a.fxc"
    assert flexc("disasm", compiled, "-o", listing).code == 0
    lines = listing.read_text(encoding="utf-8").splitlines()
    listing.write_text("\n".join(line for line in lines if line.split()[-1:] != ["halt"]) + "\n", encoding="utf-8")
    assert flexc("asm", listing, "-o", unsafe).code == 0
    done = flexc("run", unsafe, "--random-inputs", "1")
    assert done.code == 1
    assert "is not safe to run" in done.err
    assert flexc("verify", unsafe).code == 1


def test_errors_of_assembly_show_the_place(flexc: Call, tmp_path: Path) -> None:
    (tmp_path / "a.s").write_text("  hald\n", encoding="utf-8")
    done = flexc("asm", tmp_path / "a.s", "-o", tmp_path / "a.fxc")
    assert done.code == 1
    assert "a.s:1:3" in done.err
    assert "^" in done.err


def test_usage(flexc: Call) -> None:
    for words, message in (
        ((), "no command"),
        (("no-such-command",), "invalid choice: 'no-such-command'"),
        (("compile",), "the following arguments are required"),
        (("run", "a.fxc", "--windows", "many"), "invalid int value: 'many'"),
        (("isa", "mack"), "no instruction 'mack'"),
        (("targets", "edgy"), "unknown machine 'edgy'"),
        (("disasm", "a.fxc", "--range", "9"), "not a range of byte offsets"),
    ):
        done = flexc(*words)
        assert done.code == 2
        assert message in done.err.splitlines()[0]


def test_what_nobody_foresaw_is_called_a_bug(flexc: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "targets", ("json", "no_such_function"))
    done = flexc("targets")
    assert done.code == 70
    assert "Traceback" in done.err
    assert "this is a bug in flexc" in done.err


def test_ctrl_c(flexc: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("flexc.command_manual.targets", interrupt)
    done = flexc("targets")
    assert (done.code, done.err) == (130, "interrupted\n")


def test_a_closed_pipe_is_quiet(compiled: Path) -> None:
    command = [sys.executable, "-m", "flexc", "disasm", str(compiled), "--embed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("place", ["flexc.compiler.lower", "flexc.isa.container._copy"])
def test_an_interrupted_compilation_leaves_nothing(
    place: str, flexc: Call, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(place, interrupt)
    assert flexc("compile", mlp, "-o", tmp_path / "out.fxc").code == 130
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupted_run_leaves_nothing(
    flexc: Call, compiled: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = sorted(data.parent.iterdir())
    monkeypatch.setattr("flexc.outputs.Archive.sink", interrupt)
    assert flexc("run", compiled, "--input", data, "--output", data.with_name("y.npz")).code == 130
    assert sorted(data.parent.iterdir()) == before


def test_a_program_that_takes_more_memory_than_there_is_is_not_run(flexc: Call, compiled: Path, tmp_path: Path) -> None:
    greedy, head = tmp_path / "a.fxc", bytearray(compiled.read_bytes())
    head[96:104] = struct.pack("<Q", 1 << 60)
    head[124:128] = struct.pack("<I", zlib.crc32(bytes(head[:124])))
    greedy.write_bytes(head)
    done = flexc("run", greedy, "--random-inputs", "1")
    assert done.code == 1
    assert done.err.startswith(f"error: {greedy}: declares 1152921.5 TB of memory; this computer has ")

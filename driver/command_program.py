"""``flexc verify`` and ``flexc inspect``: look at a program without running it."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from flexc.isa import verifier
from flexc.isa.errors import FlexcError, raise_all
from flexc.isa.object_file import BY_NUMBER, declared, load, sections
from flexc.isa.program import Program, Tensor
from flexc.tables import Facts, Table, count, show, size

#: Files of these names are read as assembly.
_SOURCES = (".s", ".asm")


def verify(arguments: Namespace) -> int:
    """Prove that a program, or one still in assembly, is safe to run, or name all problems."""
    is_source = Path(arguments.program).suffix in _SOURCES
    problems = _of_source(arguments.program) if is_source else verifier.verify(load(arguments.program))
    if arguments.json:
        listed = [{"where": problem.where, "message": problem.message} for problem in problems]
        print(json.dumps({"schema_version": 1, "safe": not problems, "problems": listed}, indent=1))
        return 1 if problems else 0
    for problem in problems if not is_source else ():
        problem.where = f"{arguments.program}: {problem.where}"
    raise_all(problems)
    print(f"{arguments.program}: safe to run")
    return 0


def _of_source(path: str) -> list[FlexcError]:
    """Return what is wrong with a program in assembly, by its lines."""
    from flexc.isa.assembly.assembler import assemble_lines

    return verifier.verify(*assemble_lines(path))


def inspect(arguments: Namespace) -> int:
    """Show the sections of a program file, its machine and its tensors."""
    path = Path(arguments.program)
    report = inspection(path, load(path))
    if arguments.json:
        print(json.dumps(report, indent=1))
        return 0
    facts = [("file", f"{path}, {size(report['file_bytes'])}"), ("target", report["target"])]
    facts += [(name, text) for name, text in report["meta"].items() if text]
    tiles = count(report["tile_coordinates"])
    facts.append(
        ("code", f"{count(report['instructions'])} instructions, {count(report['ops'])} ops, {tiles} tile coordinates")
    )
    budget = report["declared"]
    issued = f"{count(budget['executed'])} instructions in a run"
    facts.append(("declares", f"at most {size(budget['memory'])} of memory (loaded, verified, run once), {issued}"))
    tensors = [
        (each["role"], each["name"], each["dtype"], "x".join(map(str, each["shape"])), f"{each['address']:#x}")
        for each in report["tensors"]
    ]
    facts += [("state", f"{each['input']} becomes {each['output']}, in place") for each in report["states"]]
    rows = [(each["kind"], str(each["count"]), size(each["bytes"]), each["doc"]) for each in report["sections"]]
    show(
        [
            Facts(facts),
            Table("Sections", ("kind", ">count", ">bytes", "what it holds"), rows),
            Table("Inputs and outputs", ("", "name", "dtype", "shape", ">address"), tensors),
        ]
    )
    return 0


def inspection(path: Path, program: Program) -> dict[str, Any]:
    """Return what a program file holds.

    Raises:
        FlexcError: the file cannot be read.
    """
    try:
        file_bytes = path.stat().st_size
    except OSError as error:
        raise FlexcError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    return {
        "schema_version": 1,
        "file_bytes": file_bytes,
        "target": program.machine.name,
        "machine_fingerprint": program.machine.fingerprint(),
        "meta": dict(program.meta),
        "instructions": len(program.code),
        "ops": len(program.debug.ops),
        "tile_coordinates": len(program.debug.tiles),
        "dram_bytes": program.dram_bytes,
        "declared": vars(declared(path)),
        "sections": _sections(path),
        "tensors": [_tensor("input", each) for each in program.inputs]
        + [_tensor("output", each) for each in program.outputs],
        "states": [{"input": state.input, "output": state.output} for state in program.states],
        "host_segments": [segment.name for segment in program.segments],
    }


def _sections(path: Path) -> list[dict[str, Any]]:
    """Sum the sections of a kind up: a program may have hundreds of blobs."""
    rows: dict[int, dict[str, Any]] = {}
    for section in sections(path):
        kind = BY_NUMBER[section.kind]
        row = rows.setdefault(section.kind, {"kind": kind.title, "count": 0, "bytes": 0, "doc": kind.doc})
        row["count"] += 1
        row["bytes"] += section.size
    return list(rows.values())


def _tensor(role: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "role": role,
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "space": tensor.space,
        "address": tensor.address,
        "strides": list(tensor.strides),
    }

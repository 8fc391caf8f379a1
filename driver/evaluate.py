"""Running models side by side on the same windows: graphs in onnxruntime, programs on the emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexc import reference
from flexc.compiler import Options, compile_graph
from flexc.emulation import Arrays, run_batches
from flexc.frontend.load import load
from flexc.hardware import quantise_for
from flexc.inputs import Windows
from flexc.isa.errors import FlexcError, UsageError
from flexc.isa.machine import Machine
from flexc.isa.program import Program
from flexc.passes.session import Session, first_line, open_session
from flexc.scores import Score, Task
from flexc.signature import read_signature

Outputs = Iterator[Arrays]
"""Outputs of one window after another."""

FORMS = ("fp32", "quantised", "emulator")
"""The forms in which a model can run."""


@dataclass(frozen=True)
class Contender:
    """One row of the table: a model in one form, the inputs it takes, and how to run it over windows."""

    name: str
    form: str
    inputs: tuple[str, ...]
    run: Callable[[Windows], Outputs]


@dataclass(frozen=True)
class Shapes:
    """What dynamic shapes and dims are bound to."""

    shapes: Mapping[str, Sequence[int]]
    dims: Mapping[str, int]


def contenders_of(path: str, forms: Sequence[str], shapes: Shapes, machine: Machine) -> list[Contender]:
    """Return a file in the forms asked for: an ONNX file, or a program with the graphs inside it.

    Raises:
        FlexcError: the file cannot be read, or lacks a graph.
    """
    name = Path(path).name
    if path.endswith(".fxc"):
        return _of_program(path, name, forms)
    inputs = tuple(each.name for each in read_signature(path).inputs)
    made = {
        "fp32": lambda feeds: _in_onnxruntime(file_session(path), feeds),
        "quantised": lambda feeds: _in_onnxruntime(Session(quantise_for(_loaded(path, shapes), machine)), feeds),
        "emulator": lambda feeds: _on_emulator(_compiled(path, shapes, machine), feeds),
    }
    return [Contender(name, form, inputs, made[form]) for form in forms]


def _of_program(path: str, name: str, forms: Sequence[str]) -> list[Contender]:
    from flexc.command_run import load_verified

    program = load_verified(path)
    made: dict[str, Callable[[Windows], Outputs]] = {}
    for form, graph in (("fp32", reference.FLOAT), ("quantised", reference.QUANTISED)):
        if reference.has(program.blobs, graph):
            made[form] = _runner(program, graph)
    made["emulator"] = lambda feeds: _on_emulator(program, feeds)
    inputs = tuple(each.name for each in program.inputs)
    return [Contender(name, form, inputs, made[form]) for form in forms if form in made]


def _runner(program: Program, graph: str) -> Callable[[Windows], Outputs]:
    return lambda feeds: _in_onnxruntime(Session(reference.unpack(program.blobs, graph)), feeds)


def _loaded(path: str, shapes: Shapes) -> Any:
    return load(path, shapes.shapes, shapes.dims)


def _compiled(path: str, shapes: Shapes, machine: Machine) -> Program:
    options = Options(target=machine, shapes=shapes.shapes, dims=shapes.dims, keep_reference=False)
    return compile_graph(path, options).program


def file_session(path: str) -> Callable[[Arrays], Arrays]:
    """Open a file in onnxruntime as it is, nothing of ours between.

    Raises:
        FlexcError: onnxruntime refuses it, or, when run, the data.
    """
    try:
        session = open_session(path, optimise=True)
    except FlexcError as error:
        raise FlexcError(error.message, where=path) from error
    names = [each.name for each in session.get_outputs()]

    def run(feed: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:  # onnxruntime's own have no common type
            raise FlexcError(f"cannot run the data: {first_line(error)}", where=path) from error

    return run


def _in_onnxruntime(session: Session | Callable[[Arrays], Arrays], feeds: Windows) -> Outputs:
    run = session.run if isinstance(session, Session) else session
    return (run(feed) for feed in feeds)


def _on_emulator(program: Program, feeds: Windows) -> Outputs:
    for _start, _inputs, outputs in run_batches(program, feeds):
        count = len(next(iter(outputs.values())))
        yield from ({name: array[index] for name, array in outputs.items()} for index in range(count))


def evaluate(
    contenders: Sequence[Contender], task: Task, feeds: Windows, progress: Callable[[str, int, int], None]
) -> list[Score]:
    """Run all on every window, in step; the first is what the others are to be close to.

    Raises:
        FlexcError: outputs that differ in name or shape; a model that cannot run the data.
    """
    _check_inputs(contenders)
    scores = [Score(task) for _ in contenders]
    running = [each.run(feeds) for each in contenders]
    for index, feed in enumerate(feeds):
        progress("windows", index, len(feeds))
        compared: Arrays | None = None
        for place, (contender, outputs) in enumerate(zip(contenders, running, strict=True)):
            found = _next(outputs, contender)
            _check_alike(found, task, compared, contender)
            scores[place].add(feeds.places[index], feed, found, compared)
            if place == 0:
                compared = {name: array for name, array in found.items() if np.issubdtype(array.dtype, np.floating)}
    progress("windows", len(feeds), len(feeds))
    return scores


def _check_inputs(contenders: Sequence[Contender]) -> None:
    first, *others = contenders
    for each in others:
        if set(each.inputs) != set(first.inputs):
            raise UsageError(
                f"takes {', '.join(each.inputs)}; the first model takes {', '.join(first.inputs)}",
                where=each.name,
                remedy="compare models with the same inputs and outputs",
            )


def _next(outputs: Outputs, contender: Contender) -> Arrays:
    try:
        return next(outputs)
    except FlexcError:
        raise
    except Exception as error:
        raise FlexcError(f"cannot run the data: {first_line(error)}", where=contender.name) from error


def _check_alike(found: Arrays, task: Task, compared: Arrays | None, contender: Contender) -> None:
    wanted = {task.output: None} | ({name: array.shape for name, array in compared.items()} if compared else {})
    for name, shape in wanted.items():
        if name not in found or (shape is not None and found[name].shape != shape):
            got = list(found[name].shape) if name in found else "no such output"
            raise UsageError(
                f"output '{name}' is {got}, the first model's is {list(shape or ())}",
                where=contender.name,
                remedy="compare models with the same inputs and outputs",
            )

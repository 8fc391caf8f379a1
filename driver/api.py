"""The public Python API: compile a model, load a program, run it, check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flexc.argument_types import array_of, typed
from flexc.budget_words import parse_budget
from flexc.checker import CheckOptions, check_program
from flexc.compiler import Model, Options, compile_graph
from flexc.emulation import Arrays, Cost, Result
from flexc.emulator.run import Executor
from flexc.expert_words import capacity_of
from flexc.isa import object_file, verifier
from flexc.isa.errors import FlexcError
from flexc.isa.machine import Machine
from flexc.isa.program import Program as Image
from flexc.passes.pattern import NM
from flexc.passes.pins import Pin
from flexc.prune_options import Calibration, PruneOptions

if TYPE_CHECKING:
    from flexc.verdict import Verdict


class Program:
    """A compiled program: run it, save it, check it. ``image`` is what the file holds."""

    def __init__(self, image: Image) -> None:
        self.image = image

    def __repr__(self) -> str:
        inputs = ", ".join(f"{each.name} {each.dtype}{list(each.shape)}" for each in self.image.inputs)
        return f"<flexc.Program for {self.image.machine.name}: {inputs}; {len(self.image.code)} instructions>"

    @cached_property
    def cost(self) -> Cost:
        """Cycles and energy of a window: they do not depend on the values."""
        return Cost.of(self.image)

    @cached_property
    def _executor(self) -> Executor:
        verifier.check(self.image)
        return Executor(self.image)

    @typed("Program.save")
    def save(self, path: str | Path) -> None:
        """Write the program to a file; it appears complete or not at all.

        Raises:
            FlexcError: the file cannot be written.
        """
        object_file.save(self.image, path)

    @typed("Program.run")
    def run(self, feeds: Mapping[str, npt.ArrayLike]) -> Result:
        """Run one window, or several at once.

        Args:
            feeds: for each input an array of its shape, or all of them with one more axis in front for the windows. A
                state may be left out: it starts at zero (:class:`flexc.Session` goes on from the last run).

        Returns:
            the outputs, with the axis of windows where the inputs had it, and the cost of a window.

        Raises:
            FlexcError: an input is missing, unknown, or of another shape or type; the verifier refuses the program.
        """
        arrays = {name: array_of(name, value) for name, value in feeds.items()}
        single = all(arrays[each.name].ndim == len(each.shape) for each in self.image.inputs if each.name in arrays)
        given = {name: array[np.newaxis] if single else array for name, array in arrays.items()}
        outputs = self._executor.run(given)
        windows = len(next(iter(outputs.values()))) if outputs else 0
        return Result.of(_first(outputs) if single else outputs, windows, self.cost)

    @typed("Program.check", CheckOptions)
    def check(self, feeds: Mapping[str, npt.ArrayLike], model: Model | None = None, **options: Any) -> Verdict:
        """Run a window, or several, and compare with onnxruntime, operation by operation and end to end.

        Args:
            feeds: as for :meth:`run`.
            model: the model that was compiled, to report how close the program is to it.
            options: further fields of :class:`flexc.checker.CheckOptions`.

        Raises:
            FlexcError: as for :meth:`run`; or the program holds no reference to compare with.
        """
        arrays = {name: array_of(name, value) for name, value in feeds.items()}
        return check_program(self.image, _windows(arrays, self.image), CheckOptions(model=model, **options))


def _first(outputs: Arrays) -> Arrays:
    return {name: array[0] for name, array in outputs.items()}


def _windows(arrays: Arrays, image: Image) -> list[Arrays]:
    """Split inputs given for one or several windows into single windows."""
    single = all(arrays[each.name].ndim == len(each.shape) for each in image.inputs if each.name in arrays)
    if single:
        return [arrays]
    count = min((len(array) for array in arrays.values()), default=0)
    return [{name: array[index] for name, array in arrays.items()} for index in range(count)]


@typed("flexc.compile", PruneOptions)
def compile_model(
    path_or_model: Model,
    target: str | Path | Machine = "edge",
    *,
    prune: str | None = None,
    nm: str | NM | None = None,
    budget: str | None = None,
    calib: Calibration | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    cache: int | None = None,
    states: Mapping[str, str] | None = None,
    keep_reference: bool = True,
    dump_dir: str | Path | None = None,
    attention: str = "auto",
    pins: Sequence[str] = (),
    expert_capacity: str | float | None = None,
    **pruning: Any,
) -> Program:
    """Compile a model to a program: ``flexc.compile``.

    Args:
        path_or_model: path of an ONNX file, or a model in memory (``onnx.ModelProto`` or ``onnx_ir.Model``).
        target: a preset (``edge``, ``resident``, ``server``), a machine file, or a machine.
        prune: a method such as ``flow``, ``wanda`` or ``none``; the default keeps the N:M pattern the weights have.
        nm: one pattern for all linears, such as ``"4:8"``.
        budget: a limit such as ``"cycles=x0.8"``.
        calib: calibration data: a .npy or .npz file, a file for each input, or windows.
        shapes: dims of inputs whose shape is dynamic, by name.
        dims: numbers for the symbols of dynamic dims, such as ``{"seq": 128}``.
        cache: positions that caches which grow (past and present) may hold at most: they stay in the machine from run
            to run, and a new input, ``past_length``, says how many positions are valid before a step.
        states: further inputs that stay in the machine, and the outputs that they become.
        keep_reference: put the fp32 graph into the program, for checks.
        dump_dir: folder for what each stage hands on.
        attention: where products of two activations run: ``array``, ``vector``, or ``auto`` for the faster one.
        pins: ``"PATTERN=array"``, ``=vector`` or ``=host``: where nodes of such a name are to run; ``"PATTERN=2:4"``
            or ``=dense``: the pattern of their weights.
        expert_capacity: rows that an expert of a mixture works on at most, over its even share, such as 1.25; pairs of
            rows and experts beyond are dropped and counted in the output ``dropped_pairs``. The default takes all.
        pruning: further fields of :class:`flexc.prune_options.PruneOptions`, such as ``sparsity=0.6``.

    Raises:
        UsageError: arguments that contradict each other.
        FlexcError: a model or data that cannot be used, and why.
    """
    options = options_of(
        target=target,
        prune=prune,
        nm=nm,
        budget=budget,
        calib=calib,
        shapes=shapes,
        dims=dims,
        cache=cache,
        states=states,
        keep_reference=keep_reference,
        dump_dir=dump_dir,
        attention=attention,
        pins=pins,
        expert_capacity=expert_capacity,
        **pruning,
    )
    return Program(compile_graph(path_or_model, options).program)


def options_of(
    *,
    nm: str | NM | None = None,
    budget: str | None = None,
    pins: Sequence[str] = (),
    expert_capacity: str | float | None = None,
    **words: Any,
) -> Options:
    """Return options whose pattern, budget, pins and capacity are read as :func:`flexc.compile` takes them."""
    return Options(
        nm=NM.parse(nm) if isinstance(nm, str) else nm,
        budget=parse_budget(budget) if budget else None,
        pins=[Pin.parse(text) for text in pins],
        expert_capacity=capacity_of(expert_capacity),
        **words,
    )


@typed("flexc.load")
def load(path: str | Path) -> Program:
    """Read a program file.

    Raises:
        FlexcError: no such file; no program file; truncated, damaged, or made for another instruction set.
    """
    return Program(object_file.load(path))


__all__ = ["FlexcError", "Program", "compile_model", "load", "options_of"]

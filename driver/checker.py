"""``--check``: is what the emulator does what the model means? Operation by operation, then end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flexc import reference
from flexc.check_closeness import ClosenessSink
from flexc.check_file import compare_with_file
from flexc.check_observer import Watcher
from flexc.check_plan import make_plan
from flexc.emulation import Arrays, Sink, run_windows
from flexc.emulator.array import FastArray
from flexc.emulator.run import ArrayFactory, Executor
from flexc.expert_words import DroppedPairs, dropped_text, routing_of
from flexc.frontend.load import load
from flexc.isa.errors import FlexcError, UsageError
from flexc.isa.program import Program
from flexc.passes.session import Session
from flexc.stages import Stages
from flexc.verdict import Verdict

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.compiler import Model


@dataclass(frozen=True)
class CheckOptions:
    """How much to check.

    Attributes:
        model: the model that was compiled: the graph made of it must agree with it as it is, and how close the program
            is to it is reported.
        windows: windows compared operation by operation, at most.
        reference_windows: windows compared end to end, at most.
        array: another emulation of the array, say one with a fault.
    """

    model: Model | None = None
    windows: int = 2
    reference_windows: int = 32
    array: ArrayFactory = FastArray


def check_program(
    program: Program,
    feeds: Sequence[Arrays],
    options: CheckOptions | None = None,
    *,
    sinks: Sequence[Sink] = (),
    stages: Stages | None = None,
) -> Verdict:
    """Run every window, comparing with onnxruntime on the way; outputs also go to the sinks.

    Raises:
        UsageError: nothing to compare is asked for.
        FlexcError: the program holds no reference graph, or no debug data; an input or the model does not fit.
    """
    options, stages = options or CheckOptions(), stages or Stages()
    if options.windows < 1 or options.reference_windows < 1:
        raise UsageError("a check compares at least one window")
    quantised = reference.unpack(program.blobs, reference.QUANTISED)
    if not program.debug.taps and any(instruction.spec.engine in ("array", "vector") for instruction in program.code):
        raise FlexcError("the program has no debug data, so its values cannot be told apart")
    verdict = Verdict(windows=min(options.windows, len(feeds)))
    ends, dropped = _ends(program, options, feeds, verdict), DroppedPairs(routing_of(program))
    every = [*sinks, dropped.sink, *(sink.sink for sink in ends.values())]
    with stages.stage("check"):
        _watched(program, quantised, feeds, options, every, verdict)
    with stages.stage("run"):
        run_windows(program, feeds, every, first=verdict.windows, array=options.array, progress=stages.say)
    _conclude(verdict, ends, len(feeds))
    report = dropped.report()
    if report is not None and sum(report["dropped"]):
        verdict.notes.append(f"{dropped_text(report)}: there they differ from the model's, as declared")
    return verdict


def _ends(
    program: Program, options: CheckOptions, feeds: Sequence[Arrays], verdict: Verdict
) -> dict[str, ClosenessSink]:
    """Open the float models to compare the outputs with; compare the model with its own file."""
    ends = {}
    if reference.has(program.blobs, reference.FLOAT):
        graph = reference.unpack(program.blobs, reference.FLOAT)
        ends["reference"] = ClosenessSink(Session(graph), options.reference_windows)
    else:
        verdict.notes.append("the program was compiled with --no-reference: its outputs are not judged end to end")
    if options.model is not None:
        shapes = {tensor.name: tensor.shape for tensor in program.inputs}
        routing = routing_of(program)
        loaded = _fitting(load(options.model, shapes), program, routing.get("output", ""))
        ends["model"] = ClosenessSink(Session(loaded), options.reference_windows)
        graphs = [load(options.model, shapes, expert_capacity=routing["factor"])] if routing else []
        verdict.file, note = compare_with_file(
            options.model, [*graphs, loaded], [feeds[index] for index in range(verdict.windows)], routing
        )
        verdict.notes += [note] if note else []
    return ends


def _fitting(model: ir.Model, program: Program, added: str) -> ir.Model:
    """Refuse a model whose inputs and outputs are not the program's, but for an output that was added to it."""
    for kind, values, tensors in (
        ("input", model.graph.inputs, program.inputs),
        ("output", model.graph.outputs, program.outputs),
    ):
        theirs = {str(value.name): tuple(value.shape or ()) for value in values}
        ours = {tensor.name: tensor.shape for tensor in tensors if tensor.name != added}
        if theirs != ours:
            text = f"is not the model of this program: its {kind}s are {_listed(theirs)}, the program's {_listed(ours)}"
            raise FlexcError(text, where="--check", remedy="give the model that was compiled")
    return model


def _listed(shapes: Mapping[str, tuple[object, ...]]) -> str:
    return ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in shapes.items()) or "none"


def _watched(
    program: Program,
    quantised: ir.Model,
    feeds: Sequence[Arrays],
    options: CheckOptions,
    sinks: Sequence[Sink],
    verdict: Verdict,
) -> None:
    """Run the first windows, looking at every value."""
    chosen = [feeds[index] for index in range(verdict.windows)]
    batch = {name: np.stack([feed[name] for feed in chosen]) for name in chosen[0]}
    watcher = Watcher(make_plan(program, quantised), quantised, batch, verdict)
    outputs = Executor(program, options.array).run(batch, watcher)
    watcher.finish(outputs)
    for sink in sinks:
        sink(0, batch, outputs)


def _conclude(verdict: Verdict, ends: Mapping[str, ClosenessSink], windows: int) -> None:
    """Put the closeness end to end into the verdict."""
    verdict.reference = ends["reference"].result() if "reference" in ends else None
    verdict.model = ends["model"].result() if "model" in ends else None
    compared = max((end.result().windows for end in ends.values()), default=windows)
    if compared < windows:
        verdict.notes.append(f"{compared} of {windows} windows were compared end to end (--reference-windows N)")

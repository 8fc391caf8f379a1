"""The compiler, top to bottom: load, calibrate, prune, quantise, lower, verify; stages are timed and can be saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from flexc import reference
from flexc.backend.lower import lower
from flexc.dump import Dump
from flexc.emulation import Cost
from flexc.expert_words import routing_meta
from flexc.frontend.growing import CACHE_KEY
from flexc.frontend.load import load
from flexc.hardware import quantise_for
from flexc.host_check import parts_of_program, refuse_what_nobody_runs
from flexc.isa.errors import UsageError
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from flexc.isa.verifier import verify
from flexc.passes.calibrate import input_specs
from flexc.passes.pins import Pin, apply_pins
from flexc.passes.product_cost import ENGINES
from flexc.passes.prune import PruneReport
from flexc.prune_options import PruneOptions, check_prune_usage
from flexc.pruning import Pruned, prune_model
from flexc.stages import Stages

if TYPE_CHECKING:
    import os

    import onnx
    import onnx_ir as ir

Model: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | ir.Model"
"""What can be compiled: the path of an ONNX file, or a model in memory."""


@dataclass(frozen=True, kw_only=True)
class Options(PruneOptions):
    """What the user may choose: how to prune, and what follows.

    Attributes:
        target: a preset, a machine file, or a machine.
        shapes: dims of inputs with dynamic shapes.
        dims: numbers for the symbols of dynamic dims.
        cache: positions that caches which grow may hold at most; they stay in the machine from run to run.
        states: further inputs that stay there, and the outputs that they become.
        keep_reference: put the fp32 graph into the program, for checks.
        dump_dir: folder for what each stage hands on.
        attention: where products of two activations run: ``array``, ``vector``, or ``auto`` for the faster one.
        pins: nodes that are to run on a certain engine, by name.
        expert_capacity: rows that an expert of a mixture works on at most, over its even share; None: all it is sent.
    """

    target: str | Path | Machine = "edge"
    shapes: Mapping[str, Sequence[int]] | None = None
    dims: Mapping[str, int] | None = None
    cache: int | None = None
    states: Mapping[str, str] | None = None
    keep_reference: bool = True
    dump_dir: str | Path | None = None
    attention: str = "auto"
    pins: Sequence[Pin] = ()
    expert_capacity: float | None = None

    @property
    def loading(self) -> dict[str, Any]:
        """What loading a model takes of this."""
        return {
            "shapes": self.shapes,
            "dims": self.dims,
            "cache": self.cache,
            "states": self.states,
            "expert_capacity": self.expert_capacity,
        }


@dataclass(frozen=True)
class Compilation:
    """A program and what is known about how it came about: what the report shows."""

    source: str
    program: Program
    quantised: ir.Model
    pruned: Pruned
    cost: Cost
    stages: Stages

    @property
    def pruning(self) -> PruneReport:
        """What pruning did."""
        return self.pruned.report


def compile_graph(source: Model, options: Options, stages: Stages | None = None) -> Compilation:
    """Compile a model.

    Raises:
        UsageError: options that contradict each other, an unknown target or method.
        FlexcError: a model, calibration data or a machine file that cannot be used, and why.
    """
    stages = stages or Stages()
    dump = Dump(options.dump_dir)
    machine = machine_of(options.target)
    check_prune_usage(options)
    if options.attention not in ENGINES:
        raise UsageError(f"--attention {options.attention}", remedy=f"choose one of {', '.join(ENGINES)}")

    with stages.stage("load"):
        model = load(source, **options.loading)
        apply_pins(model, options.pins)
        dump.graph("00-loaded.onnx", model)

    pruned = prune_model(model, options, machine, stages, options.attention)
    with stages.stage("prune"):
        dump.graph("10-pruned.onnx", model)

    with stages.stage("quantise"):
        quantised = quantise_for(model, machine, options.attention)
        dump.graph("20-quantised.onnx", quantised)

    with stages.stage("lower"):
        program = lower(quantised, machine)

    with stages.stage("verify"):
        refuse_what_nobody_runs(parts_of_program(program.segments), name_of(source))
        _verify(program)

    graphs = {reference.QUANTISED: quantised} | ({reference.FLOAT: model} if options.keep_reference else {})
    program = replace(program, meta=_meta(source, options, model, pruned.report), blobs=reference.pack(graphs))
    with stages.stage("time"):
        cost = Cost.of(program)
    compilation = Compilation(name_of(source), program, quantised, pruned, cost, stages)
    with stages.stage("dump"):
        dump.program("30-partition", "40-program.s", compilation)
    return compilation


def machine_of(target: str | Path | Machine) -> Machine:
    """Return a machine, read from its file where only named.

    Raises:
        FlexcError: there is no such machine.
    """
    return target if isinstance(target, Machine) else load_machine(target)


def _verify(program: Program) -> None:
    """A program of ours that the verifier refuses is our own mistake, not the user's."""
    problems = verify(program)
    if problems:
        raise RuntimeError(f"the compiler made a program that its verifier refuses: {problems[0]}")


def name_of(source: Model) -> str:
    """Return what messages call a model."""
    import os

    return os.fspath(source) if isinstance(source, str | os.PathLike) else "model"


def _meta(source: Model, options: Options, model: ir.Model, pruning: PruneReport) -> dict[str, str]:
    """Say where a program came from, and what its files do not show: how large an input's vocabulary is."""
    from flexc import __version__

    vocabularies = {spec.name: spec.vocabulary for spec in input_specs(model) if spec.vocabulary is not None}
    changed = any(linear.requested for linear in pruning.linears)
    return {
        "flexc": __version__,
        "source": Path(name_of(source)).name,
        "prune": pruning.method,
        "nm": str(options.nm or ""),
        "pruned": "yes" if changed else "no",
        "sparsity": f"{pruning.reached:.6f}",
        "vocabularies": json.dumps(vocabularies, sort_keys=True),
        **({"cache": model.metadata_props[CACHE_KEY]} if CACHE_KEY in model.metadata_props else {}),
        **routing_meta(model.metadata_props),
    }

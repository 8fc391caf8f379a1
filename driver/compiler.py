"""The compiler, top to bottom: load, calibrate, prune, quantise, lower, verify; stages are timed and can be saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from flexc import reference
from flexc.backend.lower import lower
from flexc.dump import Dump
from flexc.emulation import Cost
from flexc.frontend.load import load
from flexc.isa.errors import UsageError
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from flexc.isa.verifier import verify
from flexc.passes.calibrate import SAMPLES, Statistics, calibrate, input_specs
from flexc.passes.feeds import Feeds, windows
from flexc.passes.pattern import NM
from flexc.passes.pattern import Cost as RowCost
from flexc.passes.product_cost import ENGINES, place_products
from flexc.passes.prune import PruneReport, default_method, find_method, prune
from flexc.passes.quantise import quantise
from flexc.stages import Stages

if TYPE_CHECKING:
    import os

    import onnx
    import onnx_ir as ir

Model: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | ir.Model"
"""What can be compiled: the path of an ONNX file, or a model in memory."""

Calibration: TypeAlias = "str | os.PathLike[str] | Mapping[str, Path | str] | Feeds"
"""Calibration data: one file, a file for each input, or windows made by hand."""


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Attributes:
        target: a preset, a machine file, or a machine.
        prune: a pruning method by name; None: ``keep`` where a weight has a pattern, else ``none``.
        nm: the pattern, for methods that need one.
        calib: calibration data, for methods that need them.
        samples: how many windows of these to use at most.
        shapes: dims of inputs with dynamic shapes.
        dims: numbers for the symbols of dynamic dims.
        include_tied: prune a head tied to the embedding, too.
        keep_reference: put the fp32 graph into the program, for checks.
        dump_dir: folder for what each stage hands on.
        attention: where products of two activations run: ``array``, ``vector``, or ``auto`` for the faster one.
    """

    target: str | Path | Machine = "edge"
    prune: str | None = None
    nm: NM | None = None
    calib: Calibration | None = None
    samples: int = SAMPLES
    shapes: Mapping[str, Sequence[int]] | None = None
    dims: Mapping[str, int] | None = None
    include_tied: bool = False
    keep_reference: bool = True
    dump_dir: str | Path | None = None
    attention: str = "auto"


@dataclass(frozen=True)
class Compilation:
    """A program and what is known about how it came about: what the report shows."""

    source: str
    program: Program
    quantised: ir.Model
    pruning: PruneReport
    cost: Cost
    stages: Stages


def compile_graph(source: Model, options: Options, stages: Stages | None = None) -> Compilation:
    """Compile a model.

    Raises:
        UsageError: options that contradict each other, an unknown target or method.
        FlexcError: a model, calibration data or a machine file that cannot be used, and why.
    """
    stages = stages or Stages()
    dump = Dump(options.dump_dir)
    machine = _machine(options.target)
    check_usage(options)

    with stages.stage("load"):
        model = load(source, options.shapes, options.dims)
        dump.graph("00-loaded.onnx", model)
        method = options.prune or default_method(model)

    with stages.stage("calibrate"):
        statistics = _statistics(model, method, options)

    with stages.stage("prune"):
        pruning = prune(
            model,
            method,
            options.nm,
            statistics,
            include_tied=options.include_tied,
            allowed_m=machine.array.block_sizes,
            cost=pattern_cost(machine),
        )
        dump.graph("10-pruned.onnx", model)

    with stages.stage("quantise"):
        quantised = quantise(model)
        place_products(quantised, machine, lambda _node: options.attention)
        dump.graph("20-quantised.onnx", quantised)

    with stages.stage("lower"):
        program = lower(quantised, machine)

    with stages.stage("verify"):
        _verify(program)

    graphs = {reference.QUANTISED: quantised} | ({reference.FLOAT: model} if options.keep_reference else {})
    program = replace(program, meta=_meta(source, options, model, pruning), blobs=reference.pack(graphs))
    with stages.stage("time"):
        cost = Cost.of(program)
    compilation = Compilation(_name(source), program, quantised, pruning, cost, stages)
    with stages.stage("dump"):
        dump.program("30-partition", "40-program.s", compilation)
    return compilation


def check_usage(options: Options) -> None:
    """Refuse options that ask for something no input could satisfy.

    Raises:
        UsageError: an unknown method; a pattern or calibration data that are missing, or that nothing would use.
    """
    method = find_method(options.prune) if options.prune else None
    wants_nm, wants_data = (method.needs_nm, method.needs_statistics) if method else (False, False)
    if options.nm is not None and not wants_nm:
        what = f"--prune {method.name} takes no --nm" if method else "--nm says how to prune, but not by which method"
        raise UsageError(what, remedy="choose --prune magnitude, or --prune wanda with --calib FILE")
    if method and wants_nm and options.nm is None:
        raise UsageError(f"--prune {method.name} needs a pattern", remedy="give one, for instance --nm 4:8")
    if method and wants_data and options.calib is None:
        raise UsageError(
            f"--prune {method.name} needs calibration data",
            remedy="give some, --calib FILE.npy or FILE.npz, or choose --prune magnitude",
        )
    if options.attention not in ENGINES:
        raise UsageError(f"--attention {options.attention}", remedy=f"choose one of {', '.join(ENGINES)}")
    if options.samples < 1:
        raise UsageError(f"--samples {options.samples}: at least one calibration window is needed")


def pattern_cost(machine: Machine) -> RowCost:
    """Return what decides between patterns that fit a weight: the machine's cycles a vector, then its stored bits."""

    def cost(k: int, nm: NM) -> tuple[float, float]:
        n, m = (1, 1) if nm.is_dense else (nm.n, nm.m)
        tiles = -(-k // machine.k_tile(n, m))
        return float(tiles * machine.cycles_per_vector(n, m)), float(nm.kept(k) * (8 + machine.index_bits(m)))

    return cost


def _machine(target: str | Path | Machine) -> Machine:
    return target if isinstance(target, Machine) else load_machine(target)


def _statistics(model: ir.Model, method: str, options: Options) -> Statistics | None:
    if not find_method(method).needs_statistics or options.calib is None:
        return None
    feeds = options.calib if isinstance(options.calib, Feeds) else windows(input_specs(model), _files(options.calib))
    return calibrate(model, feeds, options.samples)


def _files(calib: str | os.PathLike[str] | Mapping[str, Path | str]) -> Path | Mapping[str, Path | str]:
    return calib if isinstance(calib, Mapping) else Path(calib)


def _verify(program: Program) -> None:
    """A program of ours that the verifier refuses is our own mistake, not the user's."""
    problems = verify(program)
    if problems:
        raise RuntimeError(f"the compiler made a program that its verifier refuses: {problems[0]}")


def _name(source: Model) -> str:
    import os

    return os.fspath(source) if isinstance(source, str | os.PathLike) else "model"


def _meta(source: Model, options: Options, model: ir.Model, pruning: PruneReport) -> dict[str, str]:
    """Say where a program came from, and what its files do not show: how large an input's vocabulary is."""
    from flexc import __version__

    vocabularies = {spec.name: spec.vocabulary for spec in input_specs(model) if spec.vocabulary is not None}
    changed = any(linear.requested for linear in pruning.linears)
    return {
        "flexc": __version__,
        "source": Path(_name(source)).name,
        "prune": pruning.method,
        "nm": str(options.nm or ""),
        "pruned": "yes" if changed else "no",
        "sparsity": f"{pruning.reached:.6f}",
        "vocabularies": json.dumps(vocabularies, sort_keys=True),
    }

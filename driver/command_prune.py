"""``flexc prune``."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from flexc.command_compile import dims_of, shape_of
from flexc.compiler import machine_of
from flexc.files import check_output
from flexc.isa.errors import FlexcError, UsageError
from flexc.passes.pins import Pin, apply_pins
from flexc.prune_options import PruneOptions, check_prune_usage, prune_words
from flexc.prune_report import cost_of, prune_parts, prune_report
from flexc.pruned_file import open_model, save_pruned
from flexc.pruning import prune_model
from flexc.selection_file import save_selection
from flexc.stages import Stages
from flexc.tables import show


def run(arguments: Namespace) -> int:
    """Prune a model, write it as ONNX, print the report."""
    stages, output = Stages(), Path(arguments.output)
    options = PruneOptions(**prune_words(arguments))
    check_prune_usage(options, "--method")
    for path in (output, arguments.save_selection or output):
        check_output(path, None)  # a model may be pruned over itself
    pins = [Pin.parse(text) for text in arguments.pin]
    engines = [pin for pin in pins if pin.engine]
    if engines:
        raise UsageError("a pruned model runs anywhere", where=str(engines[0]), remedy="pin engines in flexc compile")
    machine = machine_of(arguments.target)
    with stages.stage("load"):
        shapes = dict(shape_of(text) for text in arguments.shape)
        opened = open_model(arguments.model, shapes, dims_of(arguments.dim))
        model = opened.dense.clone()
        apply_pins(model, pins)
    state = output.with_name(f"{output.name}.state")
    try:
        pruned = prune_model(model, replace(options, state=state), machine, stages)
    except KeyboardInterrupt:
        _tell_of(state, "\n", "the same command")
        raise
    except FlexcError:
        _tell_of(state, "", "a command that asks for another amount")
        raise
    with stages.stage("cost"):
        cost = cost_of(opened.dense, pruned, machine)
    with stages.stage("save"):
        pruned = replace(pruned, warnings=(*pruned.warnings, *save_pruned(opened, model, output)))
        if arguments.save_selection:
            choice = pruned.report.choice
            save_selection(arguments.save_selection, arguments.model, pruned.report.method, choice.patterns)
        state.unlink(missing_ok=True)
    report = prune_report(arguments.model, output, opened.dense, pruned, options, cost, stages)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        show(prune_parts(report))
    return 0


def _tell_of(state: Path, before: str, command: str) -> None:
    """Say what a state file is there for, if one is."""
    if state.exists():
        sys.stderr.write(f"{before}{state} holds what was measured; {command} goes on from there\n")

"""``flexc compile``."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from flexc.compiler import Options, compile_graph
from flexc.expert_words import capacity_of
from flexc.files import check_output
from flexc.isa.errors import UsageError
from flexc.isa.object_file import save
from flexc.passes.pins import Pin
from flexc.prune_options import prune_words
from flexc.report import compile_report, node_rows, report_parts
from flexc.selection_file import save_selection
from flexc.stages import Stages
from flexc.tables import show


def run(arguments: Namespace) -> int:
    """Compile a model, write the program, print the report."""
    stages, output = Stages(), Path(arguments.output)
    for path in (output, arguments.save_selection or output):
        check_output(path, arguments.model)
    compilation = compile_graph(arguments.model, options_of(arguments), stages)
    with stages.stage("save"):
        save(compilation.program, output)
        if arguments.save_selection:
            choice = compilation.pruning.choice
            save_selection(arguments.save_selection, arguments.model, compilation.pruning.method, choice.patterns)
    report = compile_report(compilation, output)
    if arguments.per_node:
        report["nodes"] = node_rows(compilation)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        show(report_parts(report, layers=arguments.per_layer, nodes=arguments.per_node))
    return 0


def options_of(arguments: Namespace) -> Options:
    """Return what the words on the command line ask for.

    Raises:
        UsageError: a pattern or a shape that is not one.
    """
    return Options(
        **prune_words(arguments),
        **placement_of(arguments),
        keep_reference=not arguments.no_reference,
        dump_dir=arguments.dump_dir,
    )


def placement_of(arguments: Namespace) -> dict[str, Any]:
    """Return the options that decide where nodes run.

    Raises:
        UsageError: a shape, a dim, a pin or a capacity that is not one.
    """
    return {
        "target": arguments.target,
        "shapes": dict(shape_of(text) for text in arguments.shape),
        "dims": dims_of(arguments.dim),
        "cache": arguments.cache,
        "states": dict(_state(text) for text in arguments.state),
        "attention": arguments.attention,
        "pins": [Pin.parse(text) for text in arguments.pin],
        "expert_capacity": capacity_of(arguments.expert_capacity),
    }


def dims_of(texts: list[str]) -> dict[str, int]:
    """Return the numbers that ``--dim SYMBOL=N`` gives to symbols.

    Raises:
        UsageError: a text that does not say so, or a symbol with two numbers.
    """
    dims: dict[str, int] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.rpartition("="))
        if not equals or not name or not number.isdecimal():
            raise UsageError("not a size of a dim", where=f"--dim {text}", remedy="write it as SYMBOL=128")
        if dims.setdefault(name, int(number)) != int(number):
            raise UsageError(f"'{name}' is {dims[name]} already", where=f"--dim {text}", remedy="give one number")
    return dims


def _state(text: str) -> tuple[str, str]:
    name, equals, output = text.partition("=")
    if not equals or not name or not output:
        raise UsageError("not a state", where=f"--state {text}", remedy="write it as INPUT=OUTPUT")
    return name, output


def shape_of(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the shape that ``--shape NAME=1x256`` gives to an input.

    Raises:
        UsageError: a text that does not say so.
    """
    name, equals, dims = text.rpartition("=")
    parts = dims.lower().split("x")
    if not equals or not name or not all(part.isdecimal() for part in parts):
        raise UsageError("not a shape", where=f"--shape {text}", remedy="write it as NAME=1x256")
    return name, tuple(int(part) for part in parts)

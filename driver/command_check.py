"""``flexc check``: where each node of a model would run, why, and what would bring the rest onto the machine."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from dataclasses import asdict
from typing import Any

from flexc.command_compile import placement_of
from flexc.compiler import Options
from flexc.coverage import Coverage, coverage, engine_words
from flexc.tables import Facts, Part, Table, count, counted, show


def run(arguments: Namespace) -> int:
    """Print the coverage; the exit code is 0 for what can be compiled, host segments or not."""
    found = coverage(arguments.model, Options(**placement_of(arguments)))
    if arguments.json:
        print(json.dumps(check_report(arguments.model, found), indent=1))
    else:
        show(check_parts(arguments.model, found, nodes=arguments.per_node))
    return 0


def check_report(model: str, found: Coverage) -> dict[str, Any]:
    """Return all there is to say as one value."""
    return {
        "schema_version": 1,
        "model": model,
        "target": found.target,
        "nodes_by_engine": found.engines,
        "nodes": [asdict(row) for row in found.nodes],
    }


def check_parts(model: str, found: Coverage, *, nodes: bool) -> list[Part]:
    """Return it as facts and tables: a line an operator and engine, or a line a node."""
    engines = ", ".join(f"{count(number)} {engine_words(name)}" for name, number in found.engines.items())
    verdict = f"{counted(len(found.on_host), 'node')} on the host" if found.on_host else "the machine runs all of it"
    parts: list[Part] = [Facts([("model", model), ("target", found.target), ("nodes", engines), ("verdict", verdict)])]
    if nodes:
        rows = [(row.node, row.op, row.engine, row.reason) for row in found.nodes]
        parts.append(Table("Nodes", ("node", "op", "engine", "why"), rows))
    else:
        kinds = Counter((row.op, row.engine) for row in found.nodes)
        cells = [(op, engine, count(number)) for (op, engine), number in sorted(kinds.items())]
        parts.append(Table("Operators", ("op", "engine", ">nodes"), cells))
    if found.on_host:
        held = {(row.op, row.reason, row.remedy): row.node for row in reversed(found.on_host)}
        first = [(op, node, reason, remedy) for (op, reason, remedy), node in reversed(held.items())]
        parts.append(Table("On the host", ("op", "first node", "why", "help"), first))
    return parts

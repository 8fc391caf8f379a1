"""The compile report: one value with all numbers, for ``--json``, and the tables that show it to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Any

from flexc.compiler import Compilation
from flexc.coverage import A_VIEW, NO_CODE, engine_words, joined
from flexc.isa.program import Op
from flexc.layers import TileUse, activation_products, dims_of, mappings, products, products_of
from flexc.number_report import number_facts, numbers_report
from flexc.passes.emit import LINEAR_KEY
from flexc.passes.pattern import NM
from flexc.passes.prune import NM_KEY
from flexc.run_report import machine_words
from flexc.tables import Facts, Part, Table, count, counted, duration, energy, percent, plain, size

SCHEMA_VERSION = 1


def compile_report(compilation: Compilation, file: Path | None = None) -> dict[str, Any]:
    """Return what there is to know about a compilation; `file` is the program file, where it has been written."""
    program = compilation.program
    cost = compilation.cost
    nodes = node_rows(compilation)
    segments = [row for row in _ops(compilation) if row["engine"] == "host"]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": compilation.source,
        "target": program.machine.name,
        "resident": program.machine.array.resident,
        "prune": _prune(compilation),
        "nodes_by_engine": dict(sorted(Counter(row["engine"] for row in nodes).items())),
        "host_segments": segments,
        "layers": layer_rows(compilation),
        "numbers": numbers_report(compilation.quantised),
        "activation_products": activation_products(compilation.quantised),
        "bytes": _bytes(compilation, file),
        "cycles": cost.cycles,
        "time_s": cost.time_s,
        "energy_pj": cost.energy.total_pj,
        "utilisation": cost.utilisation,
        "stages_s": {name: round(seconds, 4) for name, seconds in compilation.stages.seconds.items()},
    }


def node_rows(compilation: Compilation) -> list[dict[str, Any]]:
    """Return for every node of the quantised graph where it runs and why."""
    op_of = {name: op for op in compilation.program.debug.ops for name in op.nodes}
    heads = products(compilation.quantised)
    rows = []
    for node in compilation.quantised.graph:
        op = op_of.get(str(node.name))
        engine, reason = _placed(str(node.name), op, heads) if op else (NO_CODE, A_VIEW)
        rows.append({"node": str(node.name), "op": node.op_type, "engine": engine, "reason": reason})
    return rows


def _placed(node: str, op: Op, heads: Container[str]) -> tuple[str, str]:
    """Return where a node of an op runs and why there: the last ones of an array kernel may be row work."""
    if op.nodes.index(node) < len(op.nodes) - op.tail:
        return op.engine, op.reason
    return "vector", joined(name for name in op.nodes if name in heads)


def _ops(compilation: Compilation) -> list[dict[str, Any]]:
    kinds = {str(node.name): node.op_type for node in compilation.quantised.graph}
    rows = []
    for op in compilation.program.debug.ops:
        counted = Counter(kinds.get(name, "?") for name in op.nodes)
        rows.append({"name": op.name, "engine": op.engine, "nodes": len(op.nodes), "ops": counted, "reason": op.reason})
    return rows


def _prune(compilation: Compilation) -> dict[str, Any]:
    pruning = compilation.pruning
    return {
        "method": pruning.method,
        "requested_sparsity": compilation.pruned.requested,
        "reached_sparsity": pruning.reached_of_open,
        "zeros_of_all_linears": pruning.reached,
        "budget": dict(compilation.pruned.spent) or None,
        "warnings": list(compilation.pruned.warnings),
        "linears": len(pruning.linears),
        "patterns": dict(sorted(Counter(str(linear.nm) for linear in pruning.linears).items())),
    }


def layer_rows(compilation: Compilation) -> list[dict[str, Any]]:
    """Return for every linear its dimensions, its pattern, how it is cut into tiles, and what padding costs."""
    program, nodes, used = compilation.program, products(compilation.quantised), mappings(compilation.program)
    rows = []
    for index, op in enumerate(program.debug.ops):
        together = products_of(op, nodes)
        for node in together:
            name = op.name if len(together) == 1 else str(node.metadata_props.get(LINEAR_KEY, node.name))
            use = used.get(index, TileUse()).share(len(together))
            rows.append(_layer(name, node, use, compilation.cost.layers[index].macs // len(together), op.engine))
    return rows


def _layer(name: str, node: Any, use: TileUse, macs: int, engine: str) -> dict[str, Any]:
    dims, pattern = dims_of(node), NM.parse(node.metadata_props.get(NM_KEY, "dense"))
    needed = dims.kept_macs(NM.parse(use.runs_as or "dense"))
    return {
        "name": name,
        "op": node.op_type,
        "engine": engine,
        "rows": dims.rows,
        "k": dims.k,
        "n": dims.n,
        "nm": str(pattern),
        "runs_as": use.runs_as,
        "tile_k": use.tile_k,
        "columns": use.columns,
        "slices": use.slices,
        "vectors": use.vectors,
        "multiplications": use.multiplications,
        "tile_writes": use.tile_writes,
        "dense_macs": dims.macs,
        "macs": macs,
        "padding": 1 - needed / macs if macs else 0.0,
    }


def _bytes(compilation: Compilation, file: Path | None) -> dict[str, Any]:
    program = compilation.program
    code = 16 * len(program.code)
    return {
        "instructions": len(program.code),
        "instruction_bytes": code,
        "weight_bytes": program.weight_bytes,
        "instruction_share": code / max(1, program.weight_bytes),
        "constant_bytes": len(program.const) - program.weight_bytes,
        "dram_bytes": program.dram_bytes,
        "reference_bytes": sum(len(blob) for blob in program.blobs.values()),
        "file_bytes": file.stat().st_size if file is not None and file.exists() else None,
    }


def report_parts(report: dict[str, Any], *, layers: bool = False, nodes: bool = False) -> list[Part]:
    """Return a report as facts and tables."""
    parts: list[Part] = [Facts(_facts(report)), *(f"warning: {text}" for text in report["prune"]["warnings"])]
    if report["host_segments"]:
        parts.append(_segments(report["host_segments"]))
    if layers:
        parts.append(_layers(report["layers"]))
        if report["activation_products"]:
            parts.append(_product_table(report["activation_products"]))
    if nodes:
        rows = [(row["node"], row["op"], row["engine"], row["reason"]) for row in report["nodes"]]
        parts.append(Table("Nodes", ("node", "op", "engine", "why"), rows))
    return parts


def plain_report(report: dict[str, Any]) -> str:
    """Return all of a report as plain text."""
    return plain(report_parts(report, layers=True, nodes="nodes" in report))


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    sizes, segments = report["bytes"], report["host_segments"]
    engines = ", ".join(f"{count(number)} {engine_words(name)}" for name, number in report["nodes_by_engine"].items())
    on_host = counted(sum(each["nodes"] for each in segments), "node")
    reference = f" + {size(sizes['reference_bytes'])} reference graphs for --check" if sizes["reference_bytes"] else ""
    rows = [
        ("model", report["model"]),
        ("target", machine_words(report)),
        ("pruning", _pruning_text(report["prune"])),
        ("nodes", engines),
        ("host segments", f"{len(segments)} ({on_host})" if segments else "none"),
        *number_facts(report["numbers"]),
        *_activation_products(report["activation_products"]),
        ("padding", _padding_text(report["layers"])),
        (
            "code",
            f"{count(sizes['instructions'])} instructions, {_share_text(sizes)}",
        ),
        ("memory", f"{size(sizes['constant_bytes'])} other constants, {size(sizes['dram_bytes'])} activations in DRAM"),
    ]
    if sizes["file_bytes"]:
        rows.append(("file", f"{size(sizes['file_bytes'])}: program{reference}"))
    rows.append(("a window", _cost_text(report)))
    took = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["stages_s"].items() if seconds >= 0.05)
    rows.append(("took", f"{sum(report['stages_s'].values()):.1f} s" + (f" ({took})" if took else "")))
    return rows


def _product_table(rows: list[dict[str, str]]) -> Table:
    cells = [(row["node"], row["engine"], row["reason"]) for row in rows]
    return Table("Products of activations", ("node", "engine", "why"), cells)


def _activation_products(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    if not rows:
        return []
    on_array = sum(row["engine"] == "array" for row in rows)
    return [("attention", f"{on_array} of {len(rows)} products of activations on the array, the others in fp32")]


def _share_text(sizes: dict[str, Any]) -> str:
    share, weights = percent(sizes["instruction_share"]), size(sizes["weight_bytes"])
    return f"{size(sizes['instruction_bytes'])}: {share} of {weights} weights"


def _cost_text(report: dict[str, Any]) -> str:
    cost = f"{count(report['cycles'])} cycles, {duration(report['time_s'])}, {energy(report['energy_pj'])}"
    return f"{cost}, array {percent(report['utilisation'])} used"


def _pruning_text(pruning: dict[str, Any]) -> str:
    patterns = ", ".join(f"{number} x {pattern}" for pattern, number in pruning["patterns"].items())
    asked = f"{percent(pruning['requested_sparsity'])} asked, " if pruning["requested_sparsity"] is not None else ""
    return f"{pruning['method']}: {asked}{percent(pruning['reached_sparsity'])} of weights are zero ({patterns})"


def _padding_text(layers: list[dict[str, Any]]) -> str:
    padded = [row for row in layers if row["padding"] > 0]
    macs = sum(row["macs"] for row in layers)
    wasted = sum(row["macs"] * row["padding"] for row in layers)
    return f"{len(padded)} of {len(layers)} linears padded, {percent(wasted / max(1, macs))} of all products"


def _segments(rows: list[dict[str, Any]]) -> Table:
    cells = [
        (
            str(place),
            row["name"],
            str(row["nodes"]),
            ", ".join(f"{n} {op}" for op, n in row["ops"].items()),
            row["reason"],
        )
        for place, row in enumerate(rows)
    ]
    return Table("Host segments", (">#", "name", ">nodes", "operators", "why"), cells)


def _listed(ops: dict[str, int]) -> str:
    return ", ".join(f"{number} {op}" for op, number in ops.items())


def _layers(rows: list[dict[str, Any]]) -> Table:
    columns = (
        "linear",
        "op",
        "rows x K x N",
        "N:M",
        "runs as",
        "tile K x columns",
        ">vectors",
        ">products",
        ">padding",
    )
    cells = [
        (
            row["name"],
            row["op"],
            f"{row['rows']} x {row['k']} x {row['n']}",
            row["nm"],
            row["runs_as"] or row["engine"],
            f"{row['slices']} x {row['tile_k']} x {row['columns']}" if row["tile_k"] else "",
            str(row["vectors"]),
            count(row["macs"]),
            percent(row["padding"]),
        )
        for row in rows
    ]
    return Table("Linears", columns, cells)

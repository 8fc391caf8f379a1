"""What ``flexc prune`` reports: one value with all numbers, and the tables that show it to people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexc.budgets import stored_bits
from flexc.emulation import Cost
from flexc.hardware import time_patterns
from flexc.isa.errors import FlexcError
from flexc.passes.outliers import Outliers, outliers_by_name
from flexc.passes.pattern import DENSE
from flexc.passes.prune import PrunedLinear, open_linears
from flexc.pruning import Pruned
from flexc.tables import Facts, Part, Table, count, counted, duration, energy, percent, size

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.isa.machine import Machine
    from flexc.prune_options import PruneOptions
    from flexc.stages import Stages

SCHEMA_VERSION = 1


def cost_of(dense: ir.Model, pruned: Pruned, machine: Machine) -> dict[str, Any]:
    """Time the dense and the pruned program of a window on a machine; say why where it cannot run them."""
    patterns = {row.name: row.nm for row in pruned.report.linears}
    try:
        before = time_patterns(dense, dict.fromkeys(patterns, DENSE), machine)
        after = time_patterns(dense, patterns, machine)
    except FlexcError as error:
        return {"target": machine.name, "reason": str(error).partition("\n")[0]}
    return {"target": machine.name, "dense": _numbers(before), "pruned": _numbers(after)}


def _numbers(cost: Cost) -> dict[str, float]:
    return {"cycles": cost.cycles, "time_s": cost.time_s, "energy_pj": cost.energy.total_pj}


def prune_report(
    model: str,
    output: Path,
    dense: ir.Model,
    pruned: Pruned,
    options: PruneOptions,
    cost: dict[str, Any],
    stages: Stages,
) -> dict[str, Any]:
    """Return what there is to know about a pruned model; `dense` is the model before."""
    report = pruned.report
    linears = open_linears(dense, include_tied=options.include_tied)
    outliers = outliers_by_name(linears, pruned.statistics, options.hyper_m)
    bits = {linear.name: linear for linear in linears}
    names, costs = report.choice.patterns, report.choice.costs
    rows = [_row(row, row.name in names, outliers.get(row.name), costs.get(row.name)) for row in report.linears]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "output": str(output),
        "method": report.method,
        "update": options.update,
        "permuted": pruned.permuted,
        "requested_sparsity": pruned.requested,
        "reached_sparsity": report.reached_of_open,
        "zeros_of_all_linears": report.reached,
        "patterns": dict(sorted(Counter(str(row.nm) for row in report.open).items())),
        "stored_bits": {
            "dense": sum(stored_bits(linear, DENSE) for linear in linears),
            "pruned": sum(stored_bits(bits[row.name], row.nm) for row in report.linears if row.name in bits),
        },
        "budget": dict(pruned.spent) or None,
        "cost": cost,
        "calibration_windows": len(pruned.feeds) if pruned.feeds is not None else 0,
        "outlier_threshold": options.hyper_m,
        "outlier_metric": "weight x input norm" if pruned.statistics is not None else "weight",
        "selection": dict(report.choice.facts),
        "linears": rows,
        "warnings": list(pruned.warnings),
        "stages_s": {name: round(seconds, 4) for name, seconds in stages.seconds.items()},
    }


def _row(row: PrunedLinear, chosen: bool, outliers: Outliers | None, cost: float | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "n": row.n,
        "k": row.k,
        "open": chosen,
        "nm": str(row.nm),
        "sparsity": row.reached,
        "outlier_density": outliers.density if outliers else None,
        "outlier_distribution": outliers.distribution if outliers else None,
        "divergence": cost,
    }


def prune_parts(report: dict[str, Any]) -> list[Part]:
    """Return a report as facts and a table."""
    tables = [_linears(report["linears"])] if report["linears"] else []
    return [Facts(_facts(report)), *tables, *(f"warning: {text}" for text in report["warnings"])]


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    asked = report["requested_sparsity"]
    wanted = f"{percent(asked)} asked, " if asked is not None else ""
    patterns = ", ".join(f"{number} x {pattern}" for pattern, number in report["patterns"].items())
    bits = report["stored_bits"]
    rows = [
        ("model", report["model"]),
        ("written", report["output"]),
        ("method", report["method"] + (f", update {report['update']}" if report["update"] else "")),
        ("sparsity", f"{wanted}{percent(report['reached_sparsity'])} reached"),
        ("patterns", patterns or "no linear"),
        ("weights", f"{size(bits['pruned'] / 8)} in INT8 with indices; dense {size(bits['dense'] / 8)}"),
    ]
    if report["permuted"]:
        rows.append(("order", f"{report['permuted']} classes of channels permuted"))
    if report["budget"]:
        rows.append(("budget", _budget_text(report["budget"])))
    rows.append((f"a window on {report['cost']['target']}", _cost_text(report["cost"])))
    selection = report["selection"]
    if selection.get("divergence") is not None:
        on = counted(selection["cost_windows"], "calibration window")
        rows.append(("divergence", f"{selection['divergence']:.4g} ({selection['metric']}) on {on}"))
    took = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["stages_s"].items() if seconds >= 0.05)
    rows.append(("took", f"{sum(report['stages_s'].values()):.1f} s" + (f" ({took})" if took else "")))
    return rows


def _budget_text(spent: dict[str, Any]) -> str:
    numbers = [f"{name} {count(spent[name])}" for name in ("limit", "estimate", "measured", "dense")]
    return f"{spent['quantity']} ({spent['unit']}): {', '.join(numbers)}"


def _cost_text(cost: dict[str, Any]) -> str:
    if "reason" in cost:
        return f"cannot be timed: {cost['reason']}"
    before, after = cost["dense"], cost["pruned"]
    return (
        f"{count(after['cycles'])} cycles, {duration(after['time_s'])}, {energy(after['energy_pj'])}; "
        f"dense {count(before['cycles'])}, {energy(before['energy_pj'])}"
    )


def _linears(rows: list[dict[str, Any]]) -> Table:
    columns = ("linear", ">K x N", "N:M", ">zeros", ">outliers", ">clustering", ">divergence")
    cells = [
        (
            row["name"],
            f"{row['k']} x {row['n']}",
            row["nm"] if row["open"] else f"{row['nm']} (left alone)",
            percent(row["sparsity"]),
            "" if row["outlier_density"] is None else f"{row['outlier_density']:.3f} %",
            "" if row["outlier_distribution"] is None else f"{row['outlier_distribution']:.2f}",
            "" if row["divergence"] is None else f"{row['divergence']:.2e}",
        )
        for row in rows
    ]
    shown = [place for place in range(len(columns)) if any(row[place] for row in cells)]
    return Table("Linears", [columns[place] for place in shown], [[row[place] for place in shown] for row in cells])

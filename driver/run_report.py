"""The report of a run: one value with all numbers, for ``--json``, and the tables that show it to people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flexc.emulation import Cost
from flexc.expert_words import dropped_text
from flexc.tables import Facts, Part, Table, count, counted, duration, energy, percent

SCHEMA_VERSION = 1
PRECISION_NOTE = "absolute joules carry about a factor 2; ratios on one machine about 20 %"


def run_report(
    cost: Cost,
    windows: int,
    outputs: list[dict[str, Any]],
    seconds: dict[str, float],
    check: dict[str, Any] | None,
    experts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what there is to know about a run; cycles and energy are those of one window."""
    program = cost.program
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": program.meta.get("source", ""),
        "target": program.machine.name,
        "resident": program.machine.array.resident,
        "host_segments": len(program.segments),
        "windows": windows,
        "cycles": cost.cycles,
        "time_s": cost.time_s,
        "energy_pj": cost.energy.total_pj,
        "energy_by_event": dict(cost.energy.by_event),
        "energy_note": PRECISION_NOTE,
        "macs": cost.macs,
        "utilisation": cost.utilisation,
        "busy": cost.busy,
        "counters": dict(cost.timing.counters),
        "instructions_issued": cost.timing.instructions,
        "layers": [asdict(layer) for layer in cost.layers],
        "outputs": outputs,
        "experts": experts,
        "stages_s": {name: round(value, 4) for name, value in seconds.items()},
    }
    return report if check is None else report | {"check": check}


def run_parts(report: dict[str, Any], *, layers: bool = False) -> list[Part]:
    """Return a report as facts and tables."""
    parts: list[Part] = [Facts(_facts(report)), _energy(report)]
    if layers:
        parts.append(_layers(report))
    return parts


def machine_words(report: dict[str, Any]) -> str:
    """Return the machine that figures are of, labelled where it is an idealisation."""
    ideal = " (idealised: every weight is in its cell from the start)" if report["resident"] else ""
    return f"{report['target']}{ideal}"


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    busy = ", ".join(f"{name} {percent(share)}" for name, share in report["busy"].items() if share)
    rows = [
        ("program", f"{report['model'] or '?'} for {machine_words(report)}"),
        ("windows", f"{count(report['windows'])}; all figures are of one window"),
        ("cycles", f"{count(report['cycles'])} = {duration(report['time_s'])}"),
        ("energy", f"{energy(report['energy_pj'])} ({report['energy_note']})"),
        ("array", f"{count(report['macs'])} products, {percent(report['utilisation'])} of what all macros could make"),
        ("busy", busy or "nothing"),
    ]
    for each in report["outputs"]:
        spread = f"{each['min']:.4g} .. {each['max']:.4g}, mean {each['mean']:.4g}"
        rows.append(("output", f"{each['name']} {each['dtype']}{each['shape']}: {spread}"))
    if report["experts"]:
        rows.append(("experts", dropped_text(report["experts"])))
    if report["host_segments"]:
        many = counted(report["host_segments"], "segment")
        rows.append(("host", f"{many}; their time is not in the figures, only transfers"))
    if report["stages_s"]:
        rows.append(("took", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report["stages_s"].items())))
    return rows


def _energy(report: dict[str, Any]) -> Table:
    total = report["energy_pj"]
    events = sorted(report["energy_by_event"].items(), key=lambda each: -each[1])
    rows = [
        (name, count(report["counters"][name]) if name in report["counters"] else "", energy(pj), percent(pj / total))
        for name, pj in events
        if pj
    ]
    return Table("Energy by event", ("event", ">count", ">energy", ">share"), rows)


def _layers(report: dict[str, Any]) -> Table:
    rows = [
        (
            row["name"],
            row["op"] if len(row["op"]) <= 40 else row["op"][:37] + "...",
            row["engine"],
            row["nm"],
            count(row["cycles"]),
            energy(row["energy_pj"]),
            count(row["macs"]) if row["macs"] else "",
        )
        for row in report["layers"]
    ]
    return Table("Layers", ("layer", "op", "engine", "N:M", ">cycles", ">energy", ">products"), rows)

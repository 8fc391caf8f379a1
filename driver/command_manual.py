"""``flexc targets`` and ``flexc isa``: what machines and which instructions there are."""

from __future__ import annotations

import json
import tomllib
from argparse import Namespace
from typing import Any

from flexc.isa.machine import Machine, load_machine, preset_names
from flexc.isa.manual import describe, overview
from flexc.tables import Table, count, show, size


def targets(arguments: Namespace) -> int:
    """List the presets, or print all of one machine as the file that describes it."""
    if arguments.name is not None:
        text = load_machine(arguments.name).to_toml()
        print(json.dumps(tomllib.loads(text), indent=1) if arguments.json else text.rstrip("\n"))
        return 0
    machines = [load_machine(name) for name in preset_names()]
    if arguments.json:
        print(json.dumps({"schema_version": 1, "targets": [_numbers(machine) for machine in machines]}, indent=1))
    else:
        columns = ("name", ">macros", ">their area", ">peak", ">clock", ">buffer", ">DRAM", "block sizes", "what it is")
        show([Table("Machines (flexc targets NAME prints all of one)", columns, [_row(each) for each in machines])])
    return 0


def _numbers(machine: Machine) -> dict[str, Any]:
    return {
        "name": machine.name,
        "description": machine.description,
        "macros": machine.array.macros,
        "macros_mm2": machine.array.macros * machine.macro_mm2,
        "peak_macs_per_cycle": machine.peak_macs_per_cycle,
        "frequency_hz": machine.clock.frequency_hz,
        "buffer_bytes": machine.buffer.bytes,
        "dram_bytes_per_s": machine.dram.bandwidth_bytes_per_s,
        "block_sizes": list(machine.array.block_sizes),
        "resident": machine.array.resident,
    }


def _row(machine: Machine) -> tuple[str, ...]:
    return (
        machine.name,
        str(machine.array.macros),
        f"{machine.array.macros * machine.macro_mm2:.3g} mm2",
        f"{count(machine.peak_macs_per_cycle)} MAC/cycle",
        f"{machine.clock.frequency_hz / 1e9:g} GHz",
        f"{machine.buffer.bytes / 1024:g} KiB",
        f"{size(machine.dram.bandwidth_bytes_per_s)}/s",
        " ".join(map(str, machine.array.block_sizes)),
        machine.description,
    )


def isa(arguments: Namespace) -> int:
    """List the instructions, or explain one."""
    print(overview() if arguments.mnemonic is None else describe(arguments.mnemonic))
    return 0

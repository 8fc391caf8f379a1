"""The comparison table of pruning methods: perplexity, stored size, cycles and time, over several calibration draws.

    python benchmarks/flow_table.py --model llama=llama/model.onnx --model mamba=mamba/model.onnx \
        --calib calibration.npy --data validation.npy --windows 200 --draws 3 --store results.jsonl

Each draw calibrates on other windows of the calibration file. Every run prunes as ``flexc prune`` does, saves the file
and measures that file in onnxruntime. What has been measured is kept in the store, one JSON line a run, so that an
interrupted table goes on where it stopped and new methods are added to an old one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from flexc.budget_words import parse_budget
from flexc.budgets import stored_bits
from flexc.compiler import machine_of
from flexc.evaluate import Shapes, contenders_of, evaluate
from flexc.inputs import windows_of
from flexc.isa.machine import Machine
from flexc.passes.calibrate import input_specs
from flexc.passes.feeds import Feeds, windows
from flexc.passes.pattern import DENSE
from flexc.passes.prune import open_linears
from flexc.prune_options import PruneOptions, parse_m_set
from flexc.prune_report import cost_of
from flexc.pruned_file import Opened, open_model, save_pruned
from flexc.pruning import prune_model
from flexc.scores import task_of
from flexc.stages import Stages

METHODS = "magnitude,wanda,owl,faithful,flow,flow:effort=full,sparsegpt,sparsegpt:update=cg,flow:update=cg"
"""Unless told otherwise; ``method:option=value`` sets further options of the method.

With ``flow:budget=cycles=x0.95`` the budget takes the place of the sparsities.
"""

_READ: dict[str, Callable[[str], Any]] = {"hyper_m": float, "budget": parse_budget}
"""What makes a value of an option's word."""

TITLES = (
    "model", "method", "M", "asked", "reached", "perplexity", "draws", "windows", "weights", "cycles", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One cell before it is measured: what is pruned, how, on which calibration windows, measured on how many."""

    model: str
    method: str
    sparsity: float
    draw: int
    samples: int
    windows: int
    m_set: str


def main() -> int:
    """Measure what is missing, print the table."""
    arguments = _arguments()
    store = _Store(Path(arguments.store))
    machine = machine_of(arguments.target)
    for given in arguments.model:
        name, _, path = given.partition("=")
        bench: _Bench | None = None
        for run in _runs(name, arguments):
            if run not in store:
                bench = bench or _Bench(path, arguments, machine)
                sys.stderr.write(f"{run}\n")
                store.add(run, bench.measure(run))
    print(table(store.rows([given.partition("=")[0] for given in arguments.model]), machine.name))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare pruning methods.")
    parser.add_argument("--model", metavar="NAME=FILE.onnx", action="append", required=True)
    parser.add_argument("--calib", metavar="FILE.npy", required=True, help="calibration tokens")
    parser.add_argument("--data", metavar="FILE.npy", required=True, help="held-out tokens")
    parser.add_argument("--methods", default=METHODS, help=f"default: {METHODS}")
    parser.add_argument("--sparsities", default="0.5,0.6,0.7")
    parser.add_argument("--m-set", default="4,8")
    parser.add_argument("--draws", type=int, default=3, help="calibration draws")
    parser.add_argument("--samples", type=int, default=128, help="calibration windows of a draw")
    parser.add_argument("--windows", type=int, default=200, help="held-out windows measured on")
    parser.add_argument("--target", default="edge")
    parser.add_argument("--store", metavar="FILE.jsonl", required=True, help="what has been measured")
    return parser.parse_args()


def _runs(model: str, arguments: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs of a model: dense once, then every method at every sparsity on every draw."""
    common = {"samples": arguments.samples, "windows": arguments.windows, "m_set": arguments.m_set}
    yield Run(model, "none", 0.0, 0, **common)
    for draw in range(arguments.draws):
        for method in arguments.methods.split(","):
            sparsities = "0" if ":budget=" in method else arguments.sparsities
            for sparsity in map(float, sparsities.split(",")):
                if draw == 0 or not method.startswith("magnitude"):  # which looks at no data
                    yield Run(model, method, sparsity, draw, **common)


class _Store:
    """Results as JSON lines, by run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[Run, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._found[Run(**entry["run"])] = entry["result"]

    def __contains__(self, run: Run) -> bool:
        return run in self._found

    def add(self, run: Run, result: dict[str, Any]) -> None:
        """Keep a result, at once."""
        self._found[run] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": asdict(run), "result": result}) + "\n")

    def rows(self, models: Sequence[str]) -> list[tuple[Run, list[dict[str, Any]]]]:
        """Return the results of every cell, draws together, in the order they were first measured."""
        cells: dict[Run, list[dict[str, Any]]] = {}
        for run, result in self._found.items():
            if run.model in models:
                cells.setdefault(replace(run, draw=0), []).append(result)
        return list(cells.items())


class _Bench:
    """One model, opened once, pruned again and again."""

    def __init__(self, path: str, arguments: argparse.Namespace, machine: Machine) -> None:
        self.path, self.machine = path, machine
        opened = open_model(path)
        self.calibration: Feeds = windows(input_specs(opened.dense), Path(arguments.calib))
        specs = input_specs(opened.dense)
        self.held_out = windows_of(specs, [arguments.data], arguments.windows, flag="--data")
        outputs = {str(value.name): tuple(value.shape.numpy()) for value in opened.dense.graph.outputs if value.shape}
        self.task = task_of("perplexity", specs, outputs, None)

    def measure(self, run: Run) -> dict[str, Any]:
        """Prune, save, and measure the file."""
        opened, start = open_model(self.path), time.perf_counter()
        model = opened.dense.clone()
        pruned = prune_model(model, self._options(run), self.machine, Stages())
        seconds = time.perf_counter() - start
        linears = {linear.name: linear for linear in open_linears(opened.dense)}
        patterns = {row.name: row.nm for row in pruned.report.linears}
        cost = cost_of(opened.dense, pruned, self.machine)
        return {
            "perplexity": self._perplexity(opened, model),
            "reached": pruned.report.reached_of_open if run.method != "none" else 0.0,
            "bits": sum(stored_bits(linear, patterns[name]) for name, linear in linears.items()),
            "dense_bits": sum(stored_bits(linear, DENSE) for linear in linears.values()),
            "cycles": cost["pruned"]["cycles"] if "pruned" in cost else None,
            "seconds": seconds,
            "patterns": {name: str(nm) for name, nm in patterns.items()},
        }

    def _options(self, run: Run) -> PruneOptions:
        method, *words = run.method.split(":")
        first = run.draw * run.samples
        further: dict[str, Any] = {}
        for word in words:
            name, _, value = word.partition("=")
            further[name] = _READ.get(name, str)(value)
        return PruneOptions(
            prune=method,
            sparsity=run.sparsity or None,
            calib=self.calibration.between(first, first + run.samples),
            samples=run.samples,
            m_set=parse_m_set(run.m_set),
            **further,
        )

    def _perplexity(self, opened: Opened, model: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pruned.onnx"
            save_pruned(opened, model, file)
            rows = contenders_of(str(file), ["fp32"], Shapes({}, {}), self.machine)
            (score,) = evaluate(rows, self.task, self.held_out, lambda _what, _done, _steps: None)
        perplexity = score.numbers()["perplexity"]
        return math.inf if perplexity is None else perplexity


def table(rows: Sequence[tuple[Run, list[dict[str, Any]]]], target: str) -> str:
    """Return the table in Markdown; perplexity is the mean over draws, with half their range."""
    lines = [f"Cycles of a window on `{target}`.", "", f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    for run, results in rows:
        values = [result["perplexity"] for result in results]
        spread = f" ± {(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else ""
        cycles = [result["cycles"] for result in results if result["cycles"]]
        cells = (
            run.model,
            run.method.replace(":", " ").replace("=", " "),
            run.m_set,
            f"{100 * run.sparsity:.0f} %" if run.sparsity else "",
            f"{100 * fmean(result['reached'] for result in results):.1f} %",
            f"{fmean(values):.2f}{spread}",
            str(len(values)),
            str(run.windows),
            f"{fmean(result['bits'] for result in results) / 8e6:.2f} MB",
            f"{fmean(cycles) / 1e6:.2f} M" if cycles else "",
            f"{fmean(result['seconds'] for result in results):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

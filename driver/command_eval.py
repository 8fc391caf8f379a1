"""``flexc eval``."""

from __future__ import annotations

import json
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flexc.command_compile import dims_of, shape_of
from flexc.compiler import machine_of
from flexc.evaluate import FORMS, Contender, Shapes, contenders_of, evaluate, file_session
from flexc.frontend.load import load
from flexc.inputs import Windows, windows_of
from flexc.isa.errors import FlexcError, UsageError
from flexc.next_token import knows_later_tokens
from flexc.passes.calibrate import input_specs
from flexc.progress import Bar
from flexc.scores import Score, Task, task_of
from flexc.stages import Stages
from flexc.tables import Facts, Part, Table, counted, percent, show

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.isa.machine import Machine
    from flexc.passes.feeds import InputSpec

SCHEMA_VERSION = 1
_TITLES = {"perplexity": "perplexity", "top1": "top-1 accuracy", "output": "closeness of outputs"}


def run(arguments: Namespace) -> int:
    """Evaluate a model in several forms side by side, and print the table."""
    stages = Stages()
    with stages.stage("load"):
        shapes = Shapes(dict(shape_of(text) for text in arguments.shape), dims_of(arguments.dim))
        machine = machine_of(arguments.target)
        model = load(arguments.model, shapes.shapes, shapes.dims)
        feeds = windows_of(input_specs(model), arguments.data, arguments.windows, flag="--data")
        task = _task(arguments, model, feeds)
        contenders = _contenders(arguments, shapes, machine)
    with stages.stage("run"):
        scores = evaluate(contenders, task, feeds, Bar(stages))
    report = _report(arguments, task, feeds, contenders, scores, stages)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        show(_parts(report))
    return 0


def _task(arguments: Namespace, model: ir.Model, feeds: Windows) -> Task:
    opened = cache(file_session)

    def leak(spec: InputSpec, output: str) -> float:
        return knows_later_tokens(opened(arguments.model), feeds[0], spec, output)

    return task_of(arguments.metric, input_specs(model), _float_outputs(model), _labels(arguments.labels), leak)


def _float_outputs(model: ir.Model) -> dict[str, tuple[int, ...]]:
    floats = [value for value in model.graph.outputs if value.dtype is not None and value.dtype.is_floating_point()]
    return {str(value.name): tuple(value.shape.numpy()) for value in floats if value.shape is not None}


def _labels(path: str | None) -> npt.NDArray[Any] | None:
    if path is None:
        return None
    try:
        labels: npt.NDArray[Any] = np.load(Path(path), mmap_mode="r", allow_pickle=False)[...]
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise FlexcError(f"cannot be read as .npy: {error}", where=path) from None
    if labels.dtype.kind not in "iu":
        raise FlexcError("holds no integers", where=path, remedy="save the class of every row with numpy.save")
    return labels


def _contenders(arguments: Namespace, shapes: Shapes, machine: Machine) -> list[Contender]:
    """Return the fp32 model, then every file in the forms asked for; the model alone also in those besides fp32."""
    forms = _forms(arguments.on)
    rows = contenders_of(arguments.model, ["fp32"], shapes, machine)
    besides = [form for form in forms if form != "fp32"]
    if not arguments.pruned or arguments.on:
        rows += contenders_of(arguments.model, besides, shapes, machine)
    for path in arguments.pruned:
        program = path.endswith(".fxc")
        wanted = forms if arguments.on else (FORMS if program else FORMS[:2])
        rows += contenders_of(path, list(wanted), shapes, machine)
    return rows


def _forms(text: str | None) -> list[str]:
    if text is None:
        return list(FORMS[:2])
    forms = [part.strip() for part in text.split(",")]
    wrong = [form for form in forms if form not in FORMS]
    if wrong:
        raise UsageError(f"--on {text}: '{wrong[0]}' is no form", remedy=f"choose among {', '.join(FORMS)}")
    return forms


def _report(
    arguments: Namespace,
    task: Task,
    feeds: Windows,
    contenders: list[Contender],
    scores: list[Score],
    stages: Stages,
) -> dict[str, Any]:
    rows = [
        {"model": contender.name, "form": contender.form} | score.numbers()
        for contender, score in zip(contenders, scores, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": arguments.model,
        "data": list(arguments.data),
        "metric": task.kind,
        "windows": len(feeds),
        "rows": rows,
        "stages_s": {name: round(seconds, 4) for name, seconds in stages.seconds.items()},
    }


def _perplexity(value: float) -> str:
    return f"{value:.3f}" if value < 1e6 else f"{value:.3g}"


def _parts(report: dict[str, Any]) -> list[Part]:
    facts = [
        ("data", ", ".join(report["data"])),
        ("measured", f"{_TITLES[report['metric']]} on {counted(report['windows'], 'window')}"),
        ("took", f"{sum(report['stages_s'].values()):.1f} s"),
    ]
    columns = {
        "perplexity": (">perplexity", _perplexity),
        "top1": (">top-1", percent),
        "relative_error": (">error to fp32", "{:.4f}".format),
        "cosine": (">cosine", "{:.5f}".format),
        "top1_agreement": (">same top-1", percent),
    }
    shown = {key: how for key, how in columns.items() if any(row[key] is not None for row in report["rows"])}
    cells = [
        (row["model"], row["form"], *("" if row[key] is None else how(row[key]) for key, (_, how) in shown.items()))
        for row in report["rows"]
    ]
    return [Facts(facts), Table("Models", ("model", "runs as", *(title for title, _ in shown.values())), cells)]

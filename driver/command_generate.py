"""``flexc generate``."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flexc.command_compile import placement_of
from flexc.compiler import Options
from flexc.files import check_output
from flexc.isa.errors import FlexcError, UsageError
from flexc.prune_options import prune_words
from flexc.run_report import PRECISION_NOTE
from flexc.session import Session
from flexc.step_costs import phase_table, phases
from flexc.tables import Facts, show

Tokens = npt.NDArray[np.int64]


def run(arguments: Namespace) -> int:
    """Let a model write tokens on the emulated machine, and say what prefill and decode cost."""
    if arguments.new < 1:
        raise UsageError(f"--new {arguments.new}: at least one token")
    if arguments.output:
        check_output(arguments.output, arguments.model)
    prompt = prompt_of(arguments.prompt)
    options = Options(**prune_words(arguments), **placement_of(arguments), keep_reference=False)
    session = Session.of(arguments.model, options)
    made = list(session.generate(prompt, arguments.new, stop=arguments.stop))
    if arguments.output:
        _save(arguments.output, np.concatenate([prompt, np.array(made, np.int64)]))
    report = generate_report(session, arguments.model, prompt, made)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return 0
    room = "of fixed size" if report["capacity"] is None else f"of {report['capacity']} positions"
    facts = Facts(
        [
            ("model", f"{report['model']} for {report['target']}"),
            ("cache", f"{room}, in the machine's DRAM from step to step"),
            ("prompt", " ".join(map(str, prompt.tolist()))),
            ("tokens", " ".join(map(str, made))),
            ("energy", PRECISION_NOTE),
        ]
    )
    dropped = sum(phase["dropped_pairs"] for phase in report["phases"].values())
    beyond = [f"{dropped} row-expert pairs were beyond an expert's capacity and added nothing"] if dropped else []
    show([facts, phase_table(report["phases"]), *beyond])
    return 0


def generate_report(session: Session, model: str, prompt: Tokens, made: list[int]) -> dict[str, Any]:
    """Return what was made and what it cost as one value."""
    return {
        "schema_version": 1,
        "model": model,
        "target": session.target,
        "capacity": session.capacity,
        "prompt": prompt.tolist(),
        "tokens": made,
        "phases": phases(session.steps),
        "energy_note": PRECISION_NOTE,
    }


def prompt_of(text: str) -> Tokens:
    """Return the tokens of ``1,2,3`` or of a .npy file.

    Raises:
        UsageError: neither.
        FlexcError: a file that cannot be read, or holds no tokens.
    """
    parts = text.replace(",", " ").split()
    if parts and all(part.isdecimal() for part in parts):
        return np.array([int(part) for part in parts], np.int64)
    if not text.endswith(".npy"):
        raise UsageError("no tokens", where=f"--prompt {text}", remedy="write them as 1,2,3, or give a .npy file")
    try:
        array: npt.NDArray[np.generic] = np.load(text, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FlexcError("cannot be read as a .npy file of tokens", where=text) from error
    if array.dtype.kind not in "iu" or not array.size or array.size != max(array.shape, default=0):
        raise FlexcError(f"{array.dtype}{list(array.shape)} is no sequence of tokens", where=text)
    return array.reshape(-1).astype(np.int64)


def _save(path: str, tokens: Tokens) -> None:
    target = Path(path)
    draft = target.with_name(f".{target.name}.tmp")
    try:
        with draft.open("wb") as file:
            np.save(file, tokens)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise FlexcError(f"cannot be written: {error.strerror or error}", where=path) from None

"""``flexc run``."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from flexc.emulation import Cost, Sink, run_windows
from flexc.expert_words import DroppedPairs, routing_of
from flexc.files import check_output
from flexc.inputs import Windows, given_windows
from flexc.isa import verifier
from flexc.isa.errors import FlexcError, UsageError
from flexc.isa.object_file import declared, load
from flexc.isa.program import Program
from flexc.outputs import Archive, Summary
from flexc.run_report import run_parts, run_report
from flexc.stages import Stages
from flexc.stepping import step_through, trace, wants_debugger
from flexc.tables import show, size

if TYPE_CHECKING:
    from flexc.verdict import Verdict


def run(arguments: Namespace) -> int:
    """Run a program, check it if asked, print the report; or step through it. Exit code 1 when the check fails."""
    stages = Stages()
    _refuse_unheeded(arguments)
    with stages.stage("load"):
        program = load_verified(arguments.program)
        if arguments.trace_instructions:
            return trace(program, arguments.limit)
        stepping = wants_debugger(arguments)
        feeds = given_windows(program, arguments.input, arguments.random_inputs, arguments.windows)
    if stepping:
        return step_through(arguments, program, feeds[0])
    with stages.stage("time"):
        cost = Cost.of(program)
    summary = Summary(program.outputs)
    dropped = DroppedPairs(routing_of(program))
    verdict = _carry_out(arguments, program, feeds, [summary.sink, dropped.sink], stages)
    check = verdict.to_json() if verdict else None
    report = run_report(cost, len(feeds), summary.rows(), stages.seconds, check, dropped.report())
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        parts = run_parts(report, layers=arguments.per_layer)
        show([*parts, *verdict.parts()] if verdict else parts)
    return 0 if verdict is None or verdict.passed else 1


def _refuse_unheeded(arguments: Namespace) -> None:
    """Refuse options that say something about what was not asked for, and a file that could not be written later."""
    for name, given, of in (
        ("--check-windows", arguments.check_windows, arguments.check is not None),
        ("--reference-windows", arguments.reference_windows, arguments.check is not None),
        ("--limit", arguments.limit, arguments.trace_instructions),
    ):
        if given is not None and not of:
            belongs = "--trace-instructions" if name == "--limit" else "--check"
            raise UsageError(f"{name} says something about {belongs} only", remedy=f"add {belongs}")
    if arguments.output:
        check_output(arguments.output, arguments.program)


def load_verified(path: str) -> Program:
    """Read a program and refuse it where the verifier does.

    Raises:
        FlexcError: the file cannot be read, or the program is not safe to run: all reasons.
    """
    _refuse_what_cannot_fit(path)
    program = load(path)
    problems = verifier.verify(program)
    if problems:
        more = f" (and {len(problems) - 1} more: flexc verify {path})" if len(problems) > 1 else ""
        raise FlexcError(f"is not safe to run: {problems[0].message}{more}", where=f"{path}: {problems[0].where}")
    return program


def _refuse_what_cannot_fit(path: str) -> None:
    """Refuse a program that declares more memory than this computer has; where that is not known, none."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return
    there, needed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), declared(path).memory
    if needed > there:
        raise FlexcError(f"declares {size(needed)} of memory; this computer has {size(there)}", where=path)


def _carry_out(
    arguments: Namespace, program: Program, feeds: Windows, given: Sequence[Sink], stages: Stages
) -> Verdict | None:
    """Run all windows; outputs go to the sinks given, to the archive and to the check, whichever are wanted."""
    with ExitStack() as stack:
        sinks = list(given)
        archive = None
        if arguments.output:
            archive = Archive(arguments.output, program.outputs, len(feeds))
            stack.callback(archive.discard)
            sinks.append(archive.sink)
        if arguments.check is None:
            with stages.stage("run"):
                run_windows(program, feeds, sinks, progress=stages.say)
            verdict = None
        else:
            verdict = _checked(arguments, program, feeds, sinks, stages)
        if archive is not None:
            with stages.stage("save"):
                archive.close()
    return verdict


def _checked(arguments: Namespace, program: Program, feeds: Windows, sinks: list[Sink], stages: Stages) -> Verdict:
    from flexc.checker import CheckOptions, check_program

    counts = {"windows": arguments.check_windows, "reference_windows": arguments.reference_windows}
    given = {name: count for name, count in counts.items() if count is not None}
    options = CheckOptions(model=arguments.check or None, **given)
    return check_program(program, feeds, options, sinks=sinks, stages=stages)

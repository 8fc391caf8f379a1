"""``flexc run --step``, ``--until``, ``--break`` and ``--trace-instructions``."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import suppress
from importlib import import_module

from flexc.emulation import Arrays
from flexc.isa.errors import UsageError
from flexc.isa.program import Program


def wants_debugger(arguments: Namespace) -> bool:
    """Whether the program is to be stepped through.

    Raises:
        UsageError: together with something that needs a run to the end.
    """
    if not (arguments.step or arguments.until or arguments.breaks):
        return False
    for name, given in (("--check", arguments.check), ("--output", arguments.output), ("--json", arguments.json)):
        if given not in (None, False):
            raise UsageError(f"{name} does not go with --step, --until and --break")
    return True


def step_through(arguments: Namespace, program: Program, window: Arrays) -> int:
    """Step through a program on one window; commands come from stdin."""
    from flexc.emulator.debugger import Debugger, lines_of

    ask = lines_of(sys.stdin, sys.stdout)
    if sys.stdin.isatty():
        ask = input
        with suppress(ImportError):  # it gives input() editing and a history, where Python has it
            import_module("readline")
    feeds = {name: values[None] for name, values in window.items()}
    places = {"breaks": arguments.breaks, "until": arguments.until, "step": arguments.step}
    Debugger(program, feeds, sys.stdout, ask, **places).run()
    return 0


def trace(program: Program, limit: int | None) -> int:
    """Print the instructions executed, at most ``limit``.

    Raises:
        UsageError: the limit is negative.
    """
    from flexc.emulator.trace import trace_instructions

    if limit is not None and limit < 0:
        raise UsageError(f"--limit {limit}: a trace has no fewer than 0 lines")
    for line in trace_instructions(program, limit):
        print(line)
    return 0

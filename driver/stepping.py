"""``flexc run --step``, ``--until``, ``--break`` and ``--trace-instructions``."""

from __future__ import annotations

import sys
from argparse import Namespace

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

    if sys.stdin.isatty():
        import readline  # noqa: F401 - gives the prompt a history

    ask = input if sys.stdin.isatty() else lines_of(sys.stdin, sys.stdout)
    feeds = {name: values[None] for name, values in window.items()}
    until, breaks = (None, []) if arguments.step else (arguments.until, arguments.breaks)
    Debugger(program, feeds, sys.stdout, ask, breaks=breaks, until=until).run()
    return 0


def trace(program: Program, limit: int) -> int:
    """Print the instructions executed, at most ``limit`` where it is not 0."""
    from flexc.emulator.trace import trace_instructions

    for line in trace_instructions(program, limit or None):
        print(line)
    return 0

"""The ``flexc`` command: what can be typed; everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from flexc.arguments import parser
from flexc.isa.errors import FlexcError, ProblemList, UsageError

#: Command -> (module, function) that carries it out, given the parsed arguments; it returns the exit code.
COMMANDS = {
    "compile": ("flexc.command_compile", "run"),
    "generate": ("flexc.command_generate", "run"),
    "check": ("flexc.command_check", "run"),
    "prune": ("flexc.command_prune", "run"),
    "eval": ("flexc.command_eval", "run"),
    "run": ("flexc.command_run", "run"),
    "disasm": ("flexc.command_assembly", "disasm"),
    "asm": ("flexc.command_assembly", "asm"),
    "verify": ("flexc.command_program", "verify"),
    "inspect": ("flexc.command_program", "inspect"),
    "targets": ("flexc.command_manual", "targets"),
    "isa": ("flexc.command_manual", "isa"),
}

OK, REFUSED, USAGE, INTERNAL, INTERRUPTED = 0, 1, 2, 70, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code: 0 done, 1 refused, 2 usage, 70 a bug, 130 interrupted."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except FlexcError as error:
        return _refuse(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more while it exits
        return OK
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - the one place that turns what nobody foresaw into a message and a code
        return _bug()


def _run(argv: Sequence[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.command is None:
        raise UsageError("no command", remedy=f"commands: {', '.join(COMMANDS)}; see flexc --help")
    # The emulator's products are small: BLAS threads would only wait for one another. Before numpy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    module, function = COMMANDS[arguments.command]
    code: int = getattr(import_module(module), function)(arguments)
    return code


def _refuse(error: FlexcError) -> int:
    """Print every problem, with ``error:`` before it unless it says so itself behind its place."""
    for problem in error.problems if isinstance(error, ProblemList) else (error,):
        text = str(problem)
        sys.stderr.write(f"{text}\n" if problem.message.startswith("error: ") else f"error: {text}\n")
    return error.exit_code


def _bug() -> int:
    import traceback

    traceback.print_exc()
    sys.stderr.write("error: this is a bug in flexc; please report it with the lines above\n")
    return INTERNAL

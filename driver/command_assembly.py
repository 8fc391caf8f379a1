"""``flexc disasm`` and ``flexc asm``."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from flexc.files import check_output, write_lines
from flexc.isa.assembly.assembler import assemble, assemble_file
from flexc.isa.assembly.disassembler import Options, disassemble
from flexc.isa.errors import FlexcError, UsageError
from flexc.isa.object_file import load, save


def disasm(arguments: Namespace) -> int:
    """Print a program as assembly, or write it to a file; data that is not small stays in the program file."""
    file, output = Path(arguments.program), arguments.output
    to_stdout = output in (None, "-")
    if not to_stdout:
        check_output(output, file)
    options = Options(
        source=arguments.source,
        bytes=not arguments.no_bytes,
        range=_range(arguments.range),
        node=arguments.node,
        color=to_stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        embed=arguments.embed,
        file=file,
        folder=Path() if to_stdout else Path(output).parent,
    )
    write_lines(disassemble(load(file), options), output)
    return 0


def asm(arguments: Namespace) -> int:
    """Assemble a listing and write the program; ``-`` reads it from stdin."""
    check_output(arguments.output, arguments.listing)
    program = assemble(_stdin(), "<stdin>") if arguments.listing == "-" else assemble_file(arguments.listing)
    save(program, arguments.output)
    return 0


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise FlexcError("not UTF-8 text", where="<stdin>") from None


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        start, end = int(first or "0", 0), int(last, 0) if last else 1 << 62
    except ValueError:
        colon, start, end = "", 0, 0
    if not colon or start >= end:
        raise UsageError("not a range of byte offsets", where=f"--range {text}", remedy="write it as 0x100:0x200")
    return start, end

"""Writing text files: whole or not at all; ``-`` is stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flexc.isa.errors import FlexcError, UsageError


def check_output(path: str | Path, source: str | Path | None) -> None:
    """Refuse, before the work, a file that could not be written after it, or that would replace its source, if any.

    Raises:
        UsageError: it is the source itself.
        FlexcError: there is no such folder, or it is one.
    """
    target = Path(path)
    if target.is_dir():
        raise FlexcError("is a folder", where=str(path), remedy="name a file in it")
    if not target.parent.is_dir():
        remedy = "make the folder first"
        raise FlexcError("cannot be written: No such file or directory", where=str(path), remedy=remedy)
    if source is not None and target.exists() and Path(source).exists() and target.samefile(source):
        raise UsageError("would replace what it is made of", where=str(path), remedy="give -o another name")


def write_lines(lines: Iterable[str], path: str | None) -> None:
    """Write lines to a file, which appears complete or not at all, or to stdout where `path` is None or ``-``.

    Raises:
        FlexcError: the file cannot be written.
    """
    if path is None or path == "-":
        for line in lines:
            sys.stdout.write(line + "\n")
        return
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        draft.replace(target)
    except OSError as error:
        raise FlexcError(f"cannot be written: {error.strerror or error}", where=str(target)) from None
    finally:
        with suppress(OSError):
            draft.unlink()

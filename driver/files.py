"""Writing text files: whole or not at all; ``-`` is stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flexc.isa.errors import FlexcError


def check_folder(path: Path) -> None:
    """Refuse a file that could not be written later for want of a folder: before the work, not after it.

    Raises:
        FlexcError: there is no such folder.
    """
    if not path.parent.is_dir():
        remedy = "make the folder first"
        raise FlexcError("cannot be written: No such file or directory", where=str(path), remedy=remedy)


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

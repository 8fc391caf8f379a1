"""Stages of a command: how long each took, and a word of progress on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Times named stages; on a terminal the present one stands on the last line of stderr."""

    def __init__(self, *, progress: bool | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._shows = sys.stderr.isatty() if progress is None else progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside for a stage."""
        start = time.perf_counter()
        self.say(f"{name} ...")
        try:
            yield
        finally:
            self.say("")
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def say(self, text: str) -> None:
        """Replace the line of progress."""
        if self._shows:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

"""How many processors this process may use."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """Return the processors this process is allowed to run on, where the system tells; else all there are.

    onnxruntime's own default counts all of them: under ``taskset``, or a scheduler that hands out single processors,
    its threads then spin on one another's.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

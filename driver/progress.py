"""A bar with the time left, on the line of progress."""

from __future__ import annotations

import time

from flexc.stages import Stages

_WIDTH = 24


class Bar:
    """Shows how far something is: call it with what is done, steps done and steps in all."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._what = ""
        self._start = 0.0
        self._from = 0

    def __call__(self, what: str, done: int, steps: int) -> None:
        """Show the bar; the clock starts again with another `what`."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._start, self._from = what, now, done
        filled = _WIDTH * done // max(1, steps)
        text = f"{what} [{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{steps}"
        if done > self._from:
            text += f", {_clock((now - self._start) / (done - self._from) * (steps - done))} left"
        self._stages.say(text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"

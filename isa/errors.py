"""The one exception hierarchy: what every room raises when the user's input is at fault."""

from __future__ import annotations

from collections.abc import Sequence


class FlexcError(Exception):
    """A problem in the user's input: where it is, which rule it breaks, and what to do.

    Printed as one line, ``where: message``, followed by ``help: remedy`` when there is one.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\nhelp: {self.remedy}" if self.remedy else head


class UsageError(FlexcError):
    """The command line asks for something that no input could satisfy."""

    exit_code = 2


class ProblemList(FlexcError):
    """Several problems found in one go; each is printed on its own line."""

    def __init__(self, problems: Sequence[FlexcError]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = tuple(problems)
        self.exit_code = min((problem.exit_code for problem in problems), default=1)  # usage only if they all are

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def raise_all(problems: Sequence[FlexcError]) -> None:
    """Raise the problems, if any: one as it is, several as a :class:`ProblemList`."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ProblemList(problems)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest known word, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""

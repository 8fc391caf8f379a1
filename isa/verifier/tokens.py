"""Verifier, tokens: in the order in which control hands instructions out, every wait finds a token already posted.

Then nothing can wait forever: the earliest unfinished instruction has all the tokens it needs, since every instruction
before it has finished and posted; engines and their queues are in order, so it is at the head of its queue. (The k-th
token taken from a semaphore is the k-th given, in this order.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .flow import Flow


@dataclass
class _Body:
    """Tokens of each semaphore since a loop's body began: given less taken, the least so far and where that was."""

    net: dict[int, int] = field(default_factory=dict)
    least: dict[int, tuple[int, int]] = field(default_factory=dict)

    def take(self, token: int, pc: int) -> None:
        """One token is taken."""
        self.add(token, -1, -1, pc)

    def add(self, token: int, lowest: int, change: int, pc: int) -> None:
        """A stretch changes a semaphore by ``change``, being ``lowest`` from where it began at its lowest."""
        before = self.net.get(token, 0)
        if before + lowest < self.least.get(token, (0, 0))[0]:
            self.least[token] = (before + lowest, pc)
        self.net[token] = before + change

    def repeat(self, body: _Body, count: int) -> None:
        """A loop's body is carried out several times: at its lowest the first time, or the last if it loses tokens."""
        for token, change in body.net.items():
            lowest, pc = body.least.get(token, (0, 0))
            self.add(token, lowest + min(0, change * (count - 1)), change * count, pc)


def token_problems(flow: Flow) -> Iterator[tuple[int, str]]:
    """Yield waits that find no token."""
    bodies = [_Body()]
    opened: list[int] = []
    for pc, instruction in enumerate(flow.code):
        if pc in flow.loops:
            bodies.append(_Body())
            opened.append(pc)
        elif instruction.mnemonic == "endloop":
            body = bodies.pop()
            bodies[-1].repeat(body, flow.loops[opened.pop()].count)
        for token in instruction.tokens("wait"):
            bodies[-1].take(token, pc)
        for token in (*instruction.tokens("post"), *instruction.tokens("release")):
            bodies[-1].add(token, 0, 1, pc)
    for token, (lowest, pc) in sorted(bodies[0].least.items()):
        if lowest < 0:
            yield pc, f"waits for semaphore t{token}, to which nothing before has posted: {-lowest} tokens are missing"

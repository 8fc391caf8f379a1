"""Stepping through a program: it stops before instructions, shows its state and takes commands.

Values come from the actions that every run carries out, times from the queues that time every program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO, TypeAlias

import numpy.typing as npt

from ..isa.assembly.disassembler import quoted_label
from ..isa.errors import FlexcError, did_you_mean
from ..isa.fields import parse_integer
from ..isa.program import EVERY, Program
from .array import ArrayModel
from .bind import Observer
from .cells import WeightCache
from .host import Host
from .inspector import Inspector, SeenArray
from .memory import Memories, Position
from .run import Executor, Tensors
from .stepping import Clock, Stepped
from .trace import Places
from .walk import Leaf

#: Writes a prompt and returns a line; raises EOFError at the end: what the builtin ``input`` does.
Ask: TypeAlias = Callable[[str], str]

PROMPT = "(flexc) "
_AROUND = 4

#: Places to stop at: instructions, each with the iteration of L0 or, where it does not matter, EVERY.
_Stops: TypeAlias = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Command:
    """A command of the prompt; ``resumes`` says that the program goes on after it."""

    names: tuple[str, ...]
    operands: str
    doc: str
    resumes: bool = False


COMMANDS = (
    Command(("s", "step"), "[N]", "carry out one instruction, or N", resumes=True),
    Command(("n", "next"), "", "go on to the next node, or without nodes to the next label", resumes=True),
    Command(("c", "continue"), "", "go on to the next breakpoint, or to the end", resumes=True),
    Command(("u", "until"), "NODE|LABEL|PC", "go on to that place", resumes=True),
    Command(("b", "break"), "[NODE|LABEL|PC]", "stop there each time; alone: list where"),
    Command(("d", "delete"), "[NODE|LABEL|PC]", "no longer stop there; alone: nowhere"),
    Command(("p", "print"), "WHAT [all]", "values: s3, an operand, a tensor, cells UNIT, MEMORY ADDRESS TYPE [RxC]"),
    Command(("w", "where"), "", "the place in the code and in the loops, and the time"),
    Command(("l", "list"), "", "the code around"),
    Command(("g", "groups"), "", "how the sub-macros are joined"),
    Command(("t", "tokens"), "", "the semaphores"),
    Command(("e", "engines"), "", "the engines' queues in time"),
    Command(("r", "streams"), "", "the stream registers"),
    Command(("h", "help"), "", "these commands"),
    Command(("q", "quit"), "", "leave the program here"),
)
_BY_NAME = {name: each for each in COMMANDS for name in each.names}


class _Quit(Exception):
    """The user leaves."""


def lines_of(source: TextIO, out: TextIO) -> Ask:
    """Return what asks by writing a prompt to ``out`` and reading a line of ``source``, which is echoed."""

    def ask(prompt: str) -> str:
        line = source.readline()
        if not line:
            raise EOFError
        out.write(f"{prompt}{line.rstrip()}\n")
        return line

    return ask


class Debugger:
    """A program that is stepped through."""

    def __init__(
        self,
        program: Program,
        feeds: Mapping[str, npt.NDArray[Any]],
        out: TextIO,
        ask: Ask = input,
        *,
        breaks: Sequence[str] = (),
        until: str | None = None,
        step: bool = False,
    ) -> None:
        """Prepare a program.

        Args:
            program: what to step through; it should have been verified.
            feeds: its inputs, [windows, *shape] each; the first window is shown.
            out: where everything is written to.
            ask: where commands come from; at their end the program is left.
            breaks: where to stop: each a node, a label, or the number of an instruction.
            until: where to stop once, likewise.
            step: stop before the first instruction; so it does where no other place is given.

        Raises:
            FlexcError: control flow is malformed, or the program has no such place.
        """
        self.program = program
        self._feeds = feeds
        self._out = out
        self._ask = ask
        self._executor = Executor(program, self._array, self._binding)
        self._clock = Clock(self._executor.tree)
        self._places = Places(program)
        self._breaks = {name: self._resolve(name) for name in breaks}
        self._targets = _Stops() if not until else self._resolve(until)
        self._steps = int(step or not (breaks or until))  # instructions to the next stop; 0: none counted
        self._leaving: str | None = None  # stop where the node is another one
        self._shows = False
        self._last = ["step"]
        self._here: Leaf | None = None
        self._seen: SeenArray | None = None
        self._inspector: Inspector | None = None
        self._commands: Mapping[str, Callable[[Sequence[str]], Iterable[str]]] = {
            "step": self._step,
            "next": self._next,
            "continue": lambda _words: (),
            "until": self._until,
            "break": self._break,
            "delete": self._delete,
            "print": lambda words: self._state.show(words, self._here),
            "where": lambda _words: self._where(),
            "list": lambda _words: self._list(),
            "groups": lambda _words: [self._state.groups_line()],
            "tokens": lambda _words: self._state.token_lines(),
            "engines": lambda _words: self._state.engine_lines(),
            "streams": lambda _words: self._state.stream_lines(),
            "help": lambda _words: help_lines(),
            "quit": self._quit,
        }

    def run(self) -> Tensors | None:
        """Run the program under the user's commands; return its outputs, or None where the user left before its end.

        Raises:
            FlexcError: an input does not fit, or an instruction fails.
        """
        try:
            outputs = self._executor.run(self._feeds)
        except _Quit:
            return None
        self._here = None
        self._say(f"the end: {self._clock.engines.finish()} cycles")
        with suppress(_Quit):
            self._prompt()
        return outputs

    def begin(self, memories: Memories, position: Position) -> None:
        assert self._seen is not None
        self._inspector = Inspector(self.program, memories, position, self._seen, self._clock.engines)

    def before(self, leaf: Leaf) -> None:
        self._here = leaf
        if self._stops(leaf.pc):
            self._steps, self._leaving, self._shows = 0, None, False
            self._targets = frozenset() if self._at(self._targets, leaf.pc) else self._targets
            self._say(*self._where())
            self._prompt()

    def after(self, leaf: Leaf) -> None:
        self._state.note(leaf.instr)
        for done in self._clock.issue(leaf, self._state.position.iterations):
            if self._shows:
                self._say(self._places.line(done))

    @property
    def _state(self) -> Inspector:
        assert self._inspector is not None
        return self._inspector

    def _array(self, cache: WeightCache) -> SeenArray:
        self._seen = SeenArray(cache)
        return self._seen

    def _binding(
        self, program: Program, memories: Memories, array: ArrayModel, host: Host, _observer: Observer | None
    ) -> Stepped:
        return Stepped(program, memories, array, host, self)

    def _say(self, *lines: str) -> None:
        self._out.writelines(f"{line}\n" for line in lines)
        self._out.flush()

    def _stops(self, pc: int) -> bool:
        """Whether to stop before this instruction."""
        if self._steps:
            self._steps -= 1
            if not self._steps:
                return True
        if self._leaving is not None and self._node(pc) != self._leaving:
            return True
        return self._at(self._targets, pc) or any(self._at(places, pc) for places in self._breaks.values())

    def _at(self, places: _Stops, pc: int) -> bool:
        return (pc, EVERY) in places or (pc, self._state.position.iterations[0]) in places

    def _node(self, pc: int) -> str:
        return self._places.node(pc, self._state.position.iterations)

    def _prompt(self) -> None:
        """Take commands until one lets the program go on."""
        while True:
            try:
                words = self._ask(PROMPT).split() or self._last
            except EOFError:
                raise _Quit from None
            try:
                if self._obey(words):
                    return
            except FlexcError as error:
                self._say(*f"error: {error}".split("\n"))

    def _obey(self, words: list[str]) -> bool:
        """Carry out a command; return whether the program goes on."""
        command = _BY_NAME.get(words[0])
        if command is None:
            raise FlexcError(f"no command '{words[0]}'", remedy=did_you_mean(words[0], list(_BY_NAME)) or "try help")
        name, rest = command.names[-1], words[1:]
        if rest and not command.operands:
            raise FlexcError(f"{name} takes no operands")
        if command.resumes and self._here is None:
            raise FlexcError("the program has ended", remedy="look at what there is, or quit")
        self._last = words
        self._say(*self._commands[name](rest))
        return command.resumes

    def _step(self, words: Sequence[str]) -> Iterable[str]:
        steps = parse_integer(words[0]) if words else 1
        if steps is None or steps < 1:
            raise FlexcError(f"'{words[0]}' is no number of instructions")
        self._steps, self._shows = steps, True
        return ()

    def _next(self, _words: Sequence[str]) -> Iterable[str]:
        assert self._here is not None
        self._leaving = self._node(self._here.pc)
        return ()

    def _until(self, words: Sequence[str]) -> Iterable[str]:
        if not words:
            raise FlexcError("until where?", remedy="name a node, a label, or the number of an instruction")
        self._targets = self._resolve(" ".join(words))
        return ()

    def _break(self, words: Sequence[str]) -> Iterable[str]:
        if words:
            name = " ".join(words)
            self._breaks[name] = self._resolve(name)
        for name, place in self._breaks.items():
            yield f"stops at {name} (pc {', '.join(_place_text(*each) for each in sorted(place))})"
        if not self._breaks:
            yield "no breakpoints"

    def _delete(self, words: Sequence[str]) -> Iterable[str]:
        name = " ".join(words)
        if name and name not in self._breaks:
            raise FlexcError(f"no breakpoint '{name}'", remedy=did_you_mean(name, list(self._breaks)))
        for each in [name] if name else list(self._breaks):
            del self._breaks[each]
        return self._break(())

    def _quit(self, _words: Sequence[str]) -> Iterable[str]:
        raise _Quit

    def _where(self) -> Iterator[str]:
        if self._here is None:
            yield f"at the end: {self._clock.engines.finish()} cycles"
            return
        pc, iterations = self._here.pc, self._state.position.iterations
        loops = self._places.iterations(pc, tuple(iterations))
        parts = [f"pc {pc}", loops, self._node(pc), f"cycle {self._clock.engines.clock} of control"]
        yield ", ".join(part for part in parts if part)
        coordinates = self._places.coordinates(pc, tuple(iterations))
        if coordinates:
            yield f"   {coordinates}"
        yield f"=> {self._places.text(pc)}"

    def _list(self) -> Iterator[str]:
        here = len(self.program.code) - 1 if self._here is None else self._here.pc
        for pc in range(max(0, here - _AROUND), min(len(self.program.code), here + _AROUND + 1)):
            if pc in self.program.debug.labels:
                yield f"{quoted_label(self.program.debug.labels[pc])}:"
            mark = "=>" if self._here is not None and pc == here else "  "
            yield f"{mark} {pc:>6}  {'  ' * len(self._places.loops[pc])}{self._places.text(pc)}"

    def _resolve(self, name: str) -> _Stops:
        """Return the instructions at which a node, a label, or the instruction of that number begins."""
        debug = self.program.debug
        found = {(pc, EVERY) for pc, label in debug.labels.items() if label == name}
        found |= {(op.first, op.iteration) for op in debug.ops if name in op.names and op.first < op.last}
        number = parse_integer(name)
        if not found and number is not None and 0 <= number < len(self.program.code):
            found = {(number, EVERY)}
        if not found:
            known = [*debug.labels.values(), *(each for op in debug.ops for each in op.names)]
            raise FlexcError(
                f"the program has no node, label or instruction '{name}'", remedy=did_you_mean(name, known)
            )
        return frozenset(found)


def _place_text(pc: int, iteration: int) -> str:
    return f"{pc}" if iteration == EVERY else f"{pc} at L0={iteration}"


def help_lines() -> Iterator[str]:
    """Yield the commands of the prompt."""
    for each in COMMANDS:
        yield f"  {', '.join(each.names):<12} {each.operands:<18} {each.doc}"
    yield "An empty line repeats the last command."

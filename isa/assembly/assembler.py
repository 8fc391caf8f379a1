"""Assembly text to a program. The language: docs/assembly.md; every problem is reported with its line and column."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FlexcError, did_you_mean, raise_all
from ..instruction import Instr
from ..program import Program
from ..table import BY_MNEMONIC
from . import lines
from .arguments import Arguments
from .data import Data
from .directives import BY_NAME, Directive
from .draft import Draft
from .lines import Line
from .shapes import Shape, SyntaxFault, parse_shape
from .statements import InstructionShape, match, usage

#: Problems reported before giving up.
_MOST_PROBLEMS = 50
_EQU = re.compile(r"(\s*\.equ\s+[A-Za-z_][\w.]*)(\s*[=,]|\s)")


def assemble(text: str, path: str = "<text>", folder: str | Path | None = None) -> Program:
    """Return the program that assembly text describes.

    Args:
        text: the text.
        path: how messages name it.
        folder: where files that it names are looked for; by default beside ``path``.

    Raises:
        FlexcError: one problem or several, each as ``path:line:column: error: ...`` with the line and a caret.
    """
    return _Assembler(path, Path(path).parent if folder is None else Path(folder)).run(text)


def assemble_file(path: str | Path) -> Program:
    """Return the program that an assembly file describes; raises FlexcError as :func:`assemble` does."""
    return assemble(_read(path), str(path))


def assemble_lines(path: str | Path) -> tuple[Program, list[str]]:
    """Return the program that a file describes and ``path:line:`` of every instruction; raises FlexcError likewise."""
    assembler = _Assembler(str(path), Path(path).parent)
    program = assembler.run(_read(path))
    return program, [f"{path}:{line.number}:" for line, _ in assembler.instructions]


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FlexcError("is not a text file (UTF-8)", where=str(path)) from None
    except OSError as error:
        raise FlexcError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


class _TooMany(Exception):
    """Enough problems were found."""


class _Assembler:
    """One run: first every line is read, then operands get their values, when all symbols are known."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path = path
        self.draft = Draft(folder)
        self.texts: list[str] = []
        self.problems: list[tuple[int, int, FlexcError]] = []
        self.shapes: dict[str, Shape | InstructionShape | SyntaxFault] = {}
        self.instructions: list[tuple[Line, InstructionShape]] = []
        self.later: list[tuple[Line, Callable[[], None]]] = []

    def run(self, text: str) -> Program:
        """Return the program of the text."""
        self.texts = text.split("\n")
        code: list[Instr] = []
        try:
            self.read()
            self.draft.finished = True
            for line, work in self.later:
                with self.guard(line):
                    work()
            for line, shape in self.instructions:
                with self.guard(line):
                    code.append(shape.fill(line.atoms, self.draft.symbols))
        except _TooMany:
            rest = FlexcError(f"more than {_MOST_PROBLEMS} problems, the rest not shown", where=self.path)
            self.problems.append((len(self.texts) + 1, 0, rest))
        raise_all([error for _, _, error in sorted(self.problems, key=lambda problem: problem[:2])])
        try:
            return self.draft.program(tuple(code))
        except FlexcError as error:
            error.where = error.where or self.path
            raise

    @contextmanager
    def guard(self, line: Line) -> Iterator[None]:
        """Report a problem of this line and go on."""
        try:
            yield
        except FlexcError as error:
            self.report(line, error)

    def report(self, line: Line, error: FlexcError) -> None:
        """Note a problem with its place, the line and a caret."""
        column = lines.original_column(line, error.place) if isinstance(error, SyntaxFault) else line.start
        shown = lines.caret(self.texts[line.number - 1], column)
        where = f"{self.path}:{line.number}:{column + 1}"
        inner = f"{error.where}: " if error.where and not error.where.startswith(self.path) else ""
        problem = FlexcError(f"error: {inner}{error.message}\n{shown}", where=where, remedy=error.remedy)
        self.problems.append((line.number, column, problem))
        if len(self.problems) >= _MOST_PROBLEMS:
            raise _TooMany

    def read(self) -> None:
        """Read every line."""
        number = 0
        while number < len(self.texts):
            line = self.split(number)
            number += 1
            block = None
            with self.guard(line):
                block = self.statement(line)
            if block is not None:
                number = self.block(block, line, number)

    def split(self, number: int) -> Line:
        """Return a line taken apart; in ``.equ NAME VALUE`` and ``.equ NAME = VALUE`` a comma is put in place."""
        text = self.texts[number]
        if ".equ" in text:
            text = _EQU.sub(lambda found: found[1] + ",".rjust(len(found[2])), text, count=1)
        return lines.split(text, number + 1)

    def statement(self, line: Line) -> Directive | None:
        """Read one line; return the directive that it opens a block of, if it does."""
        if line.label is not None:
            self.label(line.label)
        if not line.shape:
            return None
        shape = self.shape(line.shape)
        if isinstance(shape, InstructionShape):
            self.instructions.append((line, shape))
            self.draft.pc += 1
            return None
        directive = BY_NAME[shape.word]
        before = len(self.draft.later)
        directive.run(self.draft, Arguments(shape, line.atoms, self.draft.symbols))
        self.later += [(line, work) for work in self.draft.later[before:]]
        return directive if directive.block else None

    def shape(self, text: str) -> Shape | InstructionShape:
        """Return a parsed shape, parsed once, or raise :class:`SyntaxFault`."""
        found = self.shapes.get(text)
        if found is None:
            found = self.shapes[text] = _read_shape(text)
        if isinstance(found, SyntaxFault):
            raise found
        return found

    def label(self, name: str) -> None:
        """A label names an instruction, or an address of the const memory among data."""
        draft, data = self.draft, self.draft.here
        if data is None:
            if draft.pc in draft.labels:
                raise FlexcError(f"this instruction already has a label, '{draft.labels[draft.pc]}'")
            draft.labels[draft.pc] = name
        elif data not in (draft.weights, draft.constants):
            raise FlexcError(
                f"label '{name}' would have no address here; allowed among instructions, weights, constants"
            )
        elif not draft.symbols.define(name, _address(draft, data, data.size)):
            raise FlexcError(f"symbol '{name}' is defined twice")

    def block(self, directive: Directive, line: Line, first: int) -> int:
        """Hand a directive its lines, from number ``first`` up to ``.end``; return the number of the line after."""
        last = next((n for n in range(first, len(self.texts)) if self.texts[n].strip() == ".end"), None)
        if last is None:
            self.report(line, FlexcError(f"{directive.name} has no .end"))
            return len(self.texts)
        with self.guard(line):
            assert directive.block is not None
            directive.block(self.draft, self.texts[first:last], f"{self.path}:{first + 1}")
        return last + 1


def _address(draft: Draft, data: Data, offset: int) -> Callable[[], int]:
    return lambda: draft.address(data, offset)


def _read_shape(text: str) -> Shape | InstructionShape | SyntaxFault:
    """Return a shape parsed and matched, or what is wrong with it and, if nothing is nearer, how it is written."""
    try:
        shape = parse_shape(text)
        if not shape.word.startswith("."):
            return match(shape)
    except SyntaxFault as fault:
        spec = BY_MNEMONIC.get(text.split(maxsplit=1)[0])
        fault.remedy = fault.remedy or (usage(spec) if spec else "")
        return fault
    if shape.word in BY_NAME:
        return shape
    return SyntaxFault(f"unknown directive '{shape.word}'", 0, did_you_mean(shape.word, list(BY_NAME)))

"""Program files (``.fxc``): save a program, load it, look at what a file holds. Byte by byte: docs/object-format.md."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .budget import Budget, budget_of, check_budget, code_bytes, table_bytes, text_bytes
from .container import Content, Layout, Made, Section, check_section, read_layout, read_section, write
from .encoding import decode_all, encode_all
from .errors import FlexcError
from .instruction import LEVELS, WORD_BYTES, Instr
from .machine import Machine
from .program import EVERY, Debug, Program, Segment, State, Tensor
from .records import dump, from_record, parse, records, table, texts, to_record, whole
from .version import isa_digest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """One kind of section: its number in the file, its name for people, and what its bytes are."""

    number: int
    title: str
    doc: str
    several: bool = False


CODE = Kind(1, "code", "the instructions, 16 bytes each, as docs/isa.md lays them out")
MACHINE = Kind(2, "machine", "the machine the code was made for: TOML text, UTF-8, nothing inherited")
TENSORS = Kind(3, "tensors", "JSON: size of the DRAM, inputs, outputs, states, the tensors of every host segment")
META = Kind(4, "meta", "JSON: object of texts, where the program came from")
DEBUG = Kind(5, "debug", "JSON: ops, taps, tiles, tensors and labels; never needed to run")
SEGMENT = Kind(6, "segment", "the ONNX model of a host segment, in the order that `tensors` lists them", several=True)
WEIGHTS = Kind(7, "weights", "the const memory from address 0: weights and indices as the cells store them")
CONSTANTS = Kind(8, "constants", "the rest of the const memory; starts where `weights` ends, so one map shows both")
BLOB = Kind(
    9, "blob", "a named byte string that only checks read; its checksum is verified when it is read", several=True
)
KINDS = (CODE, MACHINE, TENSORS, META, DEBUG, SEGMENT, WEIGHTS, CONSTANTS, BLOB)
BY_NUMBER = {kind.number: kind for kind in KINDS}


#: Sections that are read whole and made into objects.
_JSON = frozenset({TENSORS.number, META.number, DEBUG.number})
_TENSOR_KEYS = ("dram_bytes", "inputs", "outputs", "states", "segments")
#: Bytes that a machine may take: all there is to say about one takes two thousand.
_MOST_TOML = 1 << 16


class Blobs(Mapping[str, "Bytes"]):
    """The blobs of a file: mapped into memory, and checked, when first asked for."""

    def __init__(self, path: Path, sections: Mapping[str, Section]) -> None:
        self._path = path
        self._sections = dict(sections)
        self._read: dict[str, Bytes] = {}

    def __getitem__(self, name: str) -> Bytes:
        if name not in self._read:
            section = self._sections[name]
            with _open(self._path) as file:
                check_section(file, section, f"blob {name}", str(self._path))
            self._read[name] = _map(self._path, section.offset, section.size)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def size(self, name: str) -> int:
        """Return the bytes of a blob without reading it."""
        return self._sections[name].size


def save(program: Program, path: str | Path) -> None:
    """Write a program file; it appears complete or not at all, and the same program gives the same bytes.

    Raises:
        FlexcError: the file cannot be written, or the program holds something the file cannot.
    """
    every = list(contents(program))
    write(Path(path), every, made_of(program, every))


def made_of(program: Program, every: Sequence[Content]) -> Made:
    """Return what the header says about a program with these sections."""
    read = table_bytes(len(every), sum(len(each.name.encode()) for each in every))
    read += sum(text_bytes(bytes(each.data)) for each in every if each.kind in _JSON)
    read += sum(len(each.data) for each in every if each.kind == SEGMENT.number)
    budget = budget_of(program.code, program.machine, program.dram_bytes, read)
    return Made(isa_digest(), bytes.fromhex(program.machine.fingerprint()), budget.memory, budget.executed)


def contents(program: Program) -> Iterator[Content]:
    """Yield the sections of a program, in the order they have in the file."""
    yield Content(CODE.number, encode_all(program.code))
    yield Content(MACHINE.number, program.machine.to_toml().encode())
    yield Content(TENSORS.number, tensors_json(program))
    yield Content(META.number, dump(to_record(program.meta)))
    yield Content(DEBUG.number, dump(to_record(program.debug)))
    for segment in program.segments:
        yield Content(SEGMENT.number, segment.model, segment.name)
    yield Content(WEIGHTS.number, program.const[: program.weight_bytes])
    yield Content(CONSTANTS.number, program.const[program.weight_bytes :], joined=True)
    for name in sorted(program.blobs):
        yield Content(BLOB.number, program.blobs[name], name)


def tensors_json(program: Program) -> bytes:
    """Return the ``tensors`` section."""
    return dump(
        {
            "dram_bytes": program.dram_bytes,
            "inputs": to_record(program.inputs),
            "outputs": to_record(program.outputs),
            "states": to_record(program.states),
            "segments": to_record(program.segments),
        }
    )


def load(path: str | Path, *, check: bool = True) -> Program:
    """Read a program file; the const memory and the blobs are mapped, not read.

    Args:
        path: the file.
        check: verify the checksums of weights and constants, too; those of blobs are verified when they are read.

    Raises:
        FlexcError: no such file; no program file; truncated, damaged, or made for another instruction set.
    """
    path = Path(path)
    where = str(path)
    with _open(path) as file:
        layout = read_layout(file, where)
        _check_isa(layout, where)
        return _Reader(path, file, layout).program(check=check)


def sections(path: str | Path) -> tuple[Section, ...]:
    """Return the section table of a program file, made for whatever instruction set. Raises FlexcError as load does."""
    with _open(Path(path)) as file:
        return read_layout(file, str(path)).sections


def declared(path: str | Path) -> Budget:
    """Return what a program file declares to take at most. Raises FlexcError as load does."""
    with _open(Path(path)) as file:
        return read_layout(file, str(path)).made.budget


def _check_isa(layout: Layout, where: str) -> None:
    if layout.made.isa != isa_digest():
        raise FlexcError(
            f"was made for another instruction set ({layout.made.isa[:6].hex()}; this is {isa_digest()[:6].hex()})",
            where=where,
            remedy="compile the model again, or use the flexc that made the file",
        )


def _open(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise FlexcError("is not a file" if path.exists() else "no such file", where=str(path))
    try:
        return path.open("rb")
    except OSError as error:
        raise FlexcError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def _map(path: Path, offset: int, size: int) -> Bytes:
    import numpy as np

    if not size:
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r", offset, (size,)).view(np.ndarray)


class _Reader:
    """Reads the sections of one open file."""

    def __init__(self, path: Path, file: IO[bytes], layout: Layout) -> None:
        self.path, self.where, self.file, self.layout = path, str(path), file, layout
        self.declared = layout.made.budget
        self.taken = table_bytes(len(layout.sections), sum(len(each.name.encode()) for each in layout.sections))
        self.several: dict[Kind, list[Section]] = {kind: [] for kind in KINDS}
        for section in layout.sections:
            if section.kind not in BY_NUMBER:
                raise FlexcError(f"holds a section of unknown kind {section.kind}", where=self.where)
            self.several[BY_NUMBER[section.kind]].append(section)

    def program(self, *, check: bool) -> Program:
        """Return the program."""
        tensors = table(self.json(TENSORS), self.at(TENSORS), _TENSOR_KEYS)
        weights, constants = self.one(WEIGHTS), self.one(CONSTANTS)
        if constants.offset != weights.offset + weights.size:
            raise FlexcError("is damaged: its constants do not follow its weights", where=self.where)
        for section, kind in ((weights, WEIGHTS), (constants, CONSTANTS)) if check else ():
            check_section(self.file, section, kind.title, self.where)
        code, machine = tuple(self.code()), self.machine()
        program = Program(
            code=code,
            machine=machine,
            const=_map(self.path, weights.offset, weights.size + constants.size),
            weight_bytes=weights.size,
            dram_bytes=whole(tensors["dram_bytes"], f"{self.at(TENSORS)}.dram_bytes"),
            inputs=records(Tensor, tensors["inputs"], f"{self.at(TENSORS)}.inputs"),
            outputs=records(Tensor, tensors["outputs"], f"{self.at(TENSORS)}.outputs"),
            segments=self.segments(tensors["segments"]),
            states=records(State, tensors["states"], f"{self.at(TENSORS)}.states"),
            debug=self.debug(len(code)),
            meta=texts(self.json(META), self.at(META)),
            blobs=self.blobs(),
        )
        needed = budget_of(code, machine, program.dram_bytes, self.taken)
        check_budget(needed, self.declared, self.where)
        return program

    def at(self, kind: Kind) -> str:
        """Return how an error names a section."""
        return f"{self.where}: section '{kind.title}'"

    def one(self, kind: Kind) -> Section:
        """Return the only section of a kind."""
        found = self.several[kind]
        if len(found) != 1:
            raise FlexcError(f"is damaged: it has {len(found)} sections '{kind.title}', not one", where=self.where)
        return found[0]

    def bytes(self, kind: Kind) -> bytes:
        """Return the bytes of the only section of a kind."""
        self.allow(self.one(kind).size)
        return read_section(self.file, self.one(kind), kind.title, self.where)

    def json(self, kind: Kind) -> object:
        """Return the value of a JSON section."""
        text = self.bytes(kind)
        self.allow(text_bytes(text))
        self.taken += text_bytes(text)
        return parse(text, self.at(kind))

    def allow(self, memory: int) -> None:
        """Refuse, before it is taken, memory that the header does not declare."""
        check_budget(Budget(self.taken + memory, 0), self.declared, self.where)

    def code(self) -> list[Instr]:
        """Return the instructions."""
        self.allow(code_bytes(self.one(CODE).size // WORD_BYTES))
        try:
            return decode_all(self.bytes(CODE))
        except FlexcError as error:
            error.where = f"{self.where}: {error.where}" if error.where else self.where
            raise

    def machine(self) -> Machine:
        """Return the machine, which must be the one the header names."""
        machine = machine_from(self.bytes(MACHINE), self.at(MACHINE))
        if bytes.fromhex(machine.fingerprint()) != self.layout.made.machine:
            raise FlexcError("is not the machine that the header of the file names", where=self.at(MACHINE))
        return machine

    def segments(self, data: object) -> tuple[Segment, ...]:
        """Return the host segments: their tensors with their models."""
        models = self.several[SEGMENT]
        if not isinstance(data, list) or len(data) != len(models):
            raise FlexcError(f"does not list the {len(models)} host segments of the file", where=self.at(TENSORS))
        found = []
        for place, (each, section) in enumerate(zip(data, models, strict=True)):
            self.allow(section.size)
            self.taken += section.size
            model = read_section(self.file, section, f"{SEGMENT.title} {place}", self.where)
            found.append(from_record(Segment, each, f"{self.at(TENSORS)}.segments[{place}]", model=model))
        return tuple(found)

    def debug(self, length: int) -> Debug:
        """Return the debug data, which may only speak of instructions that there are."""
        debug = from_record(Debug, self.json(DEBUG), self.at(DEBUG))
        for op in debug.ops:
            if not (0 <= op.first <= op.last <= length and op.iteration >= EVERY):
                place = f"instructions {op.first}..{op.last}, iteration {op.iteration}"
                raise FlexcError(f"op '{op.name}' is of {place}", where=self.at(DEBUG))
        for tap in debug.taps:
            if not (0 <= tap.pc < length and 0 <= tap.turn < LEVELS and tap.iteration >= EVERY):
                place = f"instruction {tap.pc}, loop L{tap.turn}, iteration {tap.iteration}"
                raise FlexcError(f"tap of '{tap.value}' is of {place}", where=self.at(DEBUG))
        for tile in debug.tiles:
            if not 0 <= tile.pc < length or tile.count < 1:
                raise FlexcError(
                    f"tile '{tile.what}' is of instruction {tile.pc}, {tile.count} times", where=self.at(DEBUG)
                )
        for pc, label in debug.labels.items():
            if pc > length:
                raise FlexcError(f"label '{label}' is of instruction {pc}", where=self.at(DEBUG))
        return debug

    def blobs(self) -> Blobs:
        """Return the blobs, not yet read."""
        named = {section.name: section for section in self.several[BLOB]}
        if len(named) != len(self.several[BLOB]):
            raise FlexcError("is damaged: two blobs have one name", where=self.where)
        return Blobs(self.path, named)


@lru_cache(maxsize=4)
def machine_from(text: bytes, where: str) -> Machine:
    """Return the machine of TOML text that stands alone: it may not inherit from another file."""
    if len(text) > _MOST_TOML:
        raise FlexcError(f"has {len(text)} bytes; at most {_MOST_TOML} are read", where=where)
    try:
        words = text.decode()
        inherits = "inherit" in tomllib.loads(words)
    except (ValueError, RecursionError) as error:
        raise FlexcError(f"is not valid TOML: {error}", where=where) from None
    if inherits:
        raise FlexcError("inherits from another machine; inside a program it must be complete", where=where)
    return Machine.from_toml(words, where=where)

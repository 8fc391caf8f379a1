"""Mutates program files, checksums made right again, and runs what the verifier lets through.

    python -m tests.isa.fuzz_files --rounds 100000 --words 1000000 --seed 1

Every mutation must end in a clean refusal or in a program that verifies, and then neither timing nor running it may
raise. Memory, as tracemalloc measures it, must stay within twice what the file declares and a fixed base; a run must
not issue more instructions than declared; a file that declares less than it takes must be refused. Whatever is not so
ends the run; its seed and round make it happen again.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flexc.emulator.memory import NUMPY_TYPES
from flexc.emulator.run import Executor
from flexc.emulator.timing import time_program
from flexc.isa import container, object_file, records
from flexc.isa.assembly.assembler import assemble
from flexc.isa.container import Content, Made
from flexc.isa.encoding import decode, decode_all, encode, encode_all
from flexc.isa.errors import FlexcError
from flexc.isa.instruction import OPCODE_BITS, Instr
from flexc.isa.program import Program
from flexc.isa.table import TABLE
from flexc.isa.verifier import verify
from flexc.isa.verifier.flow import Flow
from tests.isa.hazard_programs import random_program
from tests.isa.refused import GOOD

_NUMBERS = (-1, 0, 1, 7, 255, 1 << 31, 1 << 63, 1 << 90, 10**400)
_OP = ".op name=a op_type=b nodes=[c] engine=d nm=e\n    lda s5\n.endop\nx:"
#: Instructions, and elements they work on, up to which a program that passes is run.
_RUN = 2_000
#: Files that declare less than they take, of all.
_UNDERSTATED = 0.05
#: Memory that reading any file may take whatever it declares: pieces of 4 MiB to check sums, and tables made once.
BASE_BYTES = 8 << 20
_MOST = "most memory, % of what is allowed"


def bases(seed: int) -> list[Program]:
    """Return the programs that are mutated."""
    programs = [assemble(GOOD.replace("    lda s5", _OP)), assemble(GOOD)]
    texts = (random_program(number) for number in range(seed, seed + 1000))
    programs += [program for program in map(assemble, _first(texts, 12)) if not verify(program)]
    return programs


def _first(texts: Iterator[str], count: int) -> Iterator[str]:
    for _, text in zip(range(count), texts, strict=False):
        yield text


def mutated_bytes(data: bytes, generator: random.Random) -> bytes:
    """Return bytes with one to three places changed, cut, repeated, or numbers in a text replaced."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        if not changed:
            break
        place, kind = generator.randrange(len(changed)), generator.random()
        if kind < 0.3 and chr(changed[place]).isdigit():
            changed[place : place + 1] = str(generator.choice(_NUMBERS)).encode()
        elif kind < 0.35:
            del changed[place : place + generator.randint(1, 20)]
        elif kind < 0.4:
            changed[place:place] = changed[place : place + generator.randint(1, 40)] * generator.randint(1, 3)
        else:
            changed[place] ^= 1 << generator.randrange(8)
    return bytes(changed)


def mutated_code(code: Sequence[Instr], generator: random.Random) -> bytes:
    """Return code with instructions moved, repeated, left out, or with other operands."""
    changed = list(code)
    for _ in range(generator.randint(1, 2)):
        place, other = generator.randrange(len(changed)), generator.randrange(len(changed))
        match generator.randrange(5):
            case 0:
                changed[place], changed[other] = changed[other], changed[place]
            case 1:
                changed.insert(place, changed[other])
            case 2 if len(changed) > 1:
                del changed[place]
            case _:
                changed[place] = _other_operand(changed[place], code, generator)
    return encode_all(changed)


def _other_operand(instruction: Instr, code: Sequence[Instr], generator: random.Random) -> Instr:
    """Return an instruction with one operand as another one of its kind has it, or one bit of it changed."""
    if not instruction.spec.fields:
        return instruction
    field, low = generator.choice(instruction.spec.layout)
    alike = [each.values[field.name] for each in code if field.name in each.values]
    if generator.random() < 0.5:
        return Instr(instruction.spec, {**instruction.values, field.name: generator.choice(alike)})
    bits = int.from_bytes(encode(instruction), "little") ^ (1 << generator.randrange(low, low + field.width))
    try:
        return decode(bits.to_bytes(16, "little"))
    except FlexcError:
        return instruction


def mutated(program: Program, contents: Sequence[Content], generator: random.Random) -> list[Content]:
    """Return the sections of a program, one of them mutated."""
    sections = list(contents)
    place = generator.choice([place for place, each in enumerate(contents) if len(each.data) > 2])
    if generator.random() < 0.6:
        place = 0
    content = sections[place]
    if content.kind == object_file.CODE.number and generator.random() < 0.8:
        sections[place] = replace(content, data=mutated_code(program.code, generator))
    else:
        sections[place] = replace(content, data=mutated_bytes(bytes(content.data), generator))
    return sections


def declared(program: Program, sections: Sequence[Content]) -> Made:
    """Return a header for mutated sections that declares what they take, as far as they can be read."""
    data = {each.kind: bytes(each.data) for each in sections}
    try:
        machine = object_file.machine_from(data[object_file.MACHINE.number], "")
        code = tuple(decode_all(data[object_file.CODE.number]))
        tensors = records.parse(data[object_file.TENSORS.number], "")
        dram = records.whole(tensors["dram_bytes"], "") if isinstance(tensors, dict) else 0
        return object_file.made_of(replace(program, machine=machine, code=code, dram_bytes=dram), sections)
    except (FlexcError, KeyError):
        return object_file.made_of(program, sections)


def understated(made: Made, generator: random.Random) -> Made:
    """Return a header that declares less."""
    if generator.random() < 0.5:
        return replace(made, memory=generator.randrange(made.memory))
    return replace(made, executed=generator.randrange(made.executed))


def outcome(path: Path, made: Made) -> str:
    """Return how a file ends: refused by the reader or the verifier, or verified, or run."""
    try:
        program = object_file.load(path)
    except FlexcError:
        return "refused by the reader"
    if verify(program):
        return "refused by the verifier"
    flow = Flow(program.code)
    sizes = program.dram_bytes + program.machine.buffer.bytes + program.machine.array.macros * (1 << 20)
    if flow.executed > _RUN or sizes > 1 << 28:
        return "verified"
    issued = time_program(program).instructions
    if issued > made.executed:
        raise AssertionError(f"{issued} instructions were issued, {made.executed} declared")
    Executor(program).run(feeds(program))
    return "run"


def feeds(program: Program) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Return zeros for all inputs."""
    return {each.name: np.zeros((1, *each.shape), NUMPY_TYPES[each.dtype]) for each in program.inputs}


def measured(path: Path, made: Made) -> tuple[str, float]:
    """Return how a file ends, and the share of the memory allowed (twice what it declares and the base) that it took.

    Raises:
        AssertionError: it took more.
    """
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    ended = outcome(path, made)
    taken, allowed = tracemalloc.get_traced_memory()[1] - before, 2 * made.memory + BASE_BYTES
    if taken > allowed:
        raise AssertionError(f"{ended}: {taken} bytes were taken, {made.memory} declared")
    return ended, taken / allowed


def fuzz_files(rounds: int, seed: int, folder: Path, progress: Callable[[int], None] = lambda _: None) -> Counter[str]:
    """Mutate so many files; return how they ended.

    Raises:
        Exception: what should have been a clean refusal; the round that did it is added as a note.
    """
    programs = bases(seed)
    tracemalloc.start()
    try:
        return _fuzz(programs, rounds, seed, folder, progress)
    finally:
        tracemalloc.stop()


def _fuzz(
    programs: Sequence[Program], rounds: int, seed: int, folder: Path, progress: Callable[[int], None]
) -> Counter[str]:
    contents = [list(object_file.contents(program)) for program in programs]
    path, counts = folder / "p.fxc", Counter[str]()
    for number in range(rounds):
        generator = random.Random(seed * 1_000_003 + number)
        chosen = generator.randrange(len(programs))
        sections = mutated(programs[chosen], contents[chosen], generator)
        made = declared(programs[chosen], sections)
        less = generator.random() < _UNDERSTATED
        container.write(path, sections, understated(made, generator) if less else made)
        try:
            ended, share = measured(path, made)
            if less and not ended.startswith("refused"):
                raise AssertionError(f"{ended}, although it declares less than it takes")
            counts[f"{ended}, understated" if less else ended] += 1
            counts["most memory, % of what is allowed"] = max(
                counts["most memory, % of what is allowed"], int(100 * share)
            )
        except Exception as error:
            error.add_note(f"seed {seed}, round {number}; the file is {path}")
            raise
        progress(number)
    return counts


def fuzz_words(words: int, seed: int) -> Counter[str]:
    """Decode random words, half of them with an opcode that exists; return how many were instructions."""
    generator, counts = random.Random(seed), Counter[str]()
    for count in range(words):
        bits = generator.getrandbits(128)
        if count % 2:
            spec = generator.choice(TABLE)
            bits = (bits >> OPCODE_BITS << OPCODE_BITS | spec.opcode) & ((1 << spec.used_bits) - 1)
        word = bits.to_bytes(16, "little")
        try:
            instruction = decode(word)
        except FlexcError:
            counts["refused"] += 1
            continue
        if encode(instruction) != word:
            raise AssertionError(f"{word.hex()} encodes to {encode(instruction).hex()}")
        counts["instructions"] += 1
    return counts


def main() -> None:
    """Run by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100_000, help="files to mutate")
    parser.add_argument("--words", type=int, default=1_000_000, help="random words to decode")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other mutations")
    options = parser.parse_args()
    start = time.monotonic()

    def progress(number: int) -> None:
        if number % 1000 == 999:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            sys.stderr.write(f"\r{number + 1} files, {time.monotonic() - start:.0f} s, {peak} MiB at most ")

    words = fuzz_words(options.words, options.seed)
    sys.stdout.write(f"words: {dict(words)}\n")
    folder = Path(tempfile.mkdtemp())
    counts = fuzz_files(options.rounds, options.seed, folder, progress)
    sys.stdout.write(f"\nfiles: {dict(counts)}\n")


if __name__ == "__main__":
    main()

"""Input data for a program: files cut into windows, or random numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from flexc.emulation import Arrays
from flexc.emulator.memory import NUMPY_TYPES
from flexc.isa.errors import FlexcError, UsageError, raise_all
from flexc.isa.program import Program
from flexc.passes.feeds import Feeds, InputSpec, random_feed, token_problem, windows


class Windows(Sequence[Arrays]):
    """Windows of input data, read when they are asked for; at most `limit` of them, the first or evenly `spread` ones.

    `places` says which windows of the data they are.
    """

    def __init__(self, feeds: Feeds | list[Arrays], limit: int | None = None, *, spread: bool = False) -> None:
        self._feeds = feeds
        count = len(feeds) if limit is None else min(limit, len(feeds))
        self.places = tuple(index * len(feeds) // count if spread else index for index in range(count))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Arrays:  # type: ignore[override]
        return self._feeds[self.places[index]]

    def __iter__(self) -> Iterator[Arrays]:
        return (self._feeds[place] for place in self.places)


def input_specs(program: Program) -> list[InputSpec]:
    """Describe the inputs of a program; what its meta data tell of vocabularies is in it."""
    vocabularies = json.loads(program.meta.get("vocabularies", "{}"))
    return [
        InputSpec(each.name, NUMPY_TYPES[each.dtype], each.shape, vocabularies.get(each.name))
        for each in program.inputs
    ]


def check_tokens(program: Program, arrays: Arrays) -> None:
    """Refuse tokens that a program's tables do not have.

    Raises:
        FlexcError: all inputs that hold some.
    """
    found = [token_problem(spec, arrays[spec.name]) for spec in input_specs(program) if spec.name in arrays]
    raise_all([FlexcError(problem) for problem in found if problem])


def given_windows(program: Program, inputs: Sequence[str], seed: int | None, limit: int | None) -> Windows:
    """Return the windows that the command line asks for.

    Args:
        program: whose inputs they are for.
        inputs: ``NAME=FILE`` or ``FILE``, as given with ``--input``; states may be left out.
        seed: draw one random window from this seed instead.
        limit: windows used at most.

    Raises:
        UsageError: neither data nor a seed, or both; a name that is no input.
        FlexcError: data that cannot be read or do not fit.
    """
    specs = input_specs(program)
    _check_limit(limit)
    if inputs and seed is not None:
        raise UsageError("--input and --random-inputs exclude each other", remedy="give one of them")
    if seed is not None and seed < 0:
        raise UsageError(f"--random-inputs {seed}: a seed is 0 or more")
    if seed is not None:
        return Windows([random_feed(specs, seed)], limit)
    if not inputs and specs:
        listed = " ".join(f"--input {spec.name}=FILE.npy" for spec in specs)
        raise UsageError("no input data", remedy=f"give {listed}, or --random-inputs SEED")
    return Windows(_from_files(_wanted(program, specs, inputs), inputs), limit)


def _wanted(program: Program, specs: list[InputSpec], inputs: Sequence[str]) -> list[InputSpec]:
    """Return the inputs that need data: states start at zero unless data are named for them, or all are in one file."""
    states = {state.input for state in program.states}
    given = {_named(text, specs)[0] for text in inputs}
    if any(text.endswith(".npz") for text in inputs):
        return specs
    return [spec for spec in specs if spec.name not in states or spec.name in given]


def windows_of(specs: list[InputSpec], inputs: Sequence[str], limit: int | None, flag: str) -> Windows:
    """Return windows of ``NAME=FILE`` or ``FILE``, as given with `flag`, for a model's inputs, evenly from all of them.

    Raises:
        UsageError: a name that is no input; a limit below 1.
        FlexcError: data that cannot be read or do not fit.
    """
    _check_limit(limit)
    return Windows(_from_files(specs, inputs, flag), limit, spread=True)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"--windows {limit}: at least one window is needed")


def _from_files(specs: list[InputSpec], inputs: Sequence[str], flag: str = "--input") -> Feeds:
    named = [_named(text, specs) for text in inputs]
    if len(named) == 1 and named[0][0] is None:
        return windows(specs, named[0][1])
    files: dict[str, Path | str] = {}
    for name, path in named:
        if name is None:
            raise UsageError(f"{flag} {path}: for which input?", remedy="write NAME=FILE, or give one .npz for all")
        if name in files:
            raise UsageError(f"{flag} {name} is given twice")
        files[name] = path
    return windows(specs, files)


def _named(text: str, specs: Sequence[InputSpec]) -> tuple[str | None, Path]:
    """Split ``NAME=FILE``; a text that is a file as it stands, or names no input, may be a file with ``=`` in it."""
    name, equals, path = text.partition("=")
    if not equals or (name not in [spec.name for spec in specs] and Path(text).exists()):
        return None, Path(text)
    return name, Path(path)

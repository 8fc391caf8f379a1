"""Input data from files: .npy and .npz arrays cut into windows of a model's inputs, read as they are asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..isa.errors import FlexcError, UsageError, did_you_mean, raise_all

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Feed = dict[str, "Array"]
"""One window: an array for every input of the model."""


@dataclass(frozen=True)
class InputSpec:
    """What a model input takes: a static shape, a dtype and, for token indices, how many values are known."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    vocabulary: int | None = None

    @property
    def size(self) -> int:
        """Elements of one window."""
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name} {list(self.shape)}"


@dataclass(frozen=True)
class _Source:
    """One file's array, viewed as windows [count, *shape] of one input."""

    spec: InputSpec
    where: str
    windows: Array

    def window(self, index: int) -> Array:
        """Return window `index`, checked and in the input's dtype; a single window serves for every index."""
        raw = np.asarray(self.windows[index if len(self.windows) > 1 else 0])
        with np.errstate(over="ignore"):
            window = np.ascontiguousarray(raw.astype(self.spec.dtype)).reshape(self.spec.shape)
        problem = _value_problem(self.spec, raw, window)
        if problem:
            raise FlexcError(f"window {index}: {problem}", where=self.where)
        return window


@dataclass(frozen=True)
class Feeds:
    """Windows of input data, one :data:`Feed` each; a window is read and checked when it is indexed."""

    sources: tuple[_Source, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Feed:
        if not -self.count <= index < self.count:
            raise IndexError(index)
        return {source.spec.name: source.window(index % self.count) for source in self.sources}

    def __iter__(self) -> Iterator[Feed]:
        return (self[index] for index in range(self.count))

    def first(self, samples: int) -> Feeds:
        """Return at most the first `samples` windows."""
        return Feeds(self.sources, min(self.count, samples))

    def between(self, start: int, stop: int) -> Feeds:
        """Return the windows from `start` to before `stop`, as many as there are; none is left where none is there."""
        cut = slice(start, min(stop, self.count))
        sources = (
            replace(source, windows=source.windows[cut]) if len(source.windows) > 1 else source
            for source in self.sources
        )
        return Feeds(tuple(sources), max(0, cut.stop - start))


def windows(inputs: Sequence[InputSpec], files: Path | str | Mapping[str, Path | str]) -> Feeds:
    """Cut the arrays of `files` into windows for the model's `inputs`.

    Args:
        inputs: every input of the model.
        files: one .npz with an array for each input; or one .npy (a model with one input); or a file for each input.

    An array longer than one input gives several windows: one with a leading sample axis, or a flat integer array
    (a token stream), which is cut without overlap; a rest shorter than a window is left out. Inputs with exactly one
    window (a constant mask, say) repeat it for all.

    Raises:
        UsageError: a name that is no input, or an input without data.
        FlexcError: a file that cannot be read, or that does not fit its input.
    """
    arrays = _named_arrays(inputs, files)
    _check_names(inputs, list(arrays))
    sources = tuple(_source(spec, *arrays[spec.name]) for spec in inputs)
    return Feeds(sources, _common_count(sources))


def random_feed(inputs: Sequence[InputSpec], seed: int) -> Feed:
    """Draw one window of random data: tokens below the vocabulary (or 2), standard normal floats, true and false."""
    rng = np.random.default_rng(seed)
    return {spec.name: _random_array(spec, rng) for spec in inputs}


def random_feeds(inputs: Sequence[InputSpec], count: int, seed: int) -> Feeds:
    """Draw windows of random data, see :func:`random_feed`; as many as asked for, or as fit a gigabyte."""
    size = sum(spec.size * spec.dtype.itemsize for spec in inputs)
    count = max(1, min(count, _RANDOM_BYTES // max(1, size)))
    drawn = [random_feed(inputs, seed + index) for index in range(count)]
    sources = (_Source(spec, "random data", np.stack([feed[spec.name] for feed in drawn])) for spec in inputs)
    return Feeds(tuple(sources), count)


_RANDOM_BYTES = 1 << 30


def _random_array(spec: InputSpec, rng: np.random.Generator) -> Array:
    if spec.dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(spec.dtype)
    return rng.integers(0, spec.vocabulary or 2, spec.shape).astype(spec.dtype)


def _named_arrays(
    inputs: Sequence[InputSpec], files: Path | str | Mapping[str, Path | str]
) -> dict[str, tuple[str, Array]]:
    """Open the files: input name -> (where the array comes from, the array)."""
    if isinstance(files, Mapping):
        return {name: (str(path), _load_single(Path(path))) for name, path in files.items()}
    path = Path(files)
    loaded = _load(path)
    if isinstance(loaded, dict):
        named = _adopt_single(inputs, loaded)
        return {name: (f"{path}[{name}]", array) for name, array in named.items()}
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise UsageError(f"one array for {len(inputs)} inputs", where=str(path), remedy=f"give a .npz naming {names}")
    return {inputs[0].name: (str(path), loaded)}


def _adopt_single(inputs: Sequence[InputSpec], loaded: dict[str, Array]) -> dict[str, Array]:
    """Let the only array of an archive, when numpy named it itself, serve the only input."""
    if len(inputs) == 1 and list(loaded) == ["arr_0"]:
        return {inputs[0].name: loaded["arr_0"]}
    return loaded


def _load_single(path: Path) -> Array:
    """Read a file that must hold one array."""
    loaded = _load(path)
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) != 1:
        raise FlexcError(f"holds {len(loaded)} arrays, one is needed", where=str(path), remedy="save it as .npy")
    return next(iter(loaded.values()))


def _load(path: Path) -> Array | dict[str, Array]:
    """Read a .npy (memory-mapped) or all of a .npz, with every way to fail as one clear line."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise FlexcError("no such file", where=str(path)) from None
    except OSError as error:
        raise FlexcError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        remedy = "save it with numpy.save or numpy.savez, without pickled objects"
        raise FlexcError("not a readable .npy or .npz file", where=str(path), remedy=remedy) from None


def _check_names(inputs: Sequence[InputSpec], given: Sequence[str]) -> None:
    """Every input needs data, and all data needs an input."""
    known = [spec.name for spec in inputs]
    problems: list[FlexcError] = []
    for name in given:
        if name not in known:
            remedy = did_you_mean(name, known) or f"inputs: {', '.join(known)}"
            problems.append(UsageError(f"the model has no input '{name}'", remedy=remedy))
    missing = [spec for spec in inputs if spec.name not in given]
    problems.extend(UsageError(f"no data for input '{spec.name}' ({spec})") for spec in missing)
    raise_all(problems)


def _source(spec: InputSpec, where: str, array: Array) -> _Source:
    """View `array` as windows [count, *] of the input, without copying it."""
    _check_dtype(spec, where, array)
    if array.ndim and array.size == max(array.shape) and array.dtype.kind in "iub":
        return _Source(spec, where, _cut_flat(spec, where, array.reshape(-1)))
    if array.shape == spec.shape:
        return _Source(spec, where, array[np.newaxis])
    if array.shape[1:] == spec.shape and len(array):
        return _Source(spec, where, array)
    batch = spec.shape[0] if spec.shape else 0
    if batch and array.ndim and array.shape[1:] == spec.shape[1:] and len(array) and len(array) % batch == 0:
        return _Source(spec, where, array.reshape(-1, *spec.shape))
    raise FlexcError(
        f"shape {list(array.shape)} does not fit input '{spec.name}' ({spec})",
        where=where,
        remedy=f"give {list(spec.shape)}, several of these along a leading axis, or a flat token stream",
    )


def _cut_flat(spec: InputSpec, where: str, stream: Array) -> Array:
    """Cut a flat integer array into windows [count, size]."""
    count = len(stream) // max(1, spec.size)
    if count == 0:
        raise FlexcError(f"{len(stream)} values, one input '{spec.name}' ({spec}) takes {spec.size}", where=where)
    return stream[: count * spec.size].reshape(count, spec.size)


def _check_dtype(spec: InputSpec, where: str, array: Array) -> None:
    """Integers serve integer and boolean inputs, floats serve floats; nothing is converted across."""
    accepted = {"f": "f", "b": "b", "i": "iu", "u": "iu"}.get(spec.dtype.kind, spec.dtype.kind)
    if array.dtype.kind not in accepted:
        raise FlexcError(f"dtype {array.dtype.name} does not fit input '{spec.name}' ({spec})", where=where)


def _value_problem(spec: InputSpec, raw: Array, window: Array) -> str:
    """Say what is wrong with the values of one window, or nothing."""
    if window.size == 0:
        return ""
    if spec.dtype.kind == "f":
        return "" if np.isfinite(window).all() else f"NaN or infinity for input '{spec.name}'"
    if problem := token_problem(spec, raw):
        return problem
    low, high = int(raw.min()), int(raw.max())
    fits = spec.dtype.kind == "b" or np.iinfo(spec.dtype).min <= low <= high <= np.iinfo(spec.dtype).max
    return "" if fits else f"values {low}..{high} do not fit {spec.dtype.name} of input '{spec.name}'"


def token_problem(spec: InputSpec, tokens: Array) -> str:
    """Say which token is none of the vocabulary, or nothing; negative ones count from its end."""
    if spec.vocabulary is None or not tokens.size:
        return ""
    low, high = int(tokens.min()), int(tokens.max())
    if -spec.vocabulary <= low <= high < spec.vocabulary:
        return ""
    worst = high if high >= spec.vocabulary else low
    return f"token {worst} is outside the vocabulary of {spec.vocabulary} of input '{spec.name}'"


def _common_count(sources: Sequence[_Source]) -> int:
    """All inputs must give the same number of windows, or one that is repeated."""
    counts = {len(source.windows) for source in sources} - {1}
    if len(counts) > 1:
        listed = ", ".join(f"{source.spec.name}: {len(source.windows)}" for source in sources)
        raise FlexcError(f"the inputs hold different numbers of windows ({listed})")
    return counts.pop() if counts else 1

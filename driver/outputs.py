"""What becomes of outputs while windows run: saved to a file, summed up; never all held in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flexc.emulation import Arrays
from flexc.emulator.memory import NUMPY_TYPES
from flexc.isa.errors import FlexcError
from flexc.isa.program import Tensor


class Archive:
    """Collects outputs of all windows in a .npz file, which appears complete or not at all.

    Every array is first written to a file of its own beside the target, as the windows come.
    """

    def __init__(self, path: str | Path, outputs: Sequence[Tensor], windows: int) -> None:
        """Make room for the outputs.

        Raises:
            FlexcError: the folder cannot be written.
        """
        self._path = Path(path)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._arrays = {each.name: self._array(place, each, windows) for place, each in enumerate(outputs)}
        except OSError as error:
            self.discard()
            raise self._unwritable(error) from None

    def _array(self, place: int, tensor: Tensor, windows: int) -> np.memmap[Any, Any]:
        shape = (windows, *tensor.shape)
        file = self._folder / f"{place}.npy"
        return np.lib.format.open_memmap(file, "w+", dtype=NUMPY_TYPES[tensor.dtype], shape=shape)

    def sink(self, start: int, _inputs: Arrays, outputs: Arrays) -> None:
        """Take the outputs of a batch."""
        for name, values in outputs.items():
            self._arrays[name][start : start + len(values)] = values

    def close(self) -> None:
        """Write the file.

        Raises:
            FlexcError: it cannot be written.
        """
        try:
            packed = self._folder / "packed"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
                for place, (name, array) in enumerate(self._arrays.items()):
                    array.flush()
                    entry = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)  # no time of day in it
                    with (self._folder / f"{place}.npy").open("rb") as source, entry as target:
                        shutil.copyfileobj(source, target, 1 << 22)
            packed.replace(self._path)
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove everything that is not finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unwritable(self, error: OSError) -> FlexcError:
        return FlexcError(f"cannot be written: {error.strerror or error}", where=str(self._path))


class Summary:
    """Least, greatest and mean value of every output over all windows."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self._tensors = tuple(outputs)
        self._seen: dict[str, tuple[float, float, float, int]] = {}

    def sink(self, _start: int, _inputs: Arrays, outputs: Arrays) -> None:
        """Take the outputs of a batch."""
        for name, values in outputs.items():
            if not values.size:
                continue
            low, high, total, number = self._seen.get(name, (np.inf, -np.inf, 0.0, 0))
            mass = float(values.sum(dtype=np.float64))
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            self._seen[name] = (low, high, total + mass, number + values.size)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each output."""
        rows = []
        for tensor in self._tensors:
            low, high, total, number = self._seen.get(tensor.name, (0.0, 0.0, 0.0, 0))
            numbers = {"min": low, "max": high, "mean": total / max(1, number)}
            rows.append({"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), **numbers})
        return rows

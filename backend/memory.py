"""Where everything lies: constants in the const memory, activations in dram for as long as somebody needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..passes.layout import aligned
from .views import Storage

Bytes = npt.NDArray[np.uint8]
Producer = Callable[[], Iterable[Bytes]]


@dataclass
class Lifetime:
    """A storage of dram, needed from one kernel to another (both included)."""

    storage: Storage
    first: int
    last: int


def allocate(lifetimes: list[Lifetime], first: Sequence[Storage] = ()) -> int:
    """Give every storage an address such that none overlaps another alive at the same time; return the bytes in all.

    Those of ``first``, needed throughout, lie at the beginning, in their order. Of the others: first fit, largest
    first; deterministic, and close to the peak of what is alive.
    """
    known = {id(item.storage): item for item in lifetimes}
    placed = [known[id(storage)] for storage in first]
    top = 0
    for storage in first:
        storage.address = top
        top += aligned(storage.size)
    others = [item for item in lifetimes if not any(item is each for each in placed)]
    for item in sorted(others, key=lambda each: (-each.storage.size, each.first, each.storage.name)):
        address = 0
        alive = (other for other in placed if other.first <= item.last and item.first <= other.last)
        for other in sorted(alive, key=lambda each: each.storage.address):
            if address + aligned(item.storage.size) <= other.storage.address:
                break
            address = max(address, other.storage.address + aligned(other.storage.size))
        item.storage.address = address
        placed.append(item)
        top = max(top, address + aligned(item.storage.size))
    return top


class ConstImage:
    """The const memory: weights first, other constants after; contents are made when the image is written."""

    def __init__(self) -> None:
        self._weights: list[tuple[Storage, Producer]] = []
        self._others: list[tuple[Storage, Producer]] = []

    def add(self, name: str, size: int, producer: Producer, *, weights: bool = False) -> Storage:
        """Return a storage of ``size`` bytes whose content ``producer`` yields piece by piece."""
        storage = Storage(name, "const", size)
        (self._weights if weights else self._others).append((storage, producer))
        return storage

    def place(self) -> tuple[int, int]:
        """Give every storage its address; return (bytes of weights, bytes in all)."""
        top, weight_bytes = 0, 0
        for part in (self._weights, self._others):
            for storage, _ in part:
                storage.address = top
                top += aligned(storage.size)
            weight_bytes = weight_bytes or top
        return (weight_bytes if self._weights else 0), top

    def write(self, image: Bytes) -> None:
        """Fill the image, one storage after the other."""
        for storage, producer in (*self._weights, *self._others):
            place = storage.address
            for piece in producer():
                image[place : place + piece.size] = piece
                place += piece.size
            assert place - storage.address == storage.size, f"{storage.name}: content and size differ"

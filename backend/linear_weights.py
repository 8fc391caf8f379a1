"""A linear's weights in the const memory: column group by column group, scales and biases first, then the tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..passes.layout import aligned
from ..passes.mapping import Mapping
from .pack import Bytes, Codes, pack_tiles

Floats = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Weights:
    """INT8 codes [n, k] in lowered order, with the scale and the bias of every row; made only when needed.

    Where the sums leave as they are there are no scales, and zeros lie in their place.
    """

    codes: Callable[[], Codes]
    scales: Callable[[], Floats] | None
    bias: Callable[[], Floats] | None

    def image(self, mapping: Mapping, parts: int = 1) -> Iterator[Bytes]:
        """Yield the bytes of every column group of every part: ``parts`` linears of mapping.shape.n rows each."""
        codes = self.codes()
        scales = self.scales() if self.scales else np.zeros(len(codes), np.float32)
        bias = self.bias() if self.bias else np.zeros_like(scales)
        n = mapping.shape.n
        for part in range(parts):
            own = slice(part * n, (part + 1) * n)
            for group in range(mapping.col_groups):
                yield group_image(mapping, group, codes[own], scales[own], bias[own])


def group_image(mapping: Mapping, group: int, codes: Codes, scales: Floats, bias: Floats) -> Bytes:
    """Return the bytes of one column group of a linear with codes [n, k]."""
    image = np.zeros(mapping.group_bytes, np.uint8)
    floats = np.concatenate([_of_group(mapping, group, each) for each in (scales, bias)])
    image[: floats.nbytes] = floats.view(np.uint8)
    padded = np.zeros((mapping.columns, mapping.k_padded), np.int8)
    padded[:, : codes.shape[1]] = _of_group(mapping, group, codes)
    tiles = padded.reshape(mapping.macros, 32, mapping.steps, mapping.slices, mapping.depth).transpose(2, 3, 0, 1, 4)
    flat = np.ascontiguousarray(tiles).reshape(-1, 32, mapping.depth)
    packed = pack_tiles(flat, mapping.pattern, mapping.blocks).reshape(-1)
    start = aligned(mapping.scale_bytes)
    image[start : start + packed.size] = packed
    return image


def _of_group(mapping: Mapping, group: int, array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return what belongs to the columns of a group, branch by branch, from [n, ...]; zeros stand for missing ones."""
    branches, wide, rest = mapping.shape.branches, mapping.branch_columns, array.shape[1:]
    own = array.reshape(branches, -1, *rest)[:, group * wide : (group + 1) * wide]
    padded = np.zeros((branches, wide, *rest), array.dtype)
    padded[:, : own.shape[1]] = own
    return padded.reshape(-1, *rest)

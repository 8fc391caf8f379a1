"""Emitting the row work of a tail on one piece of an array kernel's results, or on some whole rows of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..isa.streams import Stream
from .boxes import Box
from .code import Builder, Loop, Pending, Semaphores, Tree, window
from .row_chunk import RowChunk

if TYPE_CHECKING:
    from .row_kernel import Access
    from .tail_kernel import TailKernel


class TailChunk(RowChunk):
    """The code of one chunk, inside loops of the array kernel.

    The results lie in the buffer from ``results[0]`` on: those of the ``results[1]`` innermost loops of the box one
    after the other, those of the loops around these in the same place. Chunks of another size that take turns with a
    chunk (``like``) lie where that lies.
    """

    def __init__(
        self,
        kernel: TailKernel,
        builder: Builder,
        box: Box,
        loops: Sequence[Loop],
        results: tuple[int, int],
        like: TailChunk | None = None,
    ) -> None:
        super().__init__(kernel, builder, box, kernel.moving, loops)
        self.tail, (self.address, self.within), self.like = kernel, results, like
        self.place.update({id(access): 0 for access in kernel.given})
        self.reserved: list[tuple[int, int, int]] = []
        #: What comes once for all turns of the loops inside a chunk of whole rows.
        self.kept: list[Pending] = []

    def dry_run(self) -> tuple[list[Pending], list[Pending], list[Pending]]:
        """Make room for everything and note the vector code; return the loads before and in the loops, and the stores.

        Raises:
            DoesNotFit: the buffer is too small.
        """
        self.held.update({access: self._inside(access) for access in self.tail.given})
        if self.within > 1:
            inner = [strides for count, strides in self.box.loops[1 - self.within :] if count > 1]
            same = [each for each in self.kernel.loads if not any(own[self.place[id(each)]] for own in inner)]
            self.kept = [self._load(each, moving=False) for each in same if inner and self._moves(each)]
        return super().dry_run()

    def begin(self) -> tuple[list[Pending], list[Pending]]:
        """Write what comes in once, and return what comes and goes over and over; the vector code is in ``code``."""
        loads, stores = self._begin()
        if self.kept:
            self.kept[0].wait(Semaphores.EMPTY["in"][0])
            self.kept[-1].post(Semaphores.HELD_FULL)
        return loads, stores

    def around(self, turns: Tree) -> Tree:
        """Return the loops inside a chunk with what the vector unit waits for and gives back."""
        if not self.kept:
            return turns
        ready, done = (Pending("sync", {}, {"engine": "vector"}) for _ in range(2))
        return [ready.wait(Semaphores.HELD_FULL), *turns, done.post(Semaphores.EMPTY["in"][0])]

    def _inside(self, access: Access) -> Stream:
        """Return the stream on results in the buffer."""
        shape = self._extent(access)
        if not self.tail.tail.whole:
            columns, _ = self.tail.layout.inner[0]
            branch = access.view.offset // (columns * access.view.itemsize)
            size = self.box.rows * self.box.cols * access.view.itemsize
            return window("buf", access.view.dtype, self.address + branch * size, shape)
        loops = list(zip(self.loops, self.box.loops, strict=True))[len(self.loops) - self.within :]
        steps = [step for loop, (_, strides) in loops for step in loop.step(strides[0])]
        pitch = (self.box.row_strides[0], access.col_stride)
        return window("buf", access.view.dtype, self.address + access.view.offset, shape, pitch, steps)

    def _reserve(self, size: int, slots: int = 1) -> tuple[int, int]:
        taken = self.like.reserved[len(self.reserved) :] if self.like is not None else []
        if taken and size <= taken[0][1] and slots <= taken[0][2]:
            self.reserved.append(taken[0])
        else:
            self.reserved.append((*super()._reserve(size, slots), slots))
        return self.reserved[-1][:2]

"""Which row work goes on in the kernel of an array operation: both ways are planned, and the faster one is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..passes.mapping import TOLERATED
from ..passes.partition import Kernel
from ..passes.tails import HEADS, Split, Tails, saved
from .code import DoesNotFit
from .context import Context
from .conv_kernel import ConvKernel
from .linear_kernel import CellAllocator, LinearKernel
from .product_kernel import ProductKernel
from .row_kernel import RowKernel
from .tail_kernel import Unfusable
from .views import View


class _Costed(Protocol):
    def cycles(self) -> int:
        """Return about how many cycles it takes."""
        ...


class _Imagined(Context):
    """What is planned on trial: nothing that it places is kept.

    Values that nothing has placed yet lie densely, as the results of a convolution do if ``images`` says so.
    """

    def __init__(self, context: Context, *, images: bool) -> None:
        super().__init__(context.machine, bordered=context.bordered, kernel=context.kernel)
        self.before, self.images = context.views, images

    def view(self, value: ir.Value) -> View:
        if value not in self.views and value.const_value is None:
            known = self.before.get(value)
            if known is not None:
                self.set(value, known)
            else:
                self.output(value, [0, 2, 3, 1] if self.images and len(shape_of(value)) == 4 else None)
        return super().view(value)


class Fusion:
    """Joins row work to the array kernels before it while these are planned, one after the other."""

    def __init__(self, kernels: Sequence[Kernel], context: Context, apart: Collection[ir.Node]) -> None:
        """Look at kernels in the order they run; ``apart`` are first nodes of array kernels that stay alone."""
        self.tails, self.context, self.apart = Tails(kernels), context, apart

    def kernels(self) -> Iterator[tuple[int, Kernel]]:
        """Yield the kernels, each with its place; what came before must have been planned."""
        for place in range(len(self.tails.kernels)):
            head = self.tails.kernels[place]
            if head.kind in HEADS and head.nodes[0] not in self.apart:
                split = self._best(head, list(self.tails.of(place)))
                if split is not None:
                    self.tails.choose(place, split)
            if self.tails.kernels[place].nodes:
                yield place, self.tails.kernels[place]

    def _best(self, head: Kernel, splits: Sequence[Split]) -> Split | None:
        """Return the way to divide a row kernel that is fastest, or None where it should stay whole.

        Where work by pieces is as fast as work apart, as far as the estimate can tell, it is taken if it saves traffic.
        """
        if not splits:
            return None
        limit = self._cycles(head, splits[0].row)
        costs = [(self._cycles(split.kernel, split.rest), place) for place, split in enumerate(splits)]
        cost, place = min(costs)
        if cost < limit:
            return splits[place]
        (cycles, _), first = costs[0], splits[0]
        even = cycles <= (1 + TOLERATED) * limit and first.kernel.tail is not None and not first.kernel.tail.whole
        return first if even and saved(first) > 0 else None

    def _cycles(self, head: Kernel, row: Kernel | None) -> float:
        """Return about how long an array kernel and a row kernel after it take; infinity if one cannot be."""
        context = _Imagined(self.context, images=head.kind == "conv")
        try:
            array = _MAKERS[head.kind](head, context, CellAllocator(context.machine)).cycles()
            return array + (RowKernel(row, context).cycles() if row is not None else 0)
        except (DoesNotFit, Unfusable):
            return math.inf


_MAKERS: dict[str, Callable[[Kernel, Context, CellAllocator], _Costed]] = {
    "linear": LinearKernel,
    "conv": ConvKernel,
    "product": ProductKernel,
}

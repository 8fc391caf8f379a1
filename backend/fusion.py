"""Which row work goes on in the kernel of an array operation: both ways are planned, and the faster one is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..passes.mapping import TOLERATED
from ..passes.partition import Kernel
from ..passes.pattern import covering
from ..passes.rows import operand
from ..passes.tails import HEADS, Split, Tails, saved
from .code import DoesNotFit
from .context import Context
from .conv_kernel import ConvKernel
from .linear_kernel import CellAllocator, LinearKernel, pattern_of
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
                split = self._together(place) or self._alone(self.tails, place)
                if split is not None:
                    self.tails.choose(place, split)
            if self.tails.kernels[place].nodes:
                yield place, self.tails.kernels[place]

    def _alone(self, tails: Tails, place: int) -> Split | None:
        """Return how the kernel at a place should go on by itself, or None where it should not."""
        splits = list(tails.of(place))
        return self._best(splits, self._cycles(tails.kernels[place], splits[0].row)) if splits else None

    def _together(self, place: int) -> Split | None:
        """Return how linears of the same vectors should go on as one kernel, or None where each runs for itself."""
        places = self.tails.together(place)
        splits = list(self.tails.of(*places)) if places else []
        return self._best(splits, self._one_by_one(places, splits[0].row)) if splits else None

    def _one_by_one(self, places: Sequence[int], row: Kernel | None) -> float:
        """Return about how long array kernels and the row kernel after them take where each goes on by itself."""
        tails, total = self.tails.copy(), 0.0
        for place in places:
            split = self._alone(tails, place)
            if split is not None:
                tails.choose(place, split)
                row = split.rest
            total += self._cycles(tails.kernels[place], None)
        return total + self._cycles(None, row)

    def _best(self, splits: Sequence[Split], limit: float) -> Split | None:
        """Return the way to divide a row kernel that is fastest, or None where all take longer than ``limit`` cycles.

        Where work by pieces is as fast as work apart, as far as the estimate can tell, it is taken if it saves traffic.
        What weights of different patterns take more in a common one must be saved in either case.
        """
        costs = [(self._cycles(split.kernel, split.rest), place) for place, split in enumerate(splits)]
        cost, place = min(costs)
        more = 0 if self.context.machine.array.resident else _widened(splits[0].kernel)
        if cost < limit and more <= max(0, saved(splits[place])):
            return splits[place]
        (cycles, _), first = costs[0], splits[0]
        even = cycles <= (1 + TOLERATED) * limit and first.kernel.tail is not None and not first.kernel.tail.whole
        return first if even and saved(first) > more else None

    def _cycles(self, head: Kernel | None, row: Kernel | None) -> float:
        """Return about how long an array kernel and a row kernel after it take; infinity if one cannot be."""
        context = _Imagined(self.context, images=head is not None and head.kind == "conv")
        try:
            array = 0 if head is None else _MAKERS[head.kind](head, context, CellAllocator(context.machine)).cycles()
            return array + (RowKernel(row, context).cycles() if row is not None else 0)
        except (DoesNotFit, Unfusable):
            return math.inf


def _widened(kernel: Kernel) -> int:
    """Return the bytes that weights of linears that run together take more than each in its own pattern."""
    products = [chain[0] for chain in kernel.chains]
    patterns = [pattern_of(product) for product in products]
    if len(set(patterns)) == 1:
        return 0
    k, n = shape_of(operand(products[0], 1))
    together = covering(patterns).stored_bits(k)
    return n * sum(together - each.stored_bits(k) for each in patterns) // 8


_MAKERS: dict[str, Callable[[Kernel, Context, CellAllocator], _Costed]] = {
    "linear": LinearKernel,
    "conv": ConvKernel,
    "product": ProductKernel,
}

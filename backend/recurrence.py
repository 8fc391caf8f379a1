"""Recurrences over rows: turns of a loop whose work is one row kernel, what they hand on kept in the buffer.

Every row goes through all turns by itself, so the rows are cut into chunks as in any row kernel, and the turns are the
innermost loop: while the vector unit works on one turn, one DMA channel brings the slices of the next and the other
takes the results of the last one away. States never leave the buffer between turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.operators import OPERATORS
from ..passes.partition import Kernel, leaves
from ..passes.repeat import Made, Repetition
from ..passes.rows import output_form
from .boxes import Box
from .code import Builder, DoesNotFit
from .context import Context
from .loop_kernel import Irregular, evenly
from .row_kernel import Access, RowKernel, Source, wide_access
from .turn_chunk import TurnChunk
from .views import View


def in_rows(kernel: Kernel) -> bool:
    """Return whether a loop's turns are one row kernel that reads row by row what it hands on."""
    repetition = kernel.repetition
    if repetition is None or [each.kind for each in kernel.body] != ["row"]:
        return False
    forms = dict(kernel.body[0].forms)
    made = {made: value for value, made in repetition.made().items()}
    for each in repetition.carried:
        if made[each] not in forms:
            return False
        forms[repetition.values(each)[0]] = forms[made[each]]
    nodes = kernel.body[0].nodes
    known = {value: forms[value] for value in (repetition.values(each)[0] for each in repetition.carried)}
    for node in nodes:
        form = output_form(node, OPERATORS[node.op_type].kind, known)
        if form != forms[node.outputs[0]]:
            return False
        known[node.outputs[0]] = form
    return True


class Recurrence(RowKernel):
    """Plans and emits one loop over turns of a row kernel."""

    def __init__(self, kernel: Kernel, repetition: Repetition, context: Context) -> None:
        """Plan the loop.

        Raises:
            Irregular: the turns do not lie evenly in memory, or do not fit the buffer.
        """
        self.repetition, self.nodes = repetition, set(kernel.nodes)
        self.count = len(repetition.turns)
        self.outside = repetition.outside()
        #: What the template reads of the turn before, and what it hands on in that place.
        self.states = {
            repetition.values(made)[0]: repetition.template[made[0]].outputs[made[1]] for made in repetition.carried
        }
        self.finals: dict[ir.Value, Access] = {}
        self.first = kernel.nodes[0]
        super().__init__(kernel.body[0], context)
        self.starts = {
            value: self._start(self.states[value], repetition.carried[made], context)
            for made in repetition.carried
            for value in [repetition.values(made)[0]]
        }
        self.loads += [each for each in self.starts.values() if isinstance(each, Access) and each not in self.loads]
        moved = any(len(set(self.outside.get(value, []))) > 1 for value in self.copied)
        if moved or not self._fits(1, self._most_cols() if self.pure else 0):  # a copy is made once, not every turn
            raise Irregular(self.first)

    def _find_roots(self) -> dict[ir.Value, ir.Value]:
        return {value: value for value in self.states} | super()._find_roots()

    def _access(self, node: ir.Node, value: ir.Value, view: View, context: Context) -> Access:
        turns = self.outside.get(value)
        if turns is None or len(set(turns)) == 1:
            return super()._access(node, value, view, context)
        even = evenly([context.view(each) for each in turns])
        if even is None:
            raise Irregular(self.first)
        return replace(super()._access(node, value, even[0], context), by=even[1])

    def _start(self, made: ir.Value, start: ir.Value, context: Context) -> Source:
        """Return what the first turn reads: a number, where the same one stands everywhere, or where it lies."""
        tensor = start.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
            numbers = tensor.numpy().reshape(-1)
            if np.all(numbers.view(np.int32) == numbers.view(np.int32)[0]):
                return float(numbers[0])
        view = context.view(start)
        return wide_access(view, view.shape, bare=self.forms[made].bare)

    def _plan_outputs(self, context: Context) -> dict[ir.Value, Access]:
        stores: dict[ir.Value, Access] = {}
        for value, made in self.repetition.made().items():
            turns = [t for t, each in enumerate(self.repetition.values(made)) if leaves(each, self.nodes)]
            if turns:
                self._leave(value, made, stores if turns != [self.count - 1] else self.finals, context)
        for root in set(stores) & set(self.finals):
            del self.finals[root]
        return stores

    def _leave(self, value: ir.Value, made: Made, kept: dict[ir.Value, Access], context: Context) -> None:
        """Give a value room in DRAM: a slot a turn, or one where only the last turn's is read."""
        root = self.roots[value]
        if root not in kept:
            view = context.output(root, self._order(root))
            size = view.storage.size
            by = 0 if kept is self.finals else size
            view.storage.size = size * self.count if by else size
            kept[root] = replace(wide_access(view, view.shape, bare=self.forms[root].bare), by=by)
        for turn, each in enumerate(self.repetition.values(made)):
            seen = kept[root].view.reshape(shape_of(value))
            assert seen is not None
            context.set(each, replace(seen, offset=seen.offset + turn * kept[root].by))

    def _accesses(self) -> list[Access]:
        return [*self.loads, *self.stores.values(), *self.finals.values()]

    def _chunk(self, builder: Builder, box: Box, accesses: Sequence[Access]) -> TurnChunk:
        return TurnChunk(self, builder, box, accesses)

    def _chunk_rows(self, rows: int, cols: int) -> int:
        """Return how many rows a chunk has: as many as fit, since every chunk goes through all turns."""
        if not self._fits(1, cols):
            raise DoesNotFit("one row of the recurrence is larger than the buffer")
        low, high = 1, rows + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle, cols) else (low, middle)
        return low

    def emit(self, builder: Builder) -> None:
        """Write the kernel's code; its taps name the value of every turn."""
        taps = len(builder.taps)
        super().emit(builder)
        names = {
            str(value.name): tuple(str(each.name) for each in self.repetition.values(made))
            for value, made in self.repetition.made().items()
        }
        builder.taps[taps:] = [replace(tap, names=names[tap.value]) for tap in builder.taps[taps:]]

    def in_place(self, value: ir.Value) -> bool:
        """Return whether a state's next value may be written over it: when nothing reads the old one any more."""
        made = self.roots[self.states[value]]
        if made in self.stores or list(map(self.roots.get, self.states.values())).count(made) > 1:
            return False
        place = next(place for place, node in enumerate(self.kernel.nodes) if node.outputs[0] is made)
        return all(value not in sources for sources in self.sources[place:])

"""States: what a run leaves in the place of its input is what the next one finds there."""

from __future__ import annotations

import onnx_ir as ir

from ..frontend.states import STATE_KEY
from ..isa.program import State
from .context import Context
from .moves import Copy, CopyKernel
from .views import Storage, View


class States:
    """The states of a graph; the first storages of DRAM are theirs, in the order of the inputs.

    So programs of one model for different steps, whose states are equal, have them in the same place.
    """

    def __init__(self, graph: ir.Graph, context: Context) -> None:
        outputs = {str(value.name): value for value in graph.outputs}
        self.context, self.outputs = context, list(graph.outputs)
        self._copies: dict[ir.Value, Copy] = {}
        self.pairs = {
            outputs[name]: value
            for value in graph.inputs
            if (name := value.metadata_props.get(STATE_KEY, "")) in outputs
        }

    def storages(self) -> list[Storage]:
        """Return where the states lie."""
        return [self.context.views[value].storage for value in self.pairs.values()]

    def declared(self) -> tuple[State, ...]:
        """Return the states of the program."""
        return tuple(State(str(before.name), str(after.name)) for after, before in self.pairs.items())

    def place(self, output: ir.Value) -> View:
        """Return where an output lies when the program has ended."""
        return self.context.views[self.pairs[output]] if output in self.pairs else self._apart(output)[1]

    def finish(self) -> list[CopyKernel]:
        """Return what brings every state that was not changed in place there, once all has been computed.

        First come copies of outputs that lie where a state is to be, then the states.
        """
        aside = [copy for output in self.outputs for copy in [self._apart(output)] if copy[0] != copy[1]]
        home: list[Copy] = [
            (self._apart(output)[1], self.context.views[before])
            for output, before in self.pairs.items()
            if not self._in_place(output)
        ]
        return [CopyKernel(aside), CopyKernel(home)]

    def _in_place(self, output: ir.Value) -> bool:
        before, after = self.context.views[self.pairs[output]], self.context.view(output)
        strides = [
            [stride for stride, size in zip(view.strides, view.shape, strict=True) if size > 1]
            for view in (before, after)
        ]
        return (before.storage, before.offset) == (after.storage, after.offset) and strides[0] == strides[1]

    def _apart(self, output: ir.Value) -> Copy:
        """Return where an output is made, and where it lies apart from all states but its own."""
        if output not in self._copies:
            view = self.context.view(output)
            own = output in self.pairs and self._in_place(output)
            shared = view.storage in self.storages() and not own
            self._copies[output] = (view, self._room(output, view) if shared else view)
        return self._copies[output]

    def _room(self, output: ir.Value, view: View) -> View:
        storage = self.context.scratch(f"{output.name}/apart", max(1, view.size) * view.itemsize)
        return View.dense(storage, view.dtype, view.shape)

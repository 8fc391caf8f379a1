"""Loops over nodes: the turns of a repetition as one hardware loop around the kernels of a single turn.

The kernels are planned for the template turn. What differs from turn to turn is where values lie: slices of common
tensors lie evenly anyway, results that are needed later get a slot a turn, and what one turn hands to the next goes
from slot to slot. Kernels see such storages at addresses that the builder resolves (:class:`Moving`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..passes.partition import Kernel, leaves
from ..passes.repeat import Made, Repetition
from .code import MOVING, Builder, DoesNotFit, Moving
from .context import Context, machine_dtype
from .moves import Copy, CopyKernel
from .views import Storage, View


class Irregular(Exception):
    """A repetition whose turns do not lie evenly in memory, named by its first node: it must stay unrolled."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node


class Lowering(Protocol):
    """A planned kernel."""

    def emit(self, builder: Builder) -> None:
        """Write its code."""
        ...


@dataclass
class _Slots:
    """Room for a storage of the template in every turn: ``shift`` is the slot that the first turn writes."""

    room: Storage
    size: int
    shift: int
    period: int

    def view(self, view: View, turn: int) -> View:
        """Return a view of the template's storage as it is in a turn."""
        slot = (turn + self.shift) % self.period if self.period else turn + self.shift
        return replace(view, storage=self.room, offset=view.offset + slot * self.size)


class LoopKernel:
    """Plans and emits a loop over nodes."""

    def __init__(
        self, kernel: Kernel, repetition: Repetition, context: Context, plan: Callable[[Kernel], Lowering]
    ) -> None:
        """Plan the loop.

        Raises:
            Irregular: the turns cannot be one loop.
        """
        self.kernel, self.repetition, self.context = kernel, repetition, context
        self.count = len(repetition.turns)
        self.moving: list[Moving] = []
        self.first: list[Copy] = []
        self.last: list[Copy] = []
        before = dict(context.views)
        outside = {value: self._outside(value, turns) for value, turns in repetition.outside().items()}
        self.states = {made: self._state(made) for made in repetition.carried}
        context.views.update(outside)
        known = set(context.lifetimes)
        try:
            self.body = [plan(each) for each in kernel.body]
        except DoesNotFit as reason:
            raise Irregular(kernel.nodes[0]) from reason
        self.own = {id(lifetime.storage) for each, lifetime in context.lifetimes.items() if each not in known}
        self._place_results()
        context.views.update({value: before[value] for value in outside})

    def _irregular(self) -> Irregular:
        return Irregular(self.kernel.nodes[0])

    def _outside(self, value: ir.Value, turns: list[ir.Value]) -> View:
        """Return how the kernels of the template see what every turn reads in place of one of its values."""
        even = evenly([self.context.view(each) for each in turns])
        if even is None:
            raise self._irregular()
        first, by = even
        if not by:
            return first
        return replace(first, storage=self._virtual(str(value.name), first.storage.space, Moving(first.storage, 0, by)))

    def _virtual(self, name: str, space: str, moving: Moving) -> Storage:
        self.moving.append(moving)
        return Storage(name, space, moving.storage.size, len(self.moving) * MOVING)

    def _state(self, made: Made) -> View:
        """Return where the kernels of the template read what the turn before hands on; it is placed later."""
        value = self.repetition.values(made)[0]
        view = View.dense(Storage(f"{value.name}/before", "dram", 0), machine_dtype(value), shape_of(value))
        view.storage.size = max(1, view.size) * view.itemsize
        return self.context.set(value, view)

    def _place_results(self) -> None:
        """Give room in memory to everything that another turn or another kernel reads."""
        carried: dict[int, list[Made]] = {}
        for made in self.states:
            view = self._template_view(made)
            if id(view.storage) in self.own and _is_whole(view) and id(view.storage) not in carried:
                carried[id(view.storage)] = [made]
            else:
                self._copied(made, view)
        leaving = {made: turns for made in self.repetition.made().values() if (turns := self._leaving(made))}
        groups: dict[int, list[Made]] = {}
        for made in leaving:
            groups.setdefault(id(self._template_view(made).storage), []).append(made)
        for storage in dict.fromkeys([*carried, *groups]):
            self._spread(storage, carried.get(storage, []), {made: leaving[made] for made in groups.get(storage, [])})

    def _template_view(self, made: Made) -> View:
        return self.context.views[self.repetition.template[made[0]].outputs[made[1]]]

    def _leaving(self, made: Made) -> list[int]:
        """Return the turns in which something outside reads a value."""
        own = set(self.kernel.nodes)
        return [turn for turn, value in enumerate(self.repetition.values(made)) if leaves(value, own)]

    def _copied(self, made: Made, view: View) -> None:
        """Let every turn end with a copy of what it hands on, where it does not lie as the next turn reads it."""
        state = self.states[made]
        room = self.context.scratch(state.storage.name, state.storage.size)
        moving = self._virtual(room.name, "dram", Moving(room, 0, 0))
        state.storage.address = moving.address
        self.last.append((view, replace(state, storage=room)))
        self.first.append((self.context.view(self.repetition.carried[made]), replace(state, storage=room)))

    def _spread(self, storage: int, carried: list[Made], leaving: dict[Made, list[int]]) -> None:
        """Turn a storage of the template into slots: one a turn, or two in turn, or none where only the last counts."""
        view = self._template_view((carried or list(leaving))[0])
        if storage not in self.own:
            raise self._irregular()
        always = any(turns != [self.count - 1] for turns in leaving.values())
        slots = self._slots(view.storage, carried, always=always) if always or carried else None
        for made in leaving:
            template = self._template_view(made)
            for turn, value in enumerate(self.repetition.values(made)):
                if slots is not None:
                    self.context.set(value, slots.view(template, turn))
                elif turn == self.count - 1:
                    self.context.set(value, template)
        if slots is not None:
            by = slots.size if always else -slots.size
            del self.context.lifetimes[storage]
            self.moving.append(Moving(slots.room, slots.shift * slots.size, by, slots.period))
            view.storage.address = len(self.moving) * MOVING
        for made in carried:
            assert slots is not None
            self.moving.append(Moving(slots.room, 0, slots.size, slots.period))
            state = self.states[made]
            state.storage.address = len(self.moving) * MOVING
            self.first.append((self.context.view(self.repetition.carried[made]), replace(state, storage=slots.room)))

    def _slots(self, storage: Storage, carried: list[Made], *, always: bool) -> _Slots:
        shift = 1 if carried else 0
        count = self.count + shift if always else 2
        room = self.context.scratch(f"{storage.name}/turns", count * storage.size)
        return _Slots(room, storage.size, shift, 0 if always else 2)

    def emit(self, builder: Builder) -> None:
        """Write what comes before the first turn, and the loop."""
        CopyKernel(self.first).emit(builder)
        builder.begin_turns(self.count, self.moving)
        taps = len(builder.taps)
        for kernel in self.body:
            kernel.emit(builder)
        CopyKernel(self.last).emit(builder)
        builder.end_turns()
        names = dict(self._names())
        builder.taps[taps:] = [replace(tap, turn=0, names=names[tap.value]) for tap in builder.taps[taps:]]

    def _names(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for value, made in self.repetition.made().items():
            yield str(value.name), tuple(str(each.name) for each in self.repetition.values(made))


def evenly(views: Sequence[View]) -> tuple[View, int] | None:
    """Return the first of views that lie one after the other, and the bytes from one to the next, or None."""
    first = views[0]
    by = views[1].offset - first.offset
    even = all(view == replace(first, offset=first.offset + turn * by) for turn, view in enumerate(views))
    return (first, by) if even else None


def _is_whole(view: View) -> bool:
    """Return whether a view is its storage, without gaps and in the order of its dimensions."""
    return view == View.dense(view.storage, view.dtype, view.shape) and view.size * view.itemsize == view.storage.size

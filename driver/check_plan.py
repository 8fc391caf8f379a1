"""What a check asks: for every value that can be seen in a program, how onnxruntime is to compute it.

A value can be seen where an instruction makes it (a tap) or where it lies in DRAM once its op has run. Each is compared
with the smallest part of the quantised graph that leads to it from values that were seen themselves, so that an error
is found where it happens, and none is inherited.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from flexc.frontend.infer import reads
from flexc.isa.program import Op, Program, Tap, Tensor


@dataclass(frozen=True)
class Question:
    """Values to compute and compare: ``nodes`` lead to ``targets`` from ``inputs``, all values of the quantised graph.

    ``engine`` is where the machine computed them. Nodes on the host are one question, as they are one segment there.
    """

    targets: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    engine: str

    @property
    def name(self) -> str:
        """The node that makes the value, as the graph calls it."""
        return str(self.nodes[-1].name)


@dataclass
class Step:
    """What is to be seen and asked when one op ends, and what is not needed after that."""

    op: Op
    taps: list[Tap] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The steps of a check in the order of the program's ops; ``last`` asks for outputs that are only views."""

    steps: tuple[Step, ...]
    last: tuple[Question, ...]


def make_plan(program: Program, model: ir.Model) -> Plan:
    """Return what to ask about a program that was lowered from `model`."""
    steps = [Step(op) for op in program.debug.ops]
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    _place(steps, program, values)
    slicer = _Slicer(model)
    known = {str(value.name) for value in model.graph.inputs}
    for step in steps:
        seen = _seen(step)
        step.questions = list(slicer.questions(step.op.engine, [values[name] for name in seen], known))
        known |= set(seen)
    outputs = [value for value in model.graph.outputs if str(value.name) not in known]
    last = tuple(slicer.question((value,), known, "none") for value in outputs)
    _forget(steps, last)
    return Plan(tuple(steps), last)


def _place(steps: Sequence[Step], program: Program, values: Mapping[str, ir.Value]) -> None:
    """Give every tap to the op around its instruction, every tensor to the op that carries out its node."""
    alike: dict[int, dict[int, Step]] = {}
    for step in steps:
        alike.setdefault(step.op.first, {})[step.op.iteration] = step
    firsts = sorted(alike)
    for tap in program.debug.taps:
        place = bisect_right(firsts, tap.pc) - 1
        found = alike[firsts[place]].get(tap.iteration) if place >= 0 else None
        if found is not None and tap.pc < found.op.last and all(name in values for name in tap.values):
            found.taps.append(tap)
    makers = {name: step for step in steps for name in step.op.nodes}
    for tensor in program.debug.tensors:
        node = values[tensor.name].producer() if tensor.name in values else None
        if node is not None and node.name in makers:
            makers[node.name].tensors.append(tensor)


def _seen(step: Step) -> list[str]:
    return list(
        dict.fromkeys([*(name for tap in step.taps for name in tap.values), *(tensor.name for tensor in step.tensors)])
    )


def _forget(steps: Sequence[Step], last: Iterable[Question]) -> None:
    """Note after which step each value is no longer needed; what the last questions read stays."""
    needed = {str(value.name): len(steps) for question in last for value in question.inputs}
    for place, step in reversed(list(enumerate(steps))):
        for question in step.questions:
            for value in question.inputs:
                needed.setdefault(str(value.name), place)
        for name in _seen(step):
            needed.setdefault(name, place)
    for name, place in needed.items():
        if place < len(steps):
            steps[place].forget.append(name)


class _Slicer:
    """Cuts questions out of a graph."""

    def __init__(self, model: ir.Model) -> None:
        self._order = {node: place for place, node in enumerate(model.graph)}

    def questions(self, engine: str, seen: Sequence[ir.Value], known: set[str]) -> Iterator[Question]:
        """Yield the questions about the values seen when an op ends."""
        if engine == "host":
            if seen:
                yield self.question(tuple(seen), known, engine)
            return
        here = known | {str(value.name) for value in seen}
        for value in seen:
            yield self.question((value,), here - {str(value.name)}, engine)

    def question(self, targets: tuple[ir.Value, ...], known: set[str], engine: str) -> Question:
        """Return the smallest part of the graph that leads to `targets` from known values."""
        nodes: set[ir.Node] = set()
        inputs: dict[ir.Value, None] = {}
        waiting = list(targets)
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if node is None or node not in self._order or (str(value.name) in known and value not in targets):
                if value.const_value is None:
                    inputs[value] = None
            elif node not in nodes:
                nodes.add(node)
                waiting.extend(reads(node))
        return Question(targets, tuple(sorted(nodes, key=self._order.__getitem__)), tuple(inputs), engine)

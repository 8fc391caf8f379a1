"""Where every node of a model would run and why: what ``flexc check`` shows, from the compiler's own decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from flexc.backend.lower import plan
from flexc.compiler import Model, Options, machine_of, name_of
from flexc.frontend.load import load
from flexc.frontend.operators import OPERATORS
from flexc.hardware import quantise_for
from flexc.host_check import parts_of_plan, refuse_what_nobody_runs
from flexc.passes.emit import LINEAR_KEY, ROLE_KEY, pin_of
from flexc.passes.partition import Kernel
from flexc.passes.pins import apply_pins

NO_CODE = "none"
"""The engine of nodes that need no code: their result lies where their operand does."""

A_VIEW = "a view: the data stay where they are"
"""Why they need none."""


def joined(heads: Iterable[str]) -> str:
    """Say that a node is part of an array kernel that begins with nodes ``heads``."""
    names = " and ".join(f"'{head}'" for head in heads)
    return f"row work on the results of {names} before they leave the buffer"


def engine_words(name: str) -> str:
    """Return how reports say that nodes are on an engine."""
    return {NO_CODE: "need no code", "host": "on the host", "dma": "moving data"}.get(name, f"on the {name}")


@dataclass(frozen=True)
class NodeCoverage:
    """One node of the cleaned graph: its engine, why it runs there, and what would bring it onto the machine."""

    node: str
    op: str
    engine: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Coverage:
    """All nodes of a model, in graph order, for one target."""

    target: str
    nodes: tuple[NodeCoverage, ...]

    @property
    def engines(self) -> dict[str, int]:
        """Nodes of each engine."""
        return dict(sorted(Counter(row.engine for row in self.nodes).items()))

    @property
    def on_host(self) -> tuple[NodeCoverage, ...]:
        """The nodes that the machine cannot run itself."""
        return tuple(row for row in self.nodes if row.engine == "host")


def coverage(source: Model, options: Options) -> Coverage:
    """Place every node as a compilation would, short of packing weights.

    Raises:
        FlexcError: what a compilation refuses, all at once where that can be told.
    """
    machine = machine_of(options.target)
    model = load(source, **options.loading)
    apply_pins(model, options.pins)
    quantised = quantise_for(model, machine, options.attention)
    kernels = plan(quantised, machine)
    refuse_what_nobody_runs(parts_of_plan(quantised, kernels), name_of(source))
    places = dict(_places(kernels))
    return Coverage(machine.name, tuple(_row(node, places.get(str(node.name))) for node in model.graph))


def _places(kernels: list[Kernel]) -> Iterator[tuple[str, Kernel]]:
    """Yield for every node of the cleaned graph the kernel that does its work: of a linear, the product itself."""
    for kernel in kernels:
        views = kernel.tail.views if kernel.tail is not None else ()
        for node in (each for each in kernel.nodes if each not in views):
            role = node.metadata_props.get(ROLE_KEY, "")
            if role in ("", "bias"):
                yield str(node.name), kernel
            elif role == "multiply":
                yield str(node.metadata_props[LINEAR_KEY]), kernel


def _row(node: ir.Node, kernel: Kernel | None) -> NodeCoverage:
    if kernel is None:
        return NodeCoverage(str(node.name), node.op_type, NO_CODE, A_VIEW)
    remedy = _remedy(node) if kernel.engine == "host" else ""
    own = [reason for reason in kernel.reason.split("; ") if reason.startswith(node.op_type)]
    engine = next((kernel.engine_of(each) for each in kernel.nodes if each.name == node.name), kernel.engine)
    reason = kernel.reason if engine == kernel.engine else joined(str(chain[0].name) for chain in kernel.chains)
    return NodeCoverage(str(node.name), node.op_type, engine, own[0] if own else reason, remedy)


def _remedy(node: ir.Node) -> str:
    """Say when the machine runs such a node itself."""
    if pin_of(node) == "host":
        return "leave its --pin out"
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        return "the host runs it; docs/supported-ops.md lists what the machine runs"
    rule = (operator.rule.__doc__ or "").strip().rstrip(".")
    return f"the machine runs {node.op_type} like this: {rule[:1].lower()}{rule[1:]}" if rule else "see the reason"

"""One onnxruntime session for all questions about one op: their parts of the graph side by side in one model.

Every part computes its own copies of values, under names of its own; what it reads comes in under the graph's names.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from flexc.check_plan import Question
from flexc.emulation import Arrays
from flexc.frontend.infer import inner_nodes, reads
from flexc.frontend.operators import OPERATORS
from flexc.passes.session import Session

_HOST_THREADS = 2
"""As many as the emulator gives a host segment, so that sums are cut in the same way."""


class QuestionSession:
    """Answers questions about one op from values that were seen; meant to be dropped after its op.

    Raises:
        FlexcError: onnxruntime refuses a part of the graph.
    """

    def __init__(self, model: ir.Model, questions: Sequence[Question]) -> None:
        host = any(question.engine == "host" for question in questions)
        parts = _Parts(model)
        for place, question in enumerate(questions):
            parts.add(question, "" if host else f"{place}/")
        self._names = parts.names
        self._session = Session(parts.model(), threads=_HOST_THREADS if host else 0, optimise=host)

    def run(self, feed: Arrays) -> list[Arrays]:
        """Return for each question what onnxruntime says, by the graph's names: its targets, and what it sums up."""
        results = self._session.run(feed)
        return [{name: results[output] for name, output in names.items()} for names in self._names]


def summed(question: Question) -> ir.Node | None:
    """Return the node of a question whose tolerance is relative to the magnitudes that it adds up, if there is one."""
    for node in reversed(question.nodes):
        operator = OPERATORS.get(node.op_type)
        if operator is not None and operator.tolerance.scale == "sum":
            return node
    return None


class _Parts:
    """Collects the parts of one model."""

    def __init__(self, model: ir.Model) -> None:
        self._source = model
        self._shared: dict[ir.Value, ir.Value] = {}
        self._inputs: dict[ir.Value, None] = {}
        self._nodes: list[ir.Node] = []
        self._outputs: list[ir.Value] = []
        self.names: list[dict[str, str]] = []

    def add(self, question: Question, prefix: str) -> None:
        """Add the nodes of a question; the values they make get the prefix."""
        made: dict[ir.Value, ir.Value] = {}
        self._inputs.update({self._copy(value): None for value in question.inputs})
        for node in question.nodes:
            for value in node.outputs:
                made[value] = ir.Value(name=value.name and prefix + value.name, shape=value.shape, type=value.type)
            inputs = [None if value is None else made.get(value) or self._copy(value) for value in node.inputs]
            for value in reads(node):  # a subgraph may read constants of the outer graph, too
                if value not in made:
                    self._copy(value)
            self._nodes.append(
                ir.Node(
                    node.domain,
                    node.op_type,
                    inputs,
                    list(node.attributes.values()),
                    outputs=[made[value] for value in node.outputs],
                    name=prefix + str(node.name),
                    overload=node.overload,
                    version=node.version,
                )
            )
        adding = summed(question)
        terms = adding.inputs if adding is not None else ()
        wanted = [*question.targets, *(value for value in terms if value is not None and value in made)]
        chosen = {str(value.name): made[value] for value in wanted}
        self._outputs += [value for value in chosen.values() if value not in self._outputs]
        self.names.append({name: str(value.name) for name, value in chosen.items()})

    def _copy(self, value: ir.Value) -> ir.Value:
        if value not in self._shared:
            self._shared[value] = ir.Value(
                name=value.name, shape=value.shape, type=value.type, const_value=value.const_value
            )
        return self._shared[value]

    def model(self) -> ir.Model:
        """Return the model."""
        constants = [value for value in self._shared.values() if value.const_value is not None]
        graph = ir.Graph(
            list(self._inputs),
            self._outputs,
            nodes=self._nodes,
            initializers=constants,
            opset_imports=self._source.opset_imports,
            name="check",
        )
        model = ir.Model(graph, ir_version=self._source.ir_version)
        if any(True for node in self._nodes for _ in inner_nodes(node)):
            # Subgraphs still mean the values of the graph they come from; by name, they find those of this one.
            return ir.serde.deserialize_model(ir.serde.serialize_model(model))
        return model

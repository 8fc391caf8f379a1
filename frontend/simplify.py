"""One walk over the graph, inputs to outputs: check, infer, fold, drop what does nothing, bring into canonical form.

Every node is visited once, after all that feed it, so each step sees final types; the walk is linear in nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ..isa.errors import FlexcError, raise_all
from .canonical import Rule
from .contrib import CONTRIB, DOMAIN
from .edit import Editor, constant_array, shape_of, static_shape
from .fold import RANDOM, fold
from .infer import Inference, Spec, inner_nodes, reads, record
from .lanes import Lanes
from .precision import Precision
from .remedies import domain_remedy, static_remedy
from .rewrite.table import EARLY, RULES
from .routing import Routings
from .unroll import unroll

_SAME_SHAPE_MEANS_SAME = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Cast", "Tile"}
_UNDECLARED = "SimplifiedLayerNormalization"  # onnxruntime writes it into ONNX's own domain, which lacks it
_SINGLE_OPERAND = {"Concat", "Sum", "Max", "Min", "Mean"}


class Simplifier:
    """Simplifies one model in place.

    Args:
        model: functions inlined, constants lifted, graph inputs static.
        where: name of the model in error messages.
        expert_capacity: rows of an expert over its even share; None: as many as there are.
    """

    def __init__(self, model: ir.Model, where: str, expert_capacity: float | None = None) -> None:
        self._model, self._graph = model, model.graph
        self._where = where
        self._editor = self._edits(Routings(expert_capacity))
        self._inference = Inference(model.opset_imports, model.ir_version)
        self._precision = Precision(model, self._editor)
        self._lanes = Lanes(self._editor, where)

    def _edits(self, routings: Routings) -> Editor:
        return Editor(self._graph, routings)

    def run(self) -> None:
        """Visit every node; FlexcError names all that are invalid or have no static shape.

        What reads the result of such a node is passed over: it has nothing more to tell.
        """
        self._precision.interface()
        problems: list[FlexcError] = []
        spoilt: set[ir.Value] = set()
        for node in tuple(self._graph):
            if not spoilt.isdisjoint(reads(node)):
                spoilt.update(node.outputs)
                continue
            try:
                self._visit(node)
            except FlexcError as problem:
                problems.append(problem)
                spoilt.update(node.outputs)
        raise_all(problems)
        self._declare_routings()

    def _declare_routings(self) -> None:
        """Finish what has to know all routings."""
        routings = self._editor.routings
        if routings is None or not routings.declared:
            return
        spared = [self._take_over(routings.spare(node, self._editor)) for node in tuple(self._graph)]
        if any(spared):
            self._graph.sort()  # a table may be read before what says which pairs are dropped
        routings.declare(self._model)

    def _visit(self, node: ir.Node) -> None:
        self._check_inputs(node)
        self._check_deterministic(node)
        for each in (node, *inner_nodes(node)):
            self._precision.adapt(each)
        if self._inline_branch(node) or self._unroll(node):
            return
        if self._replace(node, CONTRIB if node.domain == DOMAIN or node.op_type == _UNDECLARED else {}):
            return
        if self._replace(node, EARLY if node.domain == "" else {}):
            return
        _drop_empty(node)
        if self._take_over(self._lanes.places(node)):
            return
        specs = self._infer_rows(node)
        if self._take_over(self._lanes.add_up(node)):
            return
        self._lanes.follow(node)
        if self._bypass(node) or self._fold(node, specs):
            return
        for each in (node, *inner_nodes(node)):
            self._check_static(each)
        self._replace(node, RULES if node.domain == "" else {})

    def _replace(self, node: ir.Node, rules: Mapping[str, Sequence[Rule]]) -> bool:
        """Apply the first rule that fits, and visit what it puts in the node's place."""
        return self._take_over(any(rule(node, self._editor) for rule in rules.get(node.op_type, ())))

    def _take_over(self, replaced: bool) -> bool:
        """Visit what was put in a node's place, if it was; return whether."""
        for new in self._editor.take_inserted() if replaced else ():
            self._visit(new)
        return replaced

    def _place(self, node: ir.Node) -> str:
        return f"{self._where}: node '{node.name}' ({node.op_type})"

    def _check_inputs(self, node: ir.Node) -> None:
        for each in (node, *inner_nodes(node)):
            for value in each.inputs:
                if value is not None and value.graph is None:
                    raise FlexcError(
                        f"reads '{value.name}', which no input, initializer or node provides",
                        where=self._place(each),
                        remedy="the file is not a valid ONNX model; export it again",
                    )

    def _check_deterministic(self, node: ir.Node) -> None:
        for each in (node, *inner_nodes(node)):
            if each.domain == "" and (each.op_type in RANDOM or _trains(each)):
                text = "gives random numbers: the same input must give the same output"
                raise FlexcError(text, where=self._place(each), remedy="export the model in inference mode")

    def _infer_rows(self, node: ir.Node) -> list[Spec]:
        """Infer a node; of one that wants another number of chosen rows than there are places, say that."""
        try:
            return self._infer(node)
        except FlexcError:
            self._lanes.explain(node)
            raise

    def _infer(self, node: ir.Node) -> list[Spec]:
        specs = self._inference.outputs(node, self._place(node))
        trusted = node.domain != "" or any(True for _ in inner_nodes(node))
        for value, spec in zip(node.outputs, specs, strict=True):
            if not trusted:
                value.shape = None  # a shape the file claims and ONNX's rules cannot derive may be an example's
            record(value, spec)
        return specs

    def _fold(self, node: ir.Node, specs: list[Spec]) -> bool:
        arrays = fold(node, specs)
        if arrays is None:
            return False
        values = []
        for output, array, spec in zip(node.outputs, arrays, specs, strict=True):
            name = output.name or f"{node.name}.unused"
            shared = not output.is_graph_output() and output not in self._lanes
            values.append(self._editor.constant(name, array, spec.dtype, shared=shared))
        self._editor.substitute(node, values)
        return True

    def _check_static(self, node: ir.Node) -> None:
        for value in node.outputs:
            needed = value.name and (value.uses() or value.is_graph_output())
            if needed and not (isinstance(value.type, ir.TensorType) and static_shape(value) is not None):
                self._refuse(node, value)

    def _refuse(self, node: ir.Node, value: ir.Value) -> None:
        standard = node.domain in ("", "ai.onnx.ml")
        if not isinstance(value.type, ir.TensorType) and (standard or value.type is not None):
            problem, remedy = "is not a tensor", "export the model without sequences, optionals and sparse tensors"
        elif not standard:
            problem = f"has no recorded shape, and operator {node.domain}::{node.op_type} has no known rule for it"
            remedy = domain_remedy(node.domain)
        else:
            problem = "has a shape that depends on run-time data"
            remedy = static_remedy(node.op_type)
        raise FlexcError(f"output '{value.name}' {problem}", where=self._place(node), remedy=remedy)

    def _inline_branch(self, node: ir.Node) -> bool:
        """Put the taken branch of an If whose condition is constant in its place."""
        condition = constant_array(node.inputs[0]) if node.op_type == "If" and node.domain == "" else None
        if condition is None:
            return False
        branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
        nodes, outputs = list(branch), list(branch.outputs)
        if any(value.producer() not in nodes for value in outputs):
            return False
        branch.outputs.clear()
        branch.remove(nodes)
        self._graph.insert_before(node, nodes)
        self._editor.substitute(node, outputs)
        for inner in nodes:
            self._visit(inner)
        return True

    def _unroll(self, node: ir.Node) -> bool:
        """Put the turns of a Scan or Loop in its place where their number is known."""
        turns = unroll(node, self._editor)
        for inner in turns or []:
            self._visit(inner)
        return turns is not None

    def _bypass(self, node: ir.Node) -> bool:
        """Drop a node whose output is its first input; an Identity from graph input to output has to stay."""
        value = node.inputs[0] if node.inputs else None
        if node.domain != "" or value is None or len(node.outputs) == 0 or not _does_nothing(node, value):
            return False
        if (node.outputs[0] in self._lanes) != (value in self._lanes):
            return False  # here rows begin or cease to be those that a mask chooses
        if not self._editor.can_stand_for(value, node.outputs[0]) or any(out.uses() for out in node.outputs[1:]):
            return False
        node.resize_outputs(1)
        self._editor.substitute(node, [value])
        return True


def _trains(node: ir.Node) -> bool:
    """Return whether a Dropout is in training mode for sure."""
    flag = constant_array(node.inputs[2]) if node.op_type == "Dropout" and len(node.inputs) > 2 else None
    return flag is not None and bool(flag.any())


def _drop_empty(node: ir.Node) -> None:
    """Let a Concat go without operands that have no elements (legacy exporters cut such pieces)."""
    if node.op_type != "Concat" or node.domain != "":
        return
    kept = [value for value in node.inputs if value is None or 0 not in (static_shape(value) or ())]
    if kept and len(kept) < len(node.inputs):
        for place, value in enumerate(kept):
            node.replace_input_with(place, value)
        node.resize_inputs(len(kept))


def _does_nothing(node: ir.Node, value: ir.Value) -> bool:
    """Return whether the first output of ``node`` always equals its first input."""
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        flag = constant_array(training)
        return training is None or (flag is not None and not flag.item())
    if node.op_type in _SINGLE_OPERAND:
        return len(node.inputs) == 1
    out = node.outputs[0]
    if value.dtype != out.dtype or static_shape(value) != static_shape(out) or static_shape(out) is None:
        return False
    return node.op_type in _SAME_SHAPE_MEANS_SAME or _moves_nothing(node)


def _moves_nothing(node: ir.Node) -> bool:
    """Return whether a Transpose, Slice or Pad that keeps the shape keeps every element in its place, too."""
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        moved = [axis for axis, dim in enumerate(shape_of(node.outputs[0])) if dim != 1]
        order = list(perm.as_ints()) if perm else list(range(len(node.outputs[0].shape or ())))[::-1]
        return [axis for axis in order if axis in moved] == moved
    if node.op_type == "Slice":
        steps = node.inputs[4] if len(node.inputs) > 4 else None
        array = np.ones(1) if steps is None else constant_array(steps)
        return array is not None and bool((array > 0).all())
    if node.op_type == "Pad":
        pads = constant_array(node.inputs[1])
        return pads is not None and not pads.any()
    return False

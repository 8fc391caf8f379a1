"""ONNX in, a clean and fully static graph out."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnx_ir.passes.common.naming import NameGenerator

from ..isa.errors import FlexcError
from .bind import bind_shapes
from .constant_outputs import give_constants_a_node
from .grouped_rows import join_groups
from .growing import hold_caches
from .limits import check_node_count, check_sizes, check_types
from .opset import modernise
from .simplify import Simplifier
from .source import read
from .states import declare_states

SCOPE_KEY = "flexc.scope"  # node metadata: dotted path of the module it was exported from, where the exporter says so
_OURS = "flexc."
_LOWEST_IR_VERSION = 8  # initializers need not be graph inputs since 4; onnxruntime reads 8 with every opset we keep


def load(
    source: str | os.PathLike[str] | onnx.ModelProto | ir.Model,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    name: str = "",
    cache: int | None = None,
    states: Mapping[str, str] | None = None,
    expert_capacity: float | None = None,
) -> ir.Model:
    """Read, validate and clean a model.

    Afterwards every value has an element type and a static shape, nothing that can be computed at compile time is
    left to run time, every node has a unique name, and linears have their canonical form (see ``canonical.py``).
    Inputs and outputs keep their names and order. Weights stay memory-mapped.

    Args:
        source: path of an ``.onnx`` file, or a model in memory (which is not changed).
        shapes: dims for inputs with dynamic shapes, by input name.
        dims: numbers for dynamic dims, by symbol.
        name: what messages call the model, where that is not the source's own name.
        cache: capacity in positions that growing caches get (see ``growing.py``); None: they are bound as any input.
        states: input -> output that it becomes; pairs with telling names and one shape need not be given.
        expert_capacity: rows that an expert works on at most, over its even share (see ``routing.py``); None: all.

    Raises:
        FlexcError: the file is missing, broken or not supported, or shapes are missing or wrong.
    """
    model, where = read(source)
    where = name or where
    check_node_count(model, where)
    model = modernise(model, where)
    _prepare(model, where)
    join_groups(model)
    if cache is not None:
        shapes, dims = hold_caches(model, cache, shapes or {}, dims or {}, where)
    bind_shapes(model.graph, shapes or {}, where, dims)
    check_sizes(model.graph, where)
    Simplifier(model, where, expert_capacity).run()
    check_sizes(model.graph, where)
    check_types(model.graph, where)
    _finish(model)
    declare_states(model.graph, states or {}, where)
    return model


def _prepare(model: ir.Model, where: str) -> None:
    """Bring the file's structure into one form: no functions, no Constant nodes, unique names, sorted nodes."""
    steps = (
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.RemoveInitializersFromInputsPass(),
        common.RemoveUnusedNodesPass(),
        common.NameFixPass(_Names()),
    )
    try:
        for step in steps:
            step(model)
        if not _is_sorted(model.graph):
            model.graph.sort()
    except (ir.passes.PassError, ValueError) as error:
        text = " ".join(str(error.__cause__ or error).split())
        raise FlexcError(f"not a valid ONNX model: {text}", where=where, remedy="export it again") from error
    for value in model.graph.initializers.values():
        _type_as_stored(value)
    model.ir_version = max(model.ir_version, _LOWEST_IR_VERSION)
    for node in model.graph.all_nodes():
        _clear_notes(node)


def _type_as_stored(value: ir.Value) -> None:
    """Give a constant the shape and type that its numbers have: what a file claims beside them may be symbolic."""
    if value.const_value is not None:
        value.shape = ir.Shape(value.const_value.shape.numpy())
        value.type = ir.TensorType(value.const_value.dtype)


def _is_sorted(graph: ir.Graph) -> bool:
    """Return whether every node of ``graph``, subgraphs included, comes after those it reads from."""
    seen: set[ir.Node | None] = {None}
    for node in graph.all_nodes():
        if not all(value is None or value.producer() in seen for value in node.inputs):
            return False
        seen.add(node)
    return True


class _Names(NameGenerator):
    """An unnamed node is called after its operator; the pass adds numbers."""

    def generate_node_name(self, node: ir.Node) -> str:
        return node.name or node.op_type

    def generate_value_name(self, value: ir.Value) -> str:
        return value.name or "value"


def _clear_notes(node: ir.Node) -> None:
    """Drop what exporters write about their own source code; keep the module path under our own key."""
    notes = node.metadata_props
    kept = {key: text for key, text in notes.items() if key.startswith(_OURS)}
    scope = _scope(notes.get("pkg.torch.onnx.name_scopes", ""))
    if scope:
        kept.setdefault(SCOPE_KEY, scope)
    notes.clear()
    notes.update(kept)
    node.doc_string = None
    for value in node.outputs:
        value.doc_string = None
        value.metadata_props.clear()


def _scope(text: str) -> str:
    """Return the innermost module path of torch's ``['', 'layers.0', 'layers.0.q_proj', 'linear']``."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ""
    modules = names[:-1] if isinstance(names, list) else []
    return str(modules[-1]) if modules else ""


def _finish(model: ir.Model) -> None:
    common.RemoveUnusedNodesPass()(model)
    give_constants_a_node(model.graph)
    common.RemoveUnusedOpsetsPass()(model)
    common.NameFixPass(_Names())(model)

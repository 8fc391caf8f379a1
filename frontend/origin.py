"""The way back: what was done to the linears of a loaded model, done to the graph as it stands in its file.

Loading simplifies: a Gemm becomes a MatMul, a BatchNormalization goes into a Conv, constants fold. So that pruning can
leave the user's graph as it is but for its weights, every node carries its number in the file through loading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import onnx_ir as ir

from .edit import free_name, int_attribute
from .linears import Linear
from .origin_norm import norm_of, renewed

ORIGIN_KEY = "flexc.origin"
"""Metadata key of a node: its number among the nodes of the file's graph."""

_PASSED_ON = {"Transpose", "Identity", "Expand", "Reshape", "Squeeze", "Unsqueeze"}
"""A constant is looked for behind these: other than a Transpose they leave its numbers in their order."""

_MADE = "flexc.made"
"""Key of what readers of a value were given instead, in the value's own notes, which no file holds."""

_MOST_AXES = 4
"""Of a weight with so many axes every order of them is tried, where the operator does not say which it is."""

_SAME = 1e-5
"""A folded factor is found again within this share: the fold was rounded to float32."""


def number_nodes(model: ir.Model) -> None:
    """Note on every node of the main graph which one it is, so that it is known again after loading."""
    for number, node in enumerate(model.graph):
        node.metadata_props[ORIGIN_KEY] = str(number)


def forget_numbers(model: ir.Model) -> None:
    """Remove what :func:`number_nodes` noted."""
    for node in model.graph.all_nodes():
        node.metadata_props.pop(ORIGIN_KEY, None)


@dataclass(frozen=True)
class _Operand:
    """Where a node of the file takes its weight: input `index`, the numbers there, through `chain` from `source`."""

    node: ir.Node
    index: int
    array: np.ndarray
    source: ir.Value | None
    chain: tuple[ir.Node, ...]


def write_back(
    model: ir.Model, before: Mapping[str, Linear], after: Mapping[str, Linear], notes: Mapping[str, str], key: str
) -> list[str]:
    """Give the nodes of a file's graph the weights that their linears have after pruning.

    Args:
        model: the graph as read from the file, numbered by :func:`number_nodes`; changed in place.
        before: its loaded linears by name, before pruning.
        after: the same, pruned.
        notes: what to note on the node of each linear named.
        key: the metadata key of that note.

    Returns:
        Names of linears whose weight the file holds in a form that cannot be given back.
    """
    nodes, lost = list(model.graph), []
    origins = [linear.node.metadata_props.get(ORIGIN_KEY, "") for linear in after.values()]
    for name, linear in after.items():
        origin = linear.node.metadata_props.get(ORIGIN_KEY, "")
        operand = _operand(nodes[int(origin)]) if origin and origins.count(origin) == 1 else None
        changed = not np.array_equal(before[name].matrix(), linear.matrix())
        if changed and (operand is None or not _replace(model, operand, before[name], linear)):
            lost.append(name)
        elif operand is not None and name in notes:
            operand.node.metadata_props[key] = notes[name]
    return lost


def write_back_constants(model: ir.Model, before: ir.Model, after: ir.Model, linears: Iterable[str]) -> list[str]:
    """Give the nodes of a file's graph the constants, other than weights of linears, that their nodes have now.

    Args:
        model: the graph as read from the file, numbered by :func:`number_nodes`; changed in place.
        before: its loaded graph before constants changed.
        after: the same graph, of the same nodes, with other constants.
        linears: names of the nodes whose input 1 is a weight, see :func:`write_back`.

    Returns:
        Names of nodes whose constant the file holds in a form that cannot be given back.
    """
    nodes, lost, weights = list(model.graph), [], set(linears)
    known = {str(node.name): node for node in before.graph}
    for node in after.graph:
        name = str(node.name)
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None or (index == 1 and name in weights) or name not in known:
                continue
            old = known[name].inputs[index]
            if old is None or old.const_value is None or old.const_value is value.const_value:
                continue
            was, now = old.const_value.numpy(), value.const_value.numpy()
            if not np.array_equal(was, now) and not _give_back(model, nodes, node, was, now):
                lost.append(name)
    return lost


def _give_back(model: ir.Model, nodes: Sequence[ir.Node], node: ir.Node, was: np.ndarray, now: np.ndarray) -> bool:
    """Put a constant in the place of the one with its old numbers that a node's origin reads."""
    origin = node.metadata_props.get(ORIGIN_KEY, "")
    if not origin:
        return False
    source = nodes[int(origin)]
    for index, value in enumerate(source.inputs):
        found = _constant(value)
        array = None if found is None else _narrowed(found[0], was, now)
        if found is not None and array is not None:
            _install(model, _Operand(source, index, found[0], found[1], tuple(found[2])), array)
            return True
    return _into_norm(model, source, node, was, now)


def _into_norm(model: ir.Model, source: ir.Node, node: ir.Node, was: np.ndarray, now: np.ndarray) -> bool:
    """Let the BatchNormalization that a constant was made of make the new one."""
    norm = norm_of(source, _numbers)
    made = None if norm is None else renewed(norm, node, was, now)
    if norm is None or made is None:
        return False
    for index, array in zip((1, 2), made, strict=True):
        found = _constant(norm.node.inputs[index])
        if found is not None and not np.array_equal(found[0], array):
            operand = _Operand(norm.node, index, found[0], found[1], tuple(found[2]))
            _install(model, operand, array.astype(found[0].dtype))
    return True


def _numbers(value: ir.Value | None) -> np.ndarray | None:
    found = _constant(value)
    return None if found is None else found[0]


def _narrowed(held: np.ndarray, was: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """Return `now` as the file holds it, which has `held`, maybe to be broadcast, for `was`; None for another."""
    if held.size == was.size and np.array_equal(held.ravel(), was.ravel()):
        return now.reshape(held.shape).astype(held.dtype)
    shape = (1,) * (was.ndim - held.ndim) + held.shape
    if len(shape) != was.ndim or any(dim not in (1, full) for dim, full in zip(shape, was.shape, strict=True)):
        return None
    narrow = now[tuple(slice(0, dim) for dim in shape)]
    if not np.array_equal(np.broadcast_to(held, was.shape), was) or not (narrow == now).all():
        return None
    return narrow.reshape(held.shape).astype(held.dtype)


def _operand(node: ir.Node) -> _Operand | None:
    """Find the constant operand of a linear's node in the file."""
    for index in (1, 0):
        value = node.inputs[index] if index < len(node.inputs) else None
        found = _constant(value)
        if found is not None:
            array, source, chain = found
            return _Operand(node, index, array, source, tuple(chain))
    return None


def _constant(value: ir.Value | None) -> tuple[np.ndarray, ir.Value | None, list[ir.Node]] | None:
    """Return a constant's numbers, the initializer they come from and the nodes they pass, nearest first."""
    if value is None:
        return None
    if value.const_value is not None and value.is_initializer():
        return value.const_value.numpy(), value, []
    node = value.producer()
    if node is None or node.domain != "":
        return None
    if node.op_type == "Constant" and (attribute := node.attributes.get("value")) is not None:
        return attribute.as_tensor().numpy(), None, [node]
    if node.op_type not in _PASSED_ON:
        return None
    found = _constant(node.inputs[0])
    if found is None or (node.op_type == "Transpose" and len(_order(node, found[0].ndim)) != found[0].ndim):
        return None
    array, source, chain = found
    return _passed(node, array), source, [node, *chain]


def _order(node: ir.Node, rank: int) -> list[int]:
    """Return the order of axes that a Transpose makes."""
    perm = node.attributes.get("perm")
    return list(perm.as_ints()) if perm else list(range(rank))[::-1]


def _passed(node: ir.Node, array: np.ndarray, *, back: bool = False) -> np.ndarray:
    """Take an array through a Transpose, or `back`; others leave it as it is."""
    if node.op_type != "Transpose":
        return array
    axes = _order(node, array.ndim)
    return array.transpose(np.argsort(axes) if back else axes)


def _replace(model: ir.Model, operand: _Operand, before: Linear, after: Linear) -> bool:
    """Put a linear's new matrix where its node reads it; False where the file's numbers are not its old ones."""
    found: np.ndarray | None = None
    for axes in _layouts(operand):
        old = operand.array.transpose(axes)
        rows = old.reshape(after.n, after.k) if old.size == after.n * after.k else None
        new = None if rows is None else _in_file(rows, before.matrix(), after.matrix())
        if new is None:
            continue
        array = new.reshape(old.shape).transpose(np.argsort(axes)).astype(operand.array.dtype)
        if found is not None and not np.array_equal(found, array):
            return False  # a weight like its own transpose, say: which of its sides are the outputs is not known
        found = array
    if found is not None:
        _install(model, operand, np.ascontiguousarray(found))
    return found is not None


def _layouts(operand: _Operand) -> Iterable[tuple[int, ...]]:
    """Return orders of axes that may bring a weight to rows of output channels: one, where the operator is known."""
    node, axes = operand.node, tuple(range(operand.array.ndim))
    if node.op_type in ("Conv", "ConvInteger"):
        return [(0, *axes[2:], 1)]
    swapped = (*axes[:-2], *axes[-2:][::-1])
    if node.op_type in ("MatMul", "MatMulInteger", "Gemm"):
        turned = int_attribute(node, "transB" if operand.index else "transA", 0)
        return [swapped if bool(operand.index) != bool(turned) else axes]
    return permutations(axes) if len(axes) <= _MOST_AXES else [axes, swapped]


def _in_file(rows: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """Return the pruned rows as the file, which holds `rows` for `before`, would have them; undo a factor a row."""
    values = rows.astype(np.float32)
    if np.array_equal(values, before):
        return after
    weight = np.square(values, dtype=np.float64).sum(axis=1, keepdims=True)
    factor = (values.astype(np.float64) * before).sum(axis=1, keepdims=True) / np.where(weight > 0, weight, 1)
    bound = _SAME * np.abs(before).max(axis=1, keepdims=True, initial=0)
    if not (np.abs(values * factor - before) <= bound).all():
        return None
    undone = after / np.where(factor == 0, 1, factor)
    kept: np.ndarray = np.where(after == before, values, undone)
    kept[after == 0] = 0
    bound = _SAME * np.abs(after).max(axis=1, keepdims=True, initial=0)
    return kept if (np.abs(kept * factor - after) <= bound).all() else None


def _install(model: ir.Model, operand: _Operand, array: np.ndarray) -> None:
    """Put an array in the place of a node's constant; whoever else reads that keeps it, and every node stays."""
    reader, index = operand.node, operand.index
    for node in operand.chain:
        if not _read_once(node.outputs[0]):
            break
        if node.op_type == "Constant":
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(np.ascontiguousarray(array)))
            return
        array, reader, index = _passed(node, array, back=True), node, 0
    array, old = np.ascontiguousarray(array), reader.inputs[index]
    made: list[ir.Value] = [] if old is None else old.meta.setdefault(_MADE, [])
    value = next((each for each in made if each.const_value and np.array_equal(each.const_value.numpy(), array)), None)
    if value is None and old is not None and old is operand.source and _read_once(old):
        old.const_value = ir.Tensor(array, dtype=old.dtype, name=str(old.name))
        return
    if value is None:  # else it is what another reader was given: nodes that share a constant go on doing so
        value = _new_initializer(model, operand.node, array)
        made.append(value)
    reader.replace_input_with(index, value)
    if old is not None and old.is_initializer() and not old.uses() and not old.is_graph_output():
        model.graph.initializers.pop(str(old.name), None)


def _new_initializer(model: ir.Model, reader: ir.Node, array: np.ndarray) -> ir.Value:
    name = free_name(model.graph, f"{reader.name or reader.op_type}.pruned")
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()

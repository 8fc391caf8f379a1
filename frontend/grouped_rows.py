"""Products of rows in groups, one weight a group, as transformers' own exporter writes a grouped matrix product.

Rows come sorted by group, and a group's rows are Range(end of the one before, end of its own): how many is up to data.
What all groups make side by side does not: every row times the weight of its group, which is the number of ends that
it lies behind. So it is written as a choice of weights, as mixtures of experts have it (``chosen.py``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from .edit import Editor, int_attribute
from .rewrite.site import Site

_NAMES = {"Squeeze", "Reshape", "Identity", "Cast"}


@dataclass(frozen=True)
class _Group:
    """The rows of one group, from ``start`` to ``end``, times a weight, plus a bias."""

    rows: ir.Value
    start: ir.Value
    end: ir.Value
    weight: ir.Value
    bias: ir.Value | None


def join_groups(model: ir.Model) -> None:
    """Put a product with chosen weights in the place of every Concat of products of neighbouring groups of rows."""
    found = [(node, groups) for node in model.graph if (groups := _groups(node))]
    if not found:
        return
    editor, numbers = Editor(model.graph), dict[tuple[ir.Value, ...], ir.Value]()
    for node, groups in found:
        site, ends = Site(node, editor), tuple(group.end for group in groups)
        if ends not in numbers:
            numbers[ends] = _numbers(site, groups)
        rows = site.op("Unsqueeze", groups[0].rows, site.ints([1]))
        product = site.op("MatMul", rows, _chosen(site, [group.weight for group in groups], numbers[ends]))
        result = site.op("Squeeze", product, site.ints([1]))
        biases = [group.bias for group in groups if group.bias is not None]
        site.done(site.op("Add", result, _chosen(site, biases, numbers[ends])) if biases else result)
    common.RemoveUnusedNodesPass()(model)  # the rows of each group have no shape


def _groups(node: ir.Node) -> list[_Group]:
    """Return the groups whose products a Concat puts side by side; empty where it joins something else."""
    if node.op_type != "Concat" or node.domain != "" or int_attribute(node, "axis", 0) != 0 or len(node.inputs) < 2:
        return []
    groups = [group for value in node.inputs if (group := _group(value)) is not None]
    if len(groups) < len(node.inputs) or not _is_zero(groups[0].start):
        return []
    follow = all(_named(after.start) is _named(before.end) for before, after in itertools.pairwise(groups))
    alike = all(group.rows is groups[0].rows and (group.bias is None) is (groups[0].bias is None) for group in groups)
    return groups if follow and alike else []


def _group(value: ir.Value | None) -> _Group | None:
    node, bias = value.producer() if value is not None else None, None
    if node is not None and node.op_type == "Add":
        product, bias = node.inputs[0], node.inputs[1]
        node = product.producer() if product is not None else None
    if node is None or node.op_type != "MatMul" or node.inputs[1] is None:
        return None
    gather = node.inputs[0].producer() if node.inputs[0] is not None else None
    if gather is None or gather.op_type != "Gather" or int_attribute(gather, "axis", 0) != 0:
        return None
    rows, index = gather.inputs
    span = index.producer() if index is not None else None
    if rows is None or span is None or span.op_type != "Range" or span.inputs[0] is None or span.inputs[1] is None:
        return None
    step = span.inputs[2].const_value if span.inputs[2] is not None else None
    if step is None or step.numpy().item() != 1:
        return None
    return _Group(rows, span.inputs[0], span.inputs[1], node.inputs[1], bias)


def _named(value: ir.Value) -> ir.Value:
    """Return what a single number is, whatever its shape and type."""
    while (node := value.producer()) is not None and node.op_type in _NAMES and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _is_zero(value: ir.Value) -> bool:
    tensor = _named(value).const_value
    return tensor is not None and not tensor.numpy().any()


def _numbers(site: Site, groups: list[_Group]) -> ir.Value:
    """Return the group of every row: how many groups end at it or before, but for the last one."""
    one = site.ints([1])
    length = site.slice(site.op("Shape", groups[0].rows), 0, 0, 1)
    places = site.op("Range", site.constant(np.array(0, np.int64)), site.op("Squeeze", length), _whole(site, 1))
    ends = [site.reshape(site.cast(group.end, ir.DataType.INT64), [1]) for group in groups[:-1]]
    behind = site.op("GreaterOrEqual", site.op("Unsqueeze", places, one), site.op("Concat", *ends, axis=0))
    return site.reduce("ReduceSum", site.cast(behind, ir.DataType.INT64), [1], keepdims=False)


def _whole(site: Site, number: int) -> ir.Value:
    return site.constant(np.array(number, np.int64))


def _chosen(site: Site, stack: list[ir.Value], number: ir.Value) -> ir.Value:
    parts = [site.op("Unsqueeze", value, site.ints([0])) for value in stack]
    return site.op("Gather", site.op("Concat", *parts, axis=0), number, axis=0)

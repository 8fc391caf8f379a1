"""Products with weights that an index chooses at run time: of all experts, or of the rows in their slots."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from .edit import Editor, int_attribute, is_constant, shape_of
from .expert_rows import Chosen, Rows, chosen_of
from .experts import Site
from .routed import routed_product
from .tracing import never_negative


def gather_one_axis(node: ir.Node, editor: Editor) -> bool:
    """GatherND of a constant by places along its first axis alone -> Gather."""
    table, index = node.inputs
    if table is None or index is None or not is_constant(table) or int_attribute(node, "batch_dims", 0):
        return False
    if shape_of(index)[-1:] != (1,):
        return False
    site = Site(node, editor)
    places = site.reshape(index, *shape_of(index)[:-1])
    editor.substitute(node, [site.put("Gather", table, places, attributes=[ir.AttrInt64("axis", 0)])])
    return True


def chosen_experts(node: ir.Node, editor: Editor) -> bool:
    """MatMul of rows with weights chosen at run time, on either side."""
    left, right = node.inputs
    if left is None or right is None or min(len(shape_of(left)), len(shape_of(right))) < 2:
        return False
    site = Site(node, editor)
    chosen = chosen_of(right)
    if chosen is not None:
        *lead, m, k = shape_of(left)
        editor.substitute(node, [_product(site, Rows(left, tuple(lead), m, k, left), chosen)])
        return True
    chosen = chosen_of(left)
    if chosen is None:
        return False
    *lead, k, m = shape_of(right)
    value = site.reshape(right, *lead, m, k) if 1 in (m, k) else site.swap(right, len(lead) + 2)
    turned = Chosen(chosen.weights.swapaxes(1, 2), chosen.index, chosen.shape)
    result = _product(site, Rows(value, tuple(lead), m, k, right if 1 in (m, k) else None), turned)
    editor.substitute(node, [site.swap(result, len(shape_of(node.outputs[0])))])
    return True


def _product(site: Site, rows: Rows, chosen: Chosen) -> ir.Value:
    """Emit the product of rows with the experts chosen for them, [*lead, m, n]."""
    routings = site.editor.routings
    routed = None if routings is None else routed_product(site, rows, chosen, routings)
    return _of_all(site, rows, chosen) if routed is None else routed


def _of_all(site: Site, rows: Rows, chosen: Chosen) -> ir.Value:
    """Emit the product of every row with every expert, and pick results; rows that are repeated are multiplied once."""
    experts, _, n = chosen.weights.shape
    (table, number, count), m = rows.unrepeated(site), rows.m
    stacked = chosen.weights.transpose(1, 0, 2).reshape(rows.k, experts * n)
    weight = site.constant("experts", stacked)
    results = site.put("MatMul", site.reshape(table, count * m, rows.k), weight, experts=experts)
    if m != 1:
        results = site.transpose(site.reshape(results, count, m, experts, n), 0, 2, 1, 3)
    table = site.reshape(results, count * experts, m * n)
    places = _places(site, chosen, number.reshape(rows.lead), experts)
    picked = site.put("Gather", table, places, attributes=[ir.AttrInt64("axis", 0)])
    return site.reshape(picked, *np.broadcast_shapes(rows.lead, chosen.shape), m, n)


def _places(site: Site, chosen: Chosen, number: np.ndarray, experts: int) -> ir.Value:
    """Emit row * E + index for every result, as one list; an index below 0 counts from the end, as in ONNX."""
    index = site.put("Cast", chosen.index, attributes=[ir.AttrInt64("to", int(ir.DataType.INT64))])
    if not never_negative(chosen.index):
        none, all_ = (site.editor.constant("number", np.array(each, np.int64)) for each in (0, experts))
        index = site.put("Where", site.put("Less", index, none), site.put("Add", index, all_), index)
    first = number.astype(np.int64) * experts
    places = site.put("Add", site.constant("first", first), site.reshape(index, *chosen.shape))
    return site.reshape(places, math.prod(np.broadcast_shapes(number.shape, chosen.shape)))

"""Attention that keeps a past of its own: joining with what a step adds is written out, so that it is a cache like any.

The standard operator Attention and GroupQueryAttention of onnxruntime's domain take past keys and values and give the
present ones. Where a dim of the past is not fixed, the present is the past and the step side by side: a Concat, and
attention over that. All rows of a batch are taken to be as long as the past is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .edit import Editor
from .rewrite.grouped_query import GroupQuery, Places
from .rewrite.site import Site

_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Ends:
    """Where an operator has its past among its inputs."""

    domain: str
    past_key: int


_ENDS = {"Attention": _Ends("", 4), "GroupQueryAttention": _Ends(_DOMAIN, 3)}


def write_joins_out(graph: ir.Graph) -> None:
    """Put a Concat of past and step, and attention without a past, in the place of nodes that grow their past."""
    found = [node for node in graph if _grows(node)]
    if not found:
        return
    editor = Editor(graph)
    for node in found:
        site = Site(node, editor)
        if node.op_type == "Attention":
            _standard(site)
        else:
            _group_query(site)


def _grows(node: ir.Node) -> bool:
    ends = _ENDS.get(node.op_type)
    if ends is None or node.domain != ends.domain or len(node.inputs) <= ends.past_key + 1:
        return False
    pasts = node.inputs[ends.past_key : ends.past_key + 2]
    return all(
        past is not None
        and past.shape is not None
        and len(past.shape) == 4
        and isinstance(past.shape[2], ir.SymbolicDim)
        for past in pasts
    )


def _lengths(site: Site, past: ir.Value, new: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return how many positions there are before a step and after it, as scalars."""
    dims = [site.op("Shape", value) for value in (past, new)]
    before, step = (site.op("Gather", each, site.constant(np.array(2, np.int64)), axis=0) for each in dims)
    return before, site.op("Add", before, step)


def _range(site: Site, first: ir.Value | int, end: ir.Value) -> ir.Value:
    start = site.constant(np.array(first, np.int64)) if isinstance(first, int) else first
    return site.op("Range", start, end, site.constant(np.array(1, np.int64)))


def _group_query(site: Site) -> None:
    parts = GroupQuery(site)
    if not parts.is_plain():
        return
    q, k, v = parts.parts()
    before, total = _lengths(site, site.given(3), k)
    queries = site.op("Unsqueeze", _range(site, before, total), site.ints([0]))
    q, k = (parts.rotated(each, queries) for each in (q, k))
    k, v = (site.op("Concat", site.given(place), new, axis=2) for place, new in ((3, k), (4, v)))
    result = parts.result(q, k, v, Places(queries, _range(site, 0, total)))
    site.done(*[result, k, v, result][: len(site.node.outputs)])


def _standard(site: Site) -> None:
    """Attention(Q, K, V, mask, past) -> Attention(Q, present key, present value, mask) of four dimensions."""
    node, mask = site.node, site.maybe(3)
    heads, groups, causal = (
        site.integer("q_num_heads", 0),
        site.integer("kv_num_heads", 0),
        site.integer("is_causal", 0),
    )
    if causal and mask is not None and mask.dtype is None:
        return
    q, k, v = (_apart(site, site.given(place), count) for place, count in enumerate((heads, groups, groups)))
    presents = [site.op("Concat", site.given(place), new, axis=2) for place, new in ((4, k), (5, v))]
    if causal:
        mask = _causal(site, mask, k)
    kept = [each for name, each in node.attributes.items() if name not in ("q_num_heads", "kv_num_heads", "is_causal")]
    inner = ir.Node("", "Attention", [q, *presents, mask], kept, num_outputs=4, name=f"{node.name}.joined")
    for place, output in enumerate(inner.outputs):
        output.name = f"{node.outputs[0].name}.joined{place}" if place in (0, 3) else ""
    if len(node.outputs) < 4:
        inner.resize_outputs(1)
    site.editor.adopt(node, inner)
    result = inner.outputs[0]
    if heads:
        result = site.reshape(site.transpose(result, [0, 2, 1, 3]), [0, 0, -1])
    site.done(*[result, *presents, *inner.outputs[3:]][: len(node.outputs)])


def _apart(site: Site, value: ir.Value, heads: int) -> ir.Value:
    """Return [batch, heads, step, size] of [batch, step, heads * size]; what has four dimensions as it is."""
    return site.transpose(site.reshape(value, [0, 0, heads, -1]), [0, 2, 1, 3]) if heads else value


def _causal(site: Site, mask: ir.Value | None, new: ir.Value) -> ir.Value:
    """Return a mask that also keeps queries from seeing keys behind their own position."""
    before, total = _lengths(site, site.given(4), new)
    rows = site.op("Unsqueeze", _range(site, before, total), site.ints([1]))
    seen = site.op("LessOrEqual", _range(site, 0, total), rows)
    if mask is None:
        return seen
    if mask.dtype == ir.DataType.BOOL:
        return site.op("And", mask, seen)
    return site.op("Where", seen, mask, site.number(-np.inf, mask))

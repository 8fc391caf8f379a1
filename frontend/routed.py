"""Products of the rows that experts have slots for: routing picks them, an expert multiplies its own, and they go back.

What lies between two products of one routing works on the pairs one by one. So it is done in every expert's slots
apart, and results go back to where their pairs are only behind the last product.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from .expert_body import Body
from .expert_rows import Chosen, Rows
from .experts import Site
from .rewrite.site import Site as At
from .routing import Routing, Routings
from .tracing import Origin, trace


def routed_product(site: Site, rows: Rows, chosen: Chosen, routings: Routings) -> ir.Value | None:
    """Emit the product of the rows that each expert has a slot for, [*lead, m, n]; 0 for others.

    None where every expert would have a slot for every row.
    """
    at = At(site.node, site.editor)
    shape = np.broadcast_shapes(rows.lead, chosen.shape)
    index = trace(chosen.index)
    asked = Origin(index.value, np.broadcast_to(index.at.reshape(chosen.shape), shape))
    routing = routings.of(at, asked, len(chosen.weights), 0)
    if routing is None:
        return None
    body = Body(at, routing, routings) if math.prod(rows.lead) == routing.pairs and rows.source is not None else None
    picked, parts = None, []
    for expert, weight in enumerate(chosen.weights):
        part = None if body is None or rows.source is None else body.of(rows.source, expert)
        if part is None:
            body = None
            picked = _picked(site, at, rows, shape, routing, routings) if picked is None else picked
            own = at.slice(picked, 0, expert * routing.capacity, (expert + 1) * routing.capacity)
        else:
            own = part.value
        own = at.reshape(own, [routing.capacity * rows.m, rows.k])
        parts.append(at.op("MatMul", own, site.constant(f"expert{expert}", weight)))
    width = rows.m * chosen.weights.shape[2]
    back = _back(at, parts, routing, width)
    routings.results[back] = (routing, parts, width)
    return at.reshape(back, [*shape, rows.m, chosen.weights.shape[2]])


def _picked(site: Site, at: At, rows: Rows, shape: tuple[int, ...], routing: Routing, routings: Routings) -> ir.Value:
    """Return the rows that the slots ask for, [experts * capacity, m * k]."""
    table, number, _ = rows.unrepeated(site)
    row_of = np.broadcast_to(number.reshape(rows.lead), shape).reshape(-1)
    return at.op("Gather", table, routings.rows(at, routing, row_of), axis=0)


def _back(at: At, parts: list[ir.Value], routing: Routing, width: int) -> ir.Value:
    """Return the result of every pair, [pairs, width]: that in its slot, or 0."""
    slots = [at.reshape(part, [routing.capacity, width]) for part in parts]
    picked = at.op("Gather", at.op("Concat", *slots, axis=0), routing.slots, axis=0)
    return at.op("Where", at.reshape(routing.kept, [routing.pairs, 1]), picked, 0) if routing.may_drop else picked

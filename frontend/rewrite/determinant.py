"""Determinants of small matrices by expansion along the first row."""

from __future__ import annotations

import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule

#: Rows of the largest matrix that is expanded: 24 products. Larger ones are left to the host.
LARGEST = 4


def det(site: Site) -> bool:
    """Up to four rows: products of elements, by expansion along the first row."""
    size = site.shape[-1]
    if not site.is_float or not 1 <= size <= LARGEST:
        return False
    last = site.rank - 1
    rows = [site.slice(site.x, last - 1, place, place + 1) for place in range(size)]
    cells = [[site.slice(row, last, place, place + 1) for place in range(size)] for row in rows]
    return site.done(site.reshape(_expanded(site, cells), shape_of(site.node.outputs[0])))


def _expanded(site: Site, cells: list[list[ir.Value]]) -> ir.Value:
    """Return the determinant of a matrix given by its cells."""
    first, rest = cells[0], cells[1:]
    if not rest:
        return first[0]
    total: ir.Value | None = None
    for place, cell in enumerate(first):
        minor = _expanded(site, [[each for column, each in enumerate(row) if column != place] for row in rest])
        part = site.op("Mul", cell, minor)
        total = part if total is None else site.op("Sub" if place % 2 else "Add", total, part)
    assert total is not None
    return total


RULES: dict[str, SiteRule] = {"Det": det}

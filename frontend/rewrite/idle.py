"""Operators that do nothing here: a choice that is always the same, a sum with zeros, empty parts of a whole."""

from __future__ import annotations

import onnx_ir as ir

from ..edit import is_constant, shape_of
from .site import Site, SiteRule


def where(site: Site) -> bool:
    """Where of a condition that is constant and the same throughout -> the operand it picks."""
    condition = site.numbers(0)
    if condition is None or not condition.size or condition.min() != condition.max():
        return False
    return _stands_in(site, site.given(1 if condition.flat[0] else 2))


def add(site: Site) -> bool:
    """Add of zeros -> the other operand, where it is not repeated."""
    for place in (0, 1):
        array = site.numbers(1 - place)
        if array is not None and array.size and not array.any() and _stands_in(site, site.given(place)):
            return True
    return False


def concat(site: Site) -> bool:
    """Concat of operands of which some are empty -> Concat of the others."""
    full = [value for value in site.node.inputs if value is not None and 0 not in shape_of(value)]
    if not full or len(full) == len(site.node.inputs):
        return False
    return site.done(site.op("Concat", *full, axis=site.integer("axis", 0)))


def alone(site: Site) -> bool:
    """Of one operand: that."""
    return len(site.node.inputs) == 1 and site.done(site.op("Identity", site.x))


def _stands_in(site: Site, value: ir.Value) -> bool:
    """Let a value made at run time take the place of the result where it has its shape and its name is free."""
    output = site.node.outputs[0]
    if is_constant(value) or shape_of(value) != shape_of(output) or not site.editor.can_stand_for(value, output):
        return False
    return site.done(value)


RULES: dict[str, SiteRule] = {
    "Where": where,
    "Add": add,
    "Concat": concat,
    **dict.fromkeys(("Sum", "Mean", "Max", "Min"), alone),
}

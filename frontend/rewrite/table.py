"""All rewriting rules by operator, in the order they are tried: the first that changes a node ends the round."""

from __future__ import annotations

from .. import canonical
from . import (
    activations,
    bits,
    columns,
    convolution,
    determinant,
    einsum,
    functions,
    idle,
    indexing,
    movement,
    normalisation,
    pooling,
    reductions,
    resize,
    sampling,
    scattering,
    sequences,
    small_integers,
    spectral,
    trigonometry,
    unpooling,
)
from .site import Rule, at_site

_MODULES = (
    idle,
    activations,
    bits,
    reductions,
    normalisation,
    movement,
    indexing,
    pooling,
    convolution,
    resize,
    einsum,
    spectral,
    small_integers,
    trigonometry,
    sampling,
    unpooling,
    scattering,
    columns,
    determinant,
)


def _all() -> dict[str, tuple[Rule, ...]]:
    rules: dict[str, list[Rule]] = {name: list(each) for name, each in canonical.RULES.items()}
    for found in (columns.BIASES, *(module.RULES for module in _MODULES)):
        for name, rule in found.items():
            rules.setdefault(name, []).append(at_site(rule))
    for name in functions.EXPANDED:
        rules.setdefault(name, []).append(functions.expand)
    return {name: tuple(each) for name, each in rules.items()}


RULES = _all()
#: Rules for operators whose results have a size that ONNX's inference does not find: tried before it.
EARLY: dict[str, tuple[Rule, ...]] = {
    name: (at_site(rule),) for name, rule in {**scattering.EARLY, **sequences.EARLY, **unpooling.EARLY}.items()
}

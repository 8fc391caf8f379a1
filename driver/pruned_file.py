"""The model file that ``flexc prune`` writes: the user's own graph with pruned weights, or its simplified form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from flexc.frontend.io import save
from flexc.frontend.linears import find_linears
from flexc.frontend.load import load
from flexc.frontend.origin import forget_numbers, number_nodes, write_back, write_back_constants
from flexc.frontend.source import read
from flexc.passes.prune import NM_KEY


@dataclass(frozen=True)
class Opened:
    """A model file: its graph as it is, and loaded."""

    name: str
    raw: ir.Model
    dense: ir.Model
    external: bool


def open_model(
    path: str, shapes: Mapping[str, Sequence[int]] | None = None, dims: Mapping[str, int] | None = None
) -> Opened:
    """Read a model file, both as it is and simplified.

    Raises:
        FlexcError: it cannot be read or is not supported.
    """
    raw, name = read(path)
    if raw.functions:
        from onnx_ir.passes.common import InlinePass

        InlinePass()(raw)
    external = any(isinstance(value.const_value, ir.ExternalTensor) for value in raw.graph.initializers.values())
    number_nodes(raw)
    return Opened(name, raw, load(raw, shapes, dims, name), external)


def save_pruned(opened: Opened, pruned: ir.Model, target: Path) -> tuple[str, ...]:
    """Write the pruned model; the file's graph stays as it is but for the weights, wherever that can be.

    Returns:
        Warnings: what of the graph could not stay.

    Raises:
        FlexcError: the file cannot be written.
    """
    before = {linear.name: linear for linear in find_linears(opened.dense)}
    after = {linear.name: linear for linear in find_linears(pruned)}
    notes = {name: linear.node.metadata_props[NM_KEY] for name, linear in after.items()}
    lost = write_back(opened.raw, before, after, notes, NM_KEY)
    lost += write_back_constants(opened.raw, opened.dense, pruned, after)
    written, warnings = (pruned, (_simplified(lost),)) if lost else (opened.raw, ())
    forget_numbers(written)
    save(written, target, external=opened.external)
    return warnings


def _simplified(lost: Sequence[str]) -> str:
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return (
        f"the file holds a constant of '{lost[0]}'{more} in a form that cannot be pruned in place, so the simplified "
        "graph with static shapes is written instead"
    )

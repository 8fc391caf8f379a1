"""Bringing a model to given patterns: masks, and what becomes of the weights that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...frontend.linears import Linear, find_linears, replace_weight
from ..calibrate import calibrate
from ..feeds import Feeds
from ..pattern import DENSE, NM
from ..prune import NM_KEY, masked
from .options import Progress, Update, no_progress
from .stream import Route, Stream, sum_grams
from .update import update_weight

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    FloatMatrix = NDArray[np.float32]


def apply_patterns(
    model: ir.Model,
    patterns: Mapping[str, NM],
    feeds: Feeds,
    update: Update = "none",
    samples: int = 128,
    progress: Progress = no_progress,
) -> None:
    """Prune the linears named in `patterns`, in place, and note each one's pattern in its node's metadata.

    Args:
        model: a static graph.
        patterns: linear name -> pattern; linears that are not named are left alone.
        feeds: calibration windows.
        update: ``none``: Wanda masks, weights as they are; else the weights that stay are changed, linear by linear,
            each seeing what the pruned ones before it hand on, and dense ones make up for them too.
        samples: how many calibration windows to use at most.
        progress: told after every linear.

    Raises:
        FlexcError: calibration data that cannot be used.
    """
    chosen = [linear for linear in find_linears(model) if linear.name in patterns]
    if not chosen:
        return
    feeds = feeds.first(samples)
    if update == "none":
        matrices = _masks(model, chosen, patterns, feeds, progress)
    else:
        matrices = _updated(model, chosen, patterns, feeds, update, progress)
    for linear in chosen:
        nm = patterns[linear.name]
        linear.node.metadata_props[NM_KEY] = str(DENSE if nm.is_dense else nm)
        if linear.name in matrices:
            replace_weight(model, linear, matrices[linear.name])


def _masks(
    model: ir.Model, linears: list[Linear], patterns: Mapping[str, NM], feeds: Feeds, progress: Progress
) -> dict[str, FloatMatrix]:
    """Return Wanda's masks on the weights of linears that do not stay dense."""
    statistics = calibrate(model, feeds, len(feeds), [linear.name for linear in linears])
    found = {}
    for done, linear in enumerate(linears):
        if not patterns[linear.name].is_dense:
            found[linear.name] = masked(linear, patterns[linear.name], statistics.norms(linear.name))
        progress("weights", done + 1, len(linears))
    return found


def _updated(
    model: ir.Model,
    linears: list[Linear],
    patterns: Mapping[str, NM],
    feeds: Feeds,
    update: Update,
    progress: Progress,
) -> dict[str, FloatMatrix]:
    """Return new weights of all linears; two streams of windows run side by side, dense and pruned."""
    route = Route(model, linears)
    dense, pruned = Stream(route, feeds, 2), Stream(route, feeds, 2)
    found: dict[str, FloatMatrix] = {}
    native: dict[str, NDArray[Any]] = {}
    for group in route.groups:
        dense.advance({})
        pruned.advance(native)
        grams, cross = sum_grams(group[0], pruned, dense)
        for linear in group:
            if linear.node.op_type == "Conv" and linear is not group[0]:
                grams, cross = sum_grams(linear, pruned, dense)  # another kernel meets the same input otherwise
            matrix = update_weight(linear.matrix(), grams, cross, patterns[linear.name], update)
            found[linear.name], native[linear.name] = matrix, linear.to_weight(matrix)
            progress("weights", len(found), len(linears))
    return found

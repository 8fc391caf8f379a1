"""Bringing a model to given patterns: masks, and what becomes of the weights that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...frontend.linears import find_linears, replace_weight
from ..calibrate import calibrate
from ..feeds import Feeds
from ..pattern import NM
from ..prune import NM_KEY, masked
from .options import Progress, Update, no_progress

if TYPE_CHECKING:
    import onnx_ir as ir


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
        update: ``none``: Wanda masks, weights as they are.
        samples: how many calibration windows to use at most.
        progress: told after every linear.

    Raises:
        FlexcError: calibration data that cannot be used.
    """
    chosen = [linear for linear in find_linears(model) if linear.name in patterns]
    statistics = calibrate(model, feeds, samples, [linear.name for linear in chosen])
    for done, linear in enumerate(chosen):
        nm = patterns[linear.name]
        linear.node.metadata_props[NM_KEY] = str(nm)
        if not nm.is_dense:
            replace_weight(model, linear, masked(linear, nm, statistics.norms(linear.name)))
        progress("weights", done + 1, len(chosen))

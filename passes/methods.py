"""The pruning methods: what each is called, what it takes, and where it is carried out. Light, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..isa.errors import UsageError, did_you_mean

DEFAULT_M = (4, 8)
"""The block lengths that methods choose from unless told otherwise."""

HYPER_M = 5.0
"""Times the mean from which on a metric counts as an outlier, unless said otherwise: OWL's usual value."""

SAMPLES = 128
"""Calibration windows used unless said otherwise."""


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        name: what it is called.
        summary: what it does, for the command line.
        select: ``module:function`` of this room that chooses a pattern for every linear.
        write: ``module:function`` that brings the weights to the patterns; empty: they are left alone.
        takes: which of ``nm``, ``sparsity`` and ``budget`` may say how much to prune; one must. Besides: ``update``
            where weights that stay may be changed, ``metric`` and ``effort`` where divergence is measured, ``permute``
            where channels may be put in another order first.
        uses_data: whether it looks at calibration data.
        update: what becomes of the weights that stay unless the user says otherwise.
        permute: whether channels are put in another order first (``free``) unless the user says otherwise.
    """

    name: str
    summary: str
    select: str
    write: str = ""
    takes: frozenset[str] = frozenset()
    uses_data: bool = False
    update: str = "none"
    permute: str = "none"

    @property
    def amounts(self) -> tuple[str, ...]:
        """What may say how much to prune."""
        return tuple(name for name in AMOUNTS if name in self.takes)

    def heeds(self, option: str) -> bool:
        """Return whether an option of pruning changes anything here: what is chosen, or what is told of outliers."""
        if option in ("calib", "samples"):
            return self.uses_data
        if option in ("selection", "include_tied", "hyper_m"):
            return bool(self.write)
        return option in self.takes or (option == "m_set" and "sparsity" in self.takes)

    def resolve(self, place: str) -> Callable[..., Any]:
        """Import the function that a ``module:function`` of this room names."""
        module, _, function = place.partition(":")
        found: Callable[..., Any] = getattr(import_module(f".{module}", __package__), function)
        return found


AMOUNTS = ("nm", "sparsity", "budget")
"""What can say how much to prune."""

_MASKS, _SEQUENTIAL = "prune:write_masks", "faithful:write_masks"

METHODS = {
    method.name: method
    for method in (
        Method(
            "flow",
            "N and M of every linear by measured divergence",
            "flow_method:select_patterns",
            _MASKS,
            takes=frozenset({"sparsity", "budget", "update", "metric", "effort", "permute"}),
            uses_data=True,
            permute="free",
        ),
        Method(
            "faithful",
            "FLOW as published, by block, with its quirks",
            "faithful:select_patterns",
            _SEQUENTIAL,
            takes=frozenset({"sparsity", "update"}),
            uses_data=True,
        ),
        Method(
            "owl",
            "density of every block by its outliers",
            "baselines:owl",
            _MASKS,
            takes=frozenset({"sparsity", "update", "permute"}),
            uses_data=True,
        ),
        Method(
            "wanda",
            "one density; keep the largest |weight| * ||input||",
            "baselines:uniform",
            _MASKS,
            takes=frozenset({"nm", "sparsity", "update", "permute"}),
            uses_data=True,
        ),
        Method(
            "sparsegpt",
            "one density; SparseGPT's masks and weights",
            "baselines:uniform",
            _MASKS,
            takes=frozenset({"nm", "sparsity", "update", "permute"}),
            uses_data=True,
            update="sparsegpt",
        ),
        Method(
            "magnitude",
            "one density; keep the largest weights",
            "baselines:uniform",
            "prune:write_magnitude",
            takes=frozenset({"nm", "sparsity"}),
        ),
        Method("keep", "find the N:M pattern already in each weight", "baselines:keep"),
        Method("none", "run all weights dense", "baselines:dense"),
    )
}
"""Pruning methods by name."""


def find_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        remedy = did_you_mean(name, list(METHODS)) or f"methods: {', '.join(METHODS)}"
        raise UsageError(f"unknown pruning method '{name}'", remedy=remedy)
    return METHODS[name]

"""Calibration: what a model's linears see on sample data, as sums of squares of every input position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..frontend.edit import shape_of
from ..frontend.linears import find_linears, sharing
from ..isa.errors import FlexcError
from .feeds import Feeds, InputSpec
from .methods import SAMPLES
from .session import Session
from .taps import Tap, tap_linears

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Statistics:
    """Sums of squares of the inputs of linears over calibration windows.

    `square_sums` maps a linear's name to float64 [groups, k], k in the lowered order of the linear's matrix (kh, kw,
    C_in for a convolution): the sum over all windows and all output positions of the input squared.
    """

    windows: int
    square_sums: dict[str, NDArray[np.float64]]

    def norms(self, linear: str) -> NDArray[np.float32]:
        """Return the L2 norm of every input position of a linear: float32 [groups, k]."""
        return np.sqrt(self.square_sums[linear]).astype(np.float32)


def calibrate(
    model: ir.Model, feeds: Feeds, samples: int = SAMPLES, linears: Sequence[str] | None = None
) -> Statistics:
    """Run `model` in onnxruntime on the first `samples` windows and sum the squares of its linears' inputs.

    The sums are taken inside the graph, in float32 for each window, and added up in float64; linears with the same
    input share one. What no linear's input depends on is not run.

    Args:
        model: a static graph; it is left as it is.
        feeds: windows for all inputs of the model.
        samples: how many windows to use at most.
        linears: names of the linears to look at, all when None.

    Raises:
        FlexcError: an input is not finite on some window, or onnxruntime refuses the graph or the data.
    """
    probe = model.clone()
    wanted = [linear for linear in find_linears(probe) if linears is None or linear.name in linears]
    groups = [[linear.name for linear in group] for group in sharing(wanted)]
    taps = tap_linears(probe, wanted)
    chosen = feeds.first(samples)
    if not taps:
        return Statistics(len(chosen), {})
    sums = _run(probe, taps, chosen)
    by_linear = {tap.linear: tap.lower(sums[tap.output]) for tap in taps}
    return Statistics(len(chosen), _with_shared_weights(by_linear, groups))


def _with_shared_weights(
    sums: dict[str, NDArray[np.float64]], groups: Sequence[Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Give linears that share a weight, as the turns of an unrolled recurrence do, the sums of all of them."""
    for group in groups:
        names = [name for name in group if name in sums]
        if len({sums[name].shape for name in names}) == 1:
            total = np.sum([sums[name] for name in names], axis=0) if len(names) > 1 else sums[names[0]]
            sums.update(dict.fromkeys(names, total))
    return sums


def _run(probe: ir.Model, taps: Sequence[Tap], feeds: Feeds) -> dict[str, NDArray[np.float64]]:
    """Run every window and add up the tapped sums: output name -> float64 sums as the graph shapes them."""
    session = Session(probe)
    sums: dict[str, NDArray[np.float64]] = {}
    for index, feed in enumerate(feeds):
        for name, value in session.run(feed).items():
            if not np.isfinite(value).all():
                raise FlexcError(f"calibration window {index}: the input of '{_reader(taps, name)}' is not finite")
            sums[name] = sums[name] + value if name in sums else value.astype(np.float64)
    return sums


def _reader(taps: Sequence[Tap], output: str) -> str:
    """Name the first linear that reads a tapped tensor."""
    return next(tap.linear for tap in taps if tap.output == output)


def input_specs(model: ir.Model) -> list[InputSpec]:
    """Describe the inputs of a static graph; integer inputs that index a table get its size as their vocabulary.

    Raises:
        FlexcError: an input without a static shape and dtype.
    """
    return [_input_spec(value) for value in model.graph.inputs]


def _input_spec(value: ir.Value) -> InputSpec:
    if value.dtype is None:
        raise FlexcError(f"input '{value.name}' has no dtype")
    dtype: np.dtype[Any] = np.dtype(value.dtype.numpy())
    vocabulary = _table_rows(value) if dtype.kind in "iu" else None
    return InputSpec(str(value.name), dtype, shape_of(value), vocabulary)


def _table_rows(value: ir.Value) -> int | None:
    """Rows of the smallest constant table that `value` indexes directly by Gather, if any."""
    rows: list[int] = []
    for use in value.uses():
        table = use.node.inputs[0]
        if use.node.op_type == "Gather" and use.idx == 1 and table is not None and table.const_value is not None:
            axis = use.node.attributes.get_int("axis", 0) or 0
            rows.append(shape_of(table)[axis])
    return min(rows, default=None)

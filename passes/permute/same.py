"""Whether a permuted model still computes what it did: nothing leaves this room on trust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...isa.errors import FlexcError
from ..session import Session

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]

ROUNDING = 0.01
"""Share of an output's norm by which it may differ; sums in another order move float16 by less than a tenth of that."""


@contextmanager
def same_outputs(model: ir.Model, feed: Mapping[str, Array]) -> Iterator[None]:
    """Compare the outputs on one window before and after what is done to the model inside.

    Raises:
        FlexcError: some output is another one than before.
    """
    before = Session(model).run(feed)
    yield
    after = Session(model).run(feed)
    for name, expected in before.items():
        error = distance(expected, after[name])
        if error > ROUNDING:
            raise FlexcError(
                f"in another order of channels output '{name}' differs by {100 * error:.2g} %",
                remedy="leave the order as it is with --permute none, and report the model",
            )


def distance(expected: Array, found: Array) -> float:
    """Return the norm of the difference over that of what was expected; integers and truth values count as equal."""
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0
    wanted, given = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(given)):
        return np.inf
    norm = float(np.linalg.norm(wanted[finite]))
    difference = float(np.linalg.norm(given[finite] - wanted[finite]))
    return difference / norm if norm else difference

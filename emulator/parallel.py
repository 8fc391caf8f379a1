"""Two threads for large vector operations: windows are independent, so each thread takes half of them."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from .values import Call, Handler
from .walk import Leaf

#: Elements of the largest operand, over all windows, from which handing half to another thread pays.
_WORTHWHILE = 1 << 18
_ENGINES = ("vector", "dma0", "dma1")


def over_windows(function: Handler, leaf: Leaf, windows: int) -> Handler:
    """Return a function that works on halves of the windows in two threads, or the same one where that does not pay."""
    largest = max((stream.elements for stream in leaf.streams.values()), default=0)
    if windows < 2 or leaf.engine not in _ENGINES or largest * windows < _WORTHWHILE:
        return function
    middle = windows // 2

    def halves(call: Call, *operands: Any) -> None:
        later = _pool().submit(_quietly, function, call, [_part(each, middle, windows) for each in operands])
        try:
            function(call, *[_part(each, 0, middle) for each in operands])
        finally:
            later.result()

    return halves


def _part(operand: Any, first: int, last: int) -> Any:
    """Return some windows of an operand; what all windows share stays whole."""
    return operand if operand is None or operand.shape[0] == 1 else operand[first:last]


def _quietly(function: Handler, call: Call, operands: list[Any]) -> None:
    with np.errstate(all="ignore"):
        function(call, *operands)


@cache
def _pool() -> Executor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="flexc-values")

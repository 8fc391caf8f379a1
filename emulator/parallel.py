"""Two threads for large operations: windows are independent, so each thread takes half of them.

Both wait for the other asleep, unlike the threads inside BLAS, which slow down a busy machine many times over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

#: Elements of the largest operand, over all windows, from which handing half to another thread pays.
WORTHWHILE = 1 << 18
_PROCESSORS = os.cpu_count() or 1


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which a matrix product stays in the thread that asks for it.

    The products of a tile are small: BLAS gains little from a second thread, and on a machine that is busy otherwise
    its threads wait for each other a hundred times longer than the product takes.
    """
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limit


def in_halves(work: Callable[[slice], None], windows: int, size: int) -> None:
    """Carry out work on all windows; on halves of them in two threads where ``size`` elements make that worthwhile."""
    if windows < 2 or size < WORTHWHILE or _PROCESSORS < 2:
        work(slice(0, windows))
        return
    middle = windows // 2
    later = _pool().submit(_quietly, work, slice(middle, windows))
    try:
        work(slice(0, middle))
    finally:
        later.result()


def part(operand: Any, windows: slice) -> Any:
    """Return some windows of an operand; what all windows share stays whole."""
    return operand if operand is None or operand.shape[0] == 1 else operand[windows]


def _quietly(work: Callable[[slice], None], windows: slice) -> None:
    with np.errstate(all="ignore"):
        work(windows)


@cache
def _pool() -> Executor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="flexc-values")

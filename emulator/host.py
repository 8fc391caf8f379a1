"""The host: segments of the model that onnxruntime runs on tensors in DRAM."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..isa.errors import FlexcError
from ..isa.program import Program, Segment
from .memory import Memories


class Host:
    """Runs segments, a window at a time; sessions are made on first use and kept."""

    def __init__(self, program: Program) -> None:
        self._segments = program.segments
        self._sessions: dict[int, Any] = {}

    def run(self, number: int, memories: Memories) -> None:
        """Run one segment in every window.

        Raises:
            FlexcError: onnxruntime refuses the segment or fails in it, or its results do not fit.
        """
        if number >= len(self._segments):
            raise FlexcError(f"the program has no host segment {number}")
        segment = self._segments[number]
        session = self._session(number)
        feeds = {tensor.name: memories.tensor(tensor) for tensor in segment.inputs}
        results = [memories.tensor(tensor) for tensor in segment.outputs]
        for window in range(memories.windows):
            given = {name: np.asarray(value[window % len(value)], order="C") for name, value in feeds.items()}
            for place, value in zip(results, _outputs(session, segment, given), strict=True):
                _write(place[window, ...], value, segment)

    def _session(self, number: int) -> Any:
        if number not in self._sessions:
            self._sessions[number] = _open(self._segments[number])
        return self._sessions[number]


def _open(segment: Segment) -> Any:
    try:
        return open_session(segment.model)
    except Exception as error:
        raise _failure(segment, error) from error


def open_session(model: bytes) -> Any:
    """Return onnxruntime's session for a segment's model; its errors are onnxruntime's own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(2, os.cpu_count() or 1)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _outputs(session: Any, segment: Segment, given: dict[str, Any]) -> list[Any]:
    try:
        results: list[Any] = session.run([tensor.name for tensor in segment.outputs], given)
    except Exception as error:
        raise _failure(segment, error) from error
    return results


def _write(place: Any, value: Any, segment: Segment) -> None:
    if np.shape(value) != place.shape or value.dtype != place.dtype:
        got = f"{value.dtype}{list(np.shape(value))}"
        raise FlexcError(f"host segment '{segment.name}' gives {got}, not {place.dtype}{list(place.shape)}")
    np.copyto(place, value)


def _failure(segment: Segment, error: Exception) -> FlexcError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return FlexcError(f"host segment '{segment.name}' failed in onnxruntime: {lines[0]}")

"""Does the cleaned and rewritten graph still mean what the file says? Both in onnxruntime, on the same windows.

Everything else in a check starts from the loaded graph, so a wrong rewriting would show nowhere but here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flexc.check_closeness import ClosenessSink
from flexc.emulation import Arrays
from flexc.isa.errors import FlexcError
from flexc.passes.session import Session, first_line, open_session
from flexc.verdict import Closeness

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.compiler import Model

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
"""Element types of inputs, as onnxruntime calls them, that a program's inputs can be brought to."""


class FileSession:
    """A model exactly as it was given, no node of it touched or fused.

    Raises:
        FlexcError: onnxruntime refuses it, or its inputs have types that a program's cannot be brought to.
    """

    def __init__(self, model: Model) -> None:
        self._session: Any = open_session(_source(model))
        self._types = {item.name: item.type for item in self._session.get_inputs()}
        unknown = sorted({kind for kind in self._types.values() if kind not in _TYPES})
        if unknown:
            raise FlexcError(f"its inputs are {', '.join(unknown)}")
        self.outputs = tuple(item.name for item in self._session.get_outputs())

    def run(self, feed: Arrays) -> Arrays:
        """Run one window; inputs are brought to the types that the file declares."""
        missing = sorted(self._types.keys() - feed.keys())
        if missing:
            raise FlexcError(f"the program has no input '{missing[0]}'")
        given = {name: np.asarray(feed[name], _TYPES[kind]) for name, kind in self._types.items()}
        try:
            results = self._session.run(None, given)
        except Exception as error:
            raise FlexcError(f"onnxruntime cannot run it: {first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))


def _source(model: Model) -> str | bytes:
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    import onnx_ir as ir

    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return bytes(proto.SerializeToString())


def compare_with_file(
    model: Model, graphs: Sequence[ir.Model], windows: list[Arrays], routing: Mapping[str, Any]
) -> tuple[Closeness | None, str]:
    """Return how close a loaded graph's outputs are to the file's; or None and why that cannot be said.

    Args:
        model: the file.
        graphs: what was made of it; where experts have a declared capacity, first the graph that keeps to it, which
            speaks for windows of which nothing is dropped, then the one without.
        windows: inputs.
        routing: the routings of the first graph.
    """
    try:
        session = FileSession(model)
        sessions, sink = [Session(graph) for graph in graphs], ClosenessSink(session, len(windows))
        for place, feed in enumerate(windows):
            one = {name: np.asarray(array)[np.newaxis] for name, array in feed.items()}
            made = sessions[0].run(feed)
            dropped = made.get(routing.get("output", ""))
            if dropped is not None and dropped.any():
                made = sessions[-1].run(feed)
            sink.sink(place, one, {name: np.asarray(array)[np.newaxis] for name, array in made.items()})
    except FlexcError as error:
        return None, f"the loaded graph was not compared with the file: {error.message}"
    return sink.result(), ""

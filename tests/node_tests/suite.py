"""ONNX's node tests, run through flexc's backend adapter: where each case runs, and whether its numbers are right."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner

from flexc.api import Program
from flexc.backend_adapter import FlexcBackend
from flexc.isa.errors import FlexcError

OUTCOMES = ("native", "host", "refused", "wrong", "bug")


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes:
        name: the case, without ``test_``.
        op_type: the operator that it is about.
        status: ``native`` or ``host`` (some of it there) with the right numbers; ``refused`` with a clean error;
            ``wrong`` numbers; ``bug``, any other exception.
        reason: why something is on the host, why it was refused, what is wrong.
        quantised: whether part of it ran on the array, in INT8 where the model has float32.
    """

    name: str
    op_type: str
    status: str
    reason: str
    quantised: bool = False


def cases() -> list[TestCase]:
    """Return every case, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(collect_testcases(None), key=lambda case: case.name)


def run_case(case: TestCase) -> Outcome:
    """Run a case and judge it at its own tolerances."""
    name, op_type = case.name.removeprefix("test_"), _subject(case)
    try:
        program = _run(case)
    except FlexcError as error:
        return Outcome(name, op_type, "refused", error.message)
    except AssertionError as error:
        return Outcome(name, op_type, "wrong", " ".join(str(error).split())[:300])
    except Exception as error:  # noqa: BLE001  a bug of ours is an outcome, too
        return Outcome(name, op_type, "bug", f"{type(error).__name__}: {error}")
    ops = program.image.debug.ops
    reasons = dict.fromkeys(op.reason for op in ops if op.engine == "host")
    quantised = any(op.engine == "array" for op in ops)
    return Outcome(name, op_type, "host" if reasons else "native", "; ".join(reasons), quantised)


def _subject(case: TestCase) -> str:
    """Return the operator that a case is about: for an expanded function that of the case it comes from."""
    assert case.model is not None
    nodes = case.model.graph.node
    return str(nodes[0].op_type) if len(nodes) == 1 else "several"


def _run(case: TestCase) -> Program:
    """Return the program of the last data set; AssertionError where numbers differ."""
    assert case.model is not None
    rep = FlexcBackend.prepare(case.model)
    program = None
    for inputs, expected in case.data_sets or ():
        names = [value.name for value in case.model.graph.input]
        given = dict(zip(names, map(_array, inputs), strict=True))
        with np.errstate(all="ignore"):
            outputs = rep.run(given)
            program = rep.program(given)
        _compare(case, expected, outputs)
    if program is None:
        raise FlexcError("the case has no data")
    return program


def _array(value: Any) -> Any:
    """Return what a case gives as an array where it is a tensor: some are numpy's numbers, some messages."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _compare(case: TestCase, expected: Sequence[Any], outputs: Sequence[Any]) -> None:
    Runner.assert_similar_outputs(list(map(_array, expected)), list(outputs), rtol=case.rtol, atol=case.atol)

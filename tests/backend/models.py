"""Small models written as text, and running them on a machine next to onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, parser

from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program
from tests.backend.compare import assert_same

Array = npt.NDArray[Any]


def parsed(text: str, **constants: Array) -> onnx.ModelProto:
    """Read a graph in ONNX's own notation, ``(float[2] x) => (float[] y) { y = Abs(x) }``, and add constants to it."""
    graph = parser.parse_graph(f"small {text}")
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def random_feeds(model: onnx.ModelProto, windows: int = 2, seed: int = 0) -> dict[str, Array]:
    """Return quarters within 4, whole numbers or truth values for all inputs, [windows, *shape]."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for each in model.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type)
        numbers = rng.integers(-16, 17, (windows, *(dim.dim_value for dim in each.type.tensor_type.shape.dim)))
        quarters: Array = numbers > 0 if kind == np.bool_ else numbers / 4
        feeds[each.name] = quarters.astype(kind)
    return feeds


def check(
    text: str,
    machine: Machine | str = "edge",
    *,
    exact: bool = True,
    arrays: Mapping[str, Array] | None = None,
    **constants: Array,
) -> Program:
    """Compile a graph, compare all its outputs with onnxruntime on random inputs, and return the program."""
    model = parsed(text, **(arrays or {}), **constants)
    target = load_machine(machine) if isinstance(machine, str) else machine
    outputs = {each.name: exact for each in model.graph.output}
    return assert_same(model, target, random_feeds(model), outputs)


def engines(program: Program) -> list[str]:
    """Return the engine of every op of a program."""
    return [op.engine for op in program.debug.ops]


def reasons(program: Program) -> str:
    """Return why ops run on the host."""
    return "; ".join(op.reason for op in program.debug.ops if op.engine == "host")

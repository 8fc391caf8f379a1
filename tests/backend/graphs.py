"""Random small graphs of the operators that the machine runs, for comparing programs with onnxruntime.

A draft knows of every value whether it is exact: made by operators whose result has only one right bit pattern. Only
exact values go into operators that jump (rounding, comparing, quantising), so that results can be compared tightly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

OPSET = 20
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 16, 31, 33, 64)
MOST_ELEMENTS = 3000
#: Greatest magnitude that a value may reach, by the bounds that the draft keeps.
BOUND = 1e5
ONNX_TYPES = {
    "f": onnx.TensorProto.FLOAT,
    "i4": onnx.TensorProto.INT32,
    "i8": onnx.TensorProto.INT64,
    "b": onnx.TensorProto.BOOL,
}
NUMPY_TYPES: dict[str, type[np.generic]] = {"f": np.float32, "i4": np.int32, "i8": np.int64, "b": np.bool_}


@dataclass(frozen=True)
class Value:
    """A value of the graph: element type (a key of ``NUMPY_TYPES``), shape, greatest magnitude, and whether exact."""

    name: str
    dtype: str
    shape: Shape
    bound: float = 4.0
    exact: bool = True


@dataclass
class Draft:
    """A graph in the making."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    def pick(self, dtypes: str = "f", *, exact: bool = False, least_rank: int = 0) -> Value:
        """Return a value of one of these types, most often a late one; a new input where there is none."""
        kinds = dtypes.split()
        found = [
            each
            for each in self.values
            if each.dtype in kinds and (each.exact or not exact) and len(each.shape) >= least_rank
        ]
        if not found:
            return self.input(kinds[0], self.shape(least_rank))
        return found[max(self.below(len(found)), self.below(len(found)))]

    def below(self, number: int) -> int:
        """Return a random whole number from 0 to number - 1."""
        return int(self.rng.integers(number))

    def chance(self, probability: float) -> bool:
        """Return True that often."""
        return bool(self.rng.random() < probability)

    def one_of(self, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return choices[self.below(len(choices))]

    def shape(self, least_rank: int = 0) -> Shape:
        """Return a random shape, not too large."""
        shape = [int(self.one_of(SIZES)) for _ in range(max(least_rank, self.below(5)))]
        while math.prod(shape) > MOST_ELEMENTS:
            shape[int(np.argmax(shape))] //= 2
        return tuple(shape)

    def input(self, dtype: str, shape: Shape) -> Value:
        """Return a new graph input."""
        value = Value(f"in{len(self.inputs)}", dtype, shape)
        self.inputs.append(value)
        self.values.append(value)
        return value

    def array(self, dtype: str, shape: Shape) -> Array:
        """Return random numbers within 4: quarters, whole numbers or truth values."""
        numbers = self.rng.integers(-16, 17, shape)
        if dtype == "b":
            return np.asarray(numbers > 0)
        return np.asarray(numbers / 4 if dtype == "f" else numbers // 4, NUMPY_TYPES[dtype])

    def constant(self, array: npt.ArrayLike) -> str:
        """Return the name of a new initializer."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def ints(self, *numbers: int) -> str:
        """Return the name of a new initializer of whole numbers."""
        return self.constant(np.array(numbers, np.int64))

    def node(
        self, op: str, inputs: Sequence[str], like: Value, *, outputs: Sequence[Shape] | None = None, **attributes: Any
    ) -> Value:
        """Add a node with outputs as ``like`` (one, or one of each shape in ``outputs``); return the last."""
        made = []
        for place, shape in enumerate([like.shape] if outputs is None else outputs):
            name = f"v{len(self.nodes)}_{place}"
            made.append(Value(name, like.dtype, tuple(shape), like.bound, like.exact))
        self.nodes.append(
            helper.make_node(op, inputs, [each.name for each in made], f"n{len(self.nodes)}", **attributes)
        )
        self.values += made
        return made[-1]

    def tamed(self, value: Value, bound: float) -> Value:
        """Return the value itself, or clipped where it may be too large for a result to stay within ``BOUND``."""
        if bound <= BOUND or value.dtype != "f":
            return value
        low, high = (self.constant(np.float32(each)) for each in (-4, 4))
        return self.node("Clip", [value.name, low, high], Value("", "f", value.shape, 4.0, value.exact))

    def model(self) -> onnx.ModelProto:
        """Return the graph with every value that nothing reads as output, and sometimes others."""
        read = {name for node in self.nodes for name in node.input}
        made = [each for each in self.values if each not in self.inputs]
        outputs = [each for each in made if each.dtype in ONNX_TYPES and (each.name not in read or self.chance(0.1))]
        if self.chance(0.1):
            outputs.append(self.node("Identity", [self.inputs[0].name], self.inputs[0]))
        graph = helper.make_graph(
            self.nodes,
            "fuzz",
            [_info(each) for each in self.inputs],
            [_info(each) for each in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)

    def feeds(self, windows: int) -> dict[str, Array]:
        """Return numbers for all inputs, [windows, *shape]."""
        return {each.name: self.array(each.dtype, (windows, *each.shape)) for each in self.inputs}


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, ONNX_TYPES[value.dtype], value.shape)


Maker = Callable[[Draft], object]


def random_draft(seed: int, makers: Sequence[Maker], nodes: int = 12) -> Draft:
    """Return a draft of about that many nodes, every one by one of the makers."""
    draft = Draft(np.random.default_rng(seed))
    for _ in range(1 + draft.below(2)):
        draft.input(draft.one_of(["f", "f", "f", "f", "i8", "i4", "b"]), draft.shape())
    while len(draft.nodes) < nodes:
        makers[draft.below(len(makers))](draft)
    return draft

"""The place of a node that is being rewritten: short ways to put primitives there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..edit import Editor, constant_array, shape_of

#: An operand of a new node: a value, a number of the site's own element type, or nothing.
Given: TypeAlias = "ir.Value | float | None"
#: An attribute of a new node.
Attribute: TypeAlias = "int | float | str | Sequence[int]"


class Site:
    """Builds nodes in front of ``node``, whose element type numbers take (that of its first input)."""

    def __init__(self, node: ir.Node, editor: Editor) -> None:
        self.node, self.editor = node, editor
        self.count = 0

    @property
    def x(self) -> ir.Value:
        """The node's first input."""
        return self.given(0)

    def given(self, place: int) -> ir.Value:
        """Return an input that the operator always has."""
        value = self.node.inputs[place]
        assert value is not None
        return value

    def maybe(self, place: int) -> ir.Value | None:
        """Return an input that may be left out."""
        return self.node.inputs[place] if len(self.node.inputs) > place else None

    def numbers(self, place: int) -> np.ndarray | None:
        """Return the numbers of a constant input, None where it is left out or not constant."""
        return constant_array(self.maybe(place))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input."""
        return shape_of(self.x)

    @property
    def rank(self) -> int:
        """The number of dimensions of the first input."""
        return len(self.shape)

    @property
    def opset(self) -> int:
        """The version of ONNX's operators that the model uses."""
        graph = self.node.graph
        assert graph is not None
        return graph.opset_imports[""]

    def op(self, op_type: str, *inputs: Given, **attributes: Attribute) -> ir.Value:
        """Insert a node with one output and return that."""
        self.count += 1
        values = [self.number(each) if isinstance(each, int | float) else each for each in inputs]
        return self.editor.insert(
            self.node,
            op_type,
            values,
            suffix=f".{op_type.lower()}{self.count}",
            attributes=ir.convenience.convert_attributes(attributes),
        )

    def number(self, value: float, like: ir.Value | None = None) -> ir.Value:
        """Return a scalar constant of the first input's element type, or of that of ``like``."""
        dtype = (like or self.x).dtype or ir.DataType.FLOAT
        return self.constant(np.array(value).astype(dtype.numpy()), dtype)

    def ints(self, values: Sequence[int]) -> ir.Value:
        """Return a constant list of whole numbers: a shape, axes, pads."""
        return self.constant(np.array(values, dtype=np.int64))

    def constant(self, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
        """Return a constant."""
        return self.editor.constant(f"{self.node.name}.constant", array, dtype)

    def reshape(self, value: ir.Value, dims: Sequence[int]) -> ir.Value:
        """Return a value under another shape."""
        return self.op("Reshape", value, self.ints(dims))

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Return a value with its dimensions in another order."""
        return value if list(perm) == sorted(perm) else self.op("Transpose", value, perm=list(perm))

    def slice(self, value: ir.Value, axis: int, start: int, end: int, step: int = 1) -> ir.Value:
        """Return a part of one dimension; counting back, ``end`` must be below minus its size to take in index 0."""
        return self.op("Slice", value, self.ints([start]), self.ints([end]), self.ints([axis]), self.ints([step]))

    def flip(self, value: ir.Value, axis: int) -> ir.Value:
        """Return a value with one dimension in reverse."""
        return self.slice(value, axis, -1, -(2**31), -1)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return a value in another element type."""
        return self.op("Cast", value, to=int(dtype))

    def reduce(self, op_type: str, value: ir.Value, axes: Sequence[int], *, keepdims: bool = True) -> ir.Value:
        """Return a reduction, in the form that the model's operator set has."""
        as_input = self.opset >= (13 if op_type == "ReduceSum" else 18)
        if as_input:
            return self.op(op_type, value, self.ints(axes), keepdims=int(keepdims))
        return self.op(op_type, value, axes=list(axes), keepdims=int(keepdims))

    def integer(self, name: str, default: int) -> int:
        """Return an attribute of the node."""
        return self.node.attributes.get_int(name, default)

    def real(self, name: str, default: float) -> float:
        """Return an attribute of the node."""
        return self.node.attributes.get_float(name, default)

    def text(self, name: str, default: str) -> str:
        """Return an attribute of the node."""
        return self.node.attributes.get_string(name, default)

    def list(self, name: str, default: Sequence[int]) -> list[int]:
        """Return an attribute of the node."""
        return list(self.node.attributes.get_ints(name, default))

    def axis(self, default: int, name: str = "axis") -> int:
        """Return an axis attribute, counted from 0."""
        return self.integer(name, default) % max(1, self.rank)

    @property
    def is_float(self) -> bool:
        """Whether the first input is float32, which arithmetic on the vector unit takes."""
        return self.x.dtype == ir.DataType.FLOAT

    def done(self, *results: ir.Value) -> bool:
        """Let these take the place of the node's outputs; more outputs must be unused. Return True."""
        self.node.resize_outputs(len(results))
        self.editor.substitute(self.node, list(results))
        return True

    def only_first(self) -> bool:
        """Return whether only the first output is used."""
        return not any(out.uses() or out.is_graph_output() for out in self.node.outputs[1:])


#: Rewrites one node through its site and returns True, or leaves it and returns False.
SiteRule: TypeAlias = "Callable[[Site], bool]"
Rule: TypeAlias = "Callable[[ir.Node, Editor], bool]"


def at_site(rule: SiteRule) -> Rule:
    """Return the rule as the simplifier calls it."""

    def apply(node: ir.Node, editor: Editor) -> bool:
        return rule(Site(node, editor))

    apply.__doc__ = rule.__doc__
    return apply

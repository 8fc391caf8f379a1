"""Half and double precision: the machine computes in float32, so the graph does, too.

Whatever depends on an input is float32: constants are converted where such a node reads them, casts to another
precision become casts to float32. What is known at compile time is computed in its own precision first. Inputs and
outputs of the graph keep float16, with a Cast beside them; the machine has neither bfloat16 nor float64, so such
inputs and outputs become float32.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, is_constant

#: Element types that become float32.
NARROWED = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
NARROWED_KEY = "flexc.precision"
"""Metadata key of a model: the element types that were replaced by float32."""

_INTERFACE_KEY = "flexc.interface"  # node metadata: a Cast beside an input or output
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype", "softmax_precision")
_FLOAT = ir.DataType.FLOAT


class Precision:
    """Brings one graph to float32, node by node as they are visited."""

    def __init__(self, model: ir.Model, editor: Editor) -> None:
        self._model, self._editor = model, editor
        self._converted: dict[ir.Value, ir.Value] = {}
        self._found: set[str] = set()

    def interface(self) -> None:
        """Convert inputs and outputs of the graph."""
        graph = self._model.graph
        for value in graph.inputs:
            if value.dtype in NARROWED:
                self._note(value.dtype)
                self._input(value)
        for place, value in enumerate(tuple(graph.outputs)):
            if value.dtype in NARROWED:
                self._note(value.dtype)
            if value.dtype == ir.DataType.FLOAT16:
                graph.outputs[place] = self._output(value)

    def _input(self, value: ir.Value) -> None:
        if value.dtype != ir.DataType.FLOAT16:
            _retype(value)
            return
        uses = list(value.uses())
        real = _cast(value, _FLOAT, f"{value.name}.f32")
        self._model.graph.insert_before(next(iter(self._model.graph)), real)
        for use in uses:
            use.node.replace_input_with(use.idx, real.outputs[0])

    def _output(self, value: ir.Value) -> ir.Value:
        """Return what takes the place of a float16 output: a cast of its float32."""
        if value.producer() is None:  # an input or a constant
            return value
        name = str(value.name)
        value.name = f"{name}.f32"
        narrow = _cast(value, ir.DataType.FLOAT16, name)
        self._model.graph.append(narrow)
        return narrow.outputs[0]

    def adapt(self, node: ir.Node) -> None:
        """Convert the constants, the types and the subgraphs' inputs that a node names, unless all is known of it."""
        if _INTERFACE_KEY in node.metadata_props or _folds(node):
            return
        for place, value in enumerate(node.inputs):
            if value is not None and value.dtype in NARROWED and is_constant(value):
                node.replace_input_with(place, self._constant(value))
        for attribute in tuple(node.attributes.values()):
            self._attribute(node, attribute)
        for value in node.outputs:
            if value.dtype in NARROWED:  # what the file declares; in subgraphs nobody works it out anew
                _retype(value)

    def _constant(self, value: ir.Value) -> ir.Value:
        if value not in self._converted:
            self._note(value.dtype)
            array = constant_array(value)
            assert array is not None, "it is a constant"
            with np.errstate(over="ignore"):
                real = array.astype(np.float32)
            self._converted[value] = self._editor.constant(f"{value.name}.f32", real)
        return self._converted[value]

    def _attribute(self, node: ir.Node, attribute: ir.Attr) -> None:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
            if ir.DataType(attribute.as_int()) in NARROWED:
                self._note(ir.DataType(attribute.as_int()))
                node.attributes[attribute.name] = ir.AttrInt64(attribute.name, int(_FLOAT))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in NARROWED:
            real = ir.Tensor(attribute.as_tensor().numpy().astype(np.float32))
            node.attributes[attribute.name] = ir.AttrTensor(attribute.name, real)
        elif attribute.type == ir.AttributeType.GRAPH:
            for value in attribute.as_graph().inputs:
                if value.dtype in NARROWED:
                    _retype(value)

    def _note(self, dtype: ir.DataType | None) -> None:
        if dtype is not None:
            self._found.add(dtype.name.lower())
            self._model.metadata_props[NARROWED_KEY] = ", ".join(sorted(self._found))


def _retype(value: ir.Value) -> None:
    """Make a value float32; its type is one of its own then, since a copy of a model shares types with the model."""
    value.type = deepcopy(value.type)
    value.dtype = _FLOAT


def _folds(node: ir.Node) -> bool:
    """Return whether a node will be computed at compile time in its own precision; nobody computes in bfloat16."""
    given = [value for value in node.inputs if value is not None]
    known = all(is_constant(value) and value.dtype != ir.DataType.BFLOAT16 for value in given)
    return known and node.op_type != "DequantizeLinear"


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    """Return a Cast beside an input or output; its result has that name."""
    node = ir.node("Cast", [value], {"to": dtype}, name=f"{name}.cast", metadata_props={_INTERFACE_KEY: "1"})
    output = node.outputs[0]
    output.name, output.dtype, output.shape = name, dtype, value.shape
    return node

"""flexc as an ONNX backend: ``prepare``, ``run_model`` and ``run_node`` of :class:`onnx.backend.base.Backend`.

A program is compiled at the first run, as it needs the shapes of its inputs, and again when they change. Inputs that
only say how data moves (a Reshape's shape, a Slice's bounds; see ``frontend/steering.py``) are constants of a program:
it is compiled for the numbers that are given. Programs compute float64 and bfloat16 in float32; inputs and outputs of
these types are converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.backend.base import Backend, BackendRep, namedtupledict

from flexc.api import Program
from flexc.compiler import Options, compile_graph
from flexc.frontend.source import read
from flexc.frontend.steering import steering_inputs
from flexc.isa.errors import FlexcError

Array: TypeAlias = npt.NDArray[Any]
Given: TypeAlias = Mapping[str, Array]


class FlexcRep(BackendRep):
    """A model that is compiled when its inputs are known.

    Args:
        model: the model; it is not changed.
        options: fields of :class:`flexc.compiler.Options`, such as ``target``.
    """

    def __init__(self, model: onnx.ModelProto, **options: Any) -> None:
        self._model = model
        self._options = {"keep_reference": False, "prune": "none", **options}
        graph = read(model)[0].graph
        self._inputs = [str(value.name) for value in graph.inputs if not value.is_initializer()]
        self._outputs = {str(value.name): value.dtype for value in graph.outputs}
        self._steering = steering_inputs(graph)
        self._programs: dict[tuple[object, ...], Program] = {}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the outputs, in the model's order, for inputs in its order (or by name).

        Raises:
            FlexcError: the model, or an input, is of a kind that flexc does not compile.
        """
        given = self._by_name(inputs)
        program = self.program(given)
        feeds = {each.name: _fed(given[each.name], each.dtype) for each in program.image.inputs if each.name in given}
        made = program.run(feeds).outputs
        results = [_declared(made[name], dtype) for name, dtype in self._outputs.items()]
        return tuple(namedtupledict("Outputs", list(self._outputs))(*results))

    def program(self, given: Given) -> Program:
        """Return the program for inputs of these shapes, and for the numbers of those that steer."""
        shapes = tuple((name, array.shape) for name, array in given.items())
        key = (shapes, *(given[name].tobytes() for name in self._steering if name in given))
        if key not in self._programs:
            self._programs[key] = self._compile(given)
        return self._programs[key]

    def _by_name(self, inputs: Any) -> dict[str, Array]:
        given = inputs if isinstance(inputs, Mapping) else dict(zip(self._inputs, _listed(inputs), strict=False))
        every = {name: _array(value) for name, value in given.items()}
        for name, value in every.items():
            if not isinstance(value, np.ndarray | np.generic):
                raise FlexcError("is not a tensor", where=f"input '{name}'", remedy="flexc takes tensors only")
        return {name: np.asarray(value) for name, value in every.items()}

    def _compile(self, given: Given) -> Program:
        model, _ = read(self._model)
        for value in tuple(model.graph.inputs):
            if value.name in self._steering and value.name in given:
                _fix(model.graph, value, given[str(value.name)])
        shapes = {name: array.shape for name, array in given.items() if name not in self._steering}
        return Program(compile_graph(model, Options(shapes=shapes, **self._options)).program)


def _array(value: Any) -> Any:
    """Return the numbers of a TensorProto, anything else as it is."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _fed(array: Array, dtype: str) -> Array:
    """Return an input as the program takes it: float64 and bfloat16 as float32, which it computes in."""
    wide = dtype == "f32" and array.dtype in (np.float64, ir.DataType.BFLOAT16.numpy())
    return array.astype(np.float32) if wide else array


def _declared(array: Array, dtype: ir.DataType | None) -> Array:
    """Return an output in the type that the model declares, where that is another precision of float32."""
    wide = dtype in (ir.DataType.DOUBLE, ir.DataType.BFLOAT16) and array.dtype == np.float32
    return array.astype(dtype.numpy()) if wide and dtype is not None else array


def _listed(inputs: Any) -> Sequence[Any]:
    return inputs if isinstance(inputs, list | tuple) else [inputs]


def _fix(graph: ir.Graph, value: ir.Value, array: Array) -> None:
    """Make a graph input a constant."""
    graph.inputs.remove(value)
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=value.name)
    value.const_value, value.shape, value.type = tensor, ir.Shape(array.shape), ir.TensorType(tensor.dtype)
    graph.register_initializer(value)


class FlexcBackend(Backend):
    """The backend: compiles for ``edge`` and runs on the emulator. Keyword arguments are those of ``Options``."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> FlexcRep:
        """Return a model that can be run many times.

        Raises:
            FlexcError: the model is not valid.
        """
        if not cls.supports_device(device):
            raise FlexcError(f"no device '{device}'", remedy="use 'CPU': the emulator runs there")
        return FlexcRep(model, **kwargs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node on arrays; ``opset_version`` among the keyword arguments picks the operator set.

        Raises:
            FlexcError: as :meth:`FlexcRep.run`.
        """
        arrays = [np.asarray(each) for each in _listed(inputs)]
        names = [name for name in node.input if name]
        infos = [_info(name, array) for name, array in zip(names, arrays, strict=True)]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        version = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        graph = onnx.helper.make_graph([node], "node", infos, results)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, version)])
        return cls.prepare(model, device, **kwargs).run(dict(zip(names, arrays, strict=True)))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether programs run there: the emulator runs on the CPU."""
        return device == "CPU"


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


prepare = FlexcBackend.prepare
run_model = FlexcBackend.run_model
run_node = FlexcBackend.run_node
supports_device = FlexcBackend.supports_device

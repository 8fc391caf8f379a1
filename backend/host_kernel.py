"""Host segments: the nodes that the machine cannot run itself, as one ONNX model with its own inputs and outputs."""

from __future__ import annotations

import onnx_ir as ir

from ..frontend.infer import reads
from ..isa.program import Segment, Tensor
from ..passes.partition import Kernel
from .code import Builder
from .context import Context
from .views import View


class HostKernel:
    """One host segment."""

    def __init__(self, kernel: Kernel, context: Context, model: ir.Model, number: int) -> None:
        self.kernel, self.model, self.number = kernel, model, number
        reads = [value for value in kernel.inputs() if value.const_value is None]
        self.inputs = [(str(value.name), context.view(value)) for value in reads]
        self.values = [value for value in kernel.outputs() if value.name]
        self.outputs = [(str(value.name), context.output(value)) for value in self.values]
        self.reads = reads

    def emit(self, builder: Builder) -> None:
        """Write the call."""
        builder.emit("host", segment=self.number)
        builder.emit("barrier")

    def segment(self) -> Segment:
        """Return the segment as the object file holds it; addresses must be known."""
        content = extract(self.model, self.kernel.nodes, self.reads, self.values, f"host_{self.number}")
        return Segment(
            self.kernel.name,
            tuple(tensor_of(name, view) for name, view in self.inputs),
            tuple(tensor_of(name, view) for name, view in self.outputs),
            ir.to_proto(content).SerializeToString(deterministic=True),
        )


def tensor_of(name: str, view: View) -> Tensor:
    """Return a view as the object file describes tensors."""
    return Tensor(name, view.dtype, view.shape, view.storage.space, view.address, view.strides)


def extract(
    model: ir.Model, nodes: list[ir.Node], inputs: list[ir.Value], outputs: list[ir.Value], name: str
) -> ir.Model:
    """Return a model of these nodes alone; constants that they read come along."""
    copies: dict[ir.Value, ir.Value] = {}

    def copy(value: ir.Value | None) -> ir.Value | None:
        if value is None:
            return None
        if value not in copies:
            held = _inside(value.const_value)
            copies[value] = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=held)
        return copies[value]

    new_inputs = [each for each in map(copy, inputs) if each is not None]
    for node in nodes:  # subgraphs read constants from around them by name
        for value in reads(node):
            copy(value)
    new_nodes = [
        ir.Node(
            node.domain,
            node.op_type,
            [copy(value) for value in node.inputs],
            list(node.attributes.values()),
            outputs=[each for each in map(copy, node.outputs) if each is not None],
            name=node.name,
            overload=node.overload,
            version=node.version,
        )
        for node in nodes
    ]
    made = {value for node in new_nodes for value in node.outputs} | set(new_inputs)
    constants = [each for each in copies.values() if each not in made and each.const_value is not None]
    new_outputs = [each for each in map(copy, outputs) if each is not None]
    graph = ir.Graph(
        new_inputs, new_outputs, nodes=new_nodes, initializers=constants, opset_imports=model.opset_imports, name=name
    )
    return ir.Model(graph, ir_version=model.ir_version)


def _inside(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """Return a constant that does not depend on the model's data file: a program must stand on its own."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)

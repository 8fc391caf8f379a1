"""Outputs that are constants: a program has to put them where the user looks for them."""

from __future__ import annotations

import onnx_ir as ir


def give_constants_a_node(graph: ir.Graph) -> None:
    """Let an Identity make every output that is an initializer; names stay."""
    for value in dict.fromkeys(graph.outputs):
        if value.is_initializer() and value.const_value is not None:
            _copied(graph, value)


def _copied(graph: ir.Graph, value: ir.Value) -> None:
    name = str(value.name)
    node = ir.Node("", "Identity", [value], name=f"{name}/output")
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)
    output = node.outputs[0]
    output.shape, output.type = value.shape, value.type
    for place, each in enumerate(graph.outputs):
        if each is value:
            graph.outputs[place] = output
    del graph.initializers[name]
    value.name = f"{name}/constant"
    graph.register_initializer(value)
    output.name = name

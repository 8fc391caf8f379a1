"""Give the shipped language model a cache of keys and values: tokens of any number, a past of any length.

``with_cache(model)`` edits the graph of ``model.onnx``; its weights stay what they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
WINDOW = 128  # positions of model.onnx; the cache cannot be longer either: its tables end there
WIDTH = 128


def with_cache(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with inputs ``tokens`` [1, seq] and ``past_key_values.N.key/value`` [1, 4, past, 32].

    Outputs are ``logits`` [1, seq, 1024] and ``present.N.key/value`` [1, 4, past + seq, 32].
    """
    cached = onnx.ModelProto()
    cached.CopyFrom(model)
    graph = cached.graph
    _loosen_shapes(graph)
    caches = [pair for block, nodes in enumerate(_attentions(graph)) for pair in _grow(graph, block, *nodes)]
    _follow_positions(graph)
    tokens, logits = graph.input[0], graph.output[0]
    tokens.type.tensor_type.shape.dim[1].dim_param = logits.type.tensor_type.shape.dim[1].dim_param = "seq"
    del graph.value_info[:]
    graph.input.extend(past for past, _ in caches)
    graph.output.extend(present for _, present in caches)
    onnx.checker.check_model(cached, full_check=True)
    return cached


def _loosen_shapes(graph: onnx.GraphProto) -> None:
    """Let every Reshape keep as many positions as there are: -1 where the window's length stood."""
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            sizes = numpy_helper.to_array(tensor).copy()
            if WINDOW in sizes:
                sizes[sizes == -1] = WINDOW * WIDTH // -np.prod(sizes)  # there may be only one size left open
                sizes[list(sizes).index(WINDOW)] = -1
            tensor.CopyFrom(numpy_helper.from_array(sizes, tensor.name))


def _attentions(graph: onnx.GraphProto) -> list[tuple[str, str]]:
    """Return the values that are the keys and the values of every block, [1, heads, positions, size]."""
    makers = {output: node for node in graph.node for output in node.output}
    found = []
    for node in graph.node:
        left = makers.get(node.input[0]) if node.op_type == "MatMul" else None
        if left is not None and left.op_type == "Softmax":
            value, scores = node.input[1], makers[makers[left.input[0]].input[0]]
            key = scores.input[1]
            while makers[key].op_type != "Add":  # back over scale, reshapes and transposes to the rotated keys
                key = makers[key].input[0]
            found.append((key, value))
    return found


def _grow(
    graph: onnx.GraphProto, block: int, key: str, value: str
) -> list[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]:
    """Join keys and values of a block with their past; return the new inputs and outputs."""
    pairs = []
    for name, part in ((key, "key"), (value, "value")):
        past, present = f"past_key_values.{block}.{part}", f"present.{block}.{part}"
        for node in graph.node:
            node.input[:] = [present if each == name else each for each in node.input]
        place = next(number for number, node in enumerate(graph.node) if name in node.output) + 1
        graph.node.insert(place, helper.make_node("Concat", [past, name], [present], f"block.{block}.{part}", axis=2))
        pairs.append((_info(past, "past"), _info(present, "past + seq")))
    return pairs


def _info(name: str, length: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, length, 32])


def _follow_positions(graph: onnx.GraphProto) -> None:
    """Take the rows of rotary tables and mask that belong to the new positions, and the mask's columns up to there."""
    constants = {"zero": [0], "one": [1], "rows_and_columns": [0, 1]}
    graph.initializer.extend(numpy_helper.from_array(np.array(each), name) for name, each in constants.items())
    first = [
        helper.make_node("Shape", ["past_key_values.0.key"], ["past"], "past", start=2, end=3),
        helper.make_node("Shape", ["tokens"], ["seq"], "seq", start=1, end=2),
        helper.make_node("Add", ["past", "seq"], ["total"], "total"),
        helper.make_node("Concat", ["past", "zero"], ["mask_from"], "mask_from", axis=0),
        helper.make_node("Concat", ["total", "total"], ["mask_to"], "mask_to", axis=0),
        helper.make_node("Slice", ["mask", "mask_from", "mask_to", "rows_and_columns"], ["mask_now"], "mask_now"),
        *(
            helper.make_node("Slice", [each, "past", "total", "zero"], [f"{each}_now"], f"{each}_now")
            for each in ("cos", "sin")
        ),
    ]
    for node in graph.node:
        node.input[:] = [f"{each}_now" if each in ("cos", "sin", "mask") else each for each in node.input]
    for place, node in enumerate(first):
        graph.node.insert(place, node)


if __name__ == "__main__":
    onnx.save(with_cache(onnx.load(HERE / "model.onnx")), HERE / "cached.onnx")

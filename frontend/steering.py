"""Steering inputs: those that say how an operator moves or shapes data, not what it computes on.

A compiled program needs them as constants. Where a model computes them from shapes they fold away; where they are graph
inputs, whoever calls may give their numbers at compile time (the ONNX backend adapter does).
"""

from __future__ import annotations

import onnx_ir as ir

from .infer import inner_nodes

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

#: Operator -> places of the inputs that steer it (ONNX operator reference, up to opset 24).
STEERING: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_REDUCTIONS, (1,)),
    **dict.fromkeys(("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"), (0,)),
    **dict.fromkeys(("CenterCropPad", "CumProd", "CumSum", "Expand", "OneHot", "Reshape", "Split"), (1,)),
    **dict.fromkeys(("SplitToSequence", "Squeeze", "Tile", "TopK", "Trilu", "Unsqueeze", "AffineGrid"), (1,)),
    **dict.fromkeys(("Col2Im", "DFT", "Dropout"), (1, 2)),
    "If": (0,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Upsample": (1,),
}
_SHAPE_ONLY = ("Shape", "Size")  # what they give does not depend on the numbers of what they read


def steering_inputs(graph: ir.Graph) -> list[str]:
    """Return the names of graph inputs from which a steering input is computed, in the graph's order."""
    waiting = [value for node in graph for value in _steered_by(node)]
    seen: set[ir.Value] = set()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        maker = value.producer()
        if maker is not None and maker.op_type not in _SHAPE_ONLY:
            waiting += [each for each in maker.inputs if each is not None]
    return [str(value.name) for value in graph.inputs if value in seen]


def _steered_by(node: ir.Node) -> list[ir.Value]:
    """Return the values that steer a node, or a node inside its subgraphs."""
    found = []
    for each in (node, *inner_nodes(node)):
        places = STEERING.get(each.op_type, ()) if each.domain == "" else ()
        found += [value for place, value in enumerate(each.inputs) if place in places and value is not None]
    return found

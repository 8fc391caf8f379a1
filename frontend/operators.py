"""The operators that run on the machine itself, once each: the rule to meet and how closely results are checked.

An operator that is not here, or whose rule a node breaks, runs as a host segment; the sentence says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import rules
from .rules import Rule

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Tolerance:
    """|difference| <= c * 2^-23 * scale, against onnxruntime on the same inputs.

    ``scale`` is what the error is relative to: ``element``, each reference value itself; ``row``, the greatest of its
    row (last axis); ``sum``, the sum of the magnitudes that were added up; ``unit``, 1 (a larger value itself).
    """

    c: float
    scale: str


@dataclass(frozen=True)
class Operator:
    """One operator of ONNX: ``kind`` is the way it is lowered, ``tolerance`` how closely it must agree."""

    op_type: str
    kind: str
    tolerance: Tolerance
    rule: Rule


EXACT = Tolerance(0, "element")
#: Two roundings of the same real value: the reference library's own functions are that accurate for these.
ROUNDED = Tolerance(2, "element")
#: Sums in another order: the error of n additions, relative to the sum of magnitudes, grows like sqrt(n) or slower.
SUMMED = Tolerance(16, "sum")


_LIST: tuple[tuple[str, str, Tolerance, Rule], ...] = (
    ("Add", "row", EXACT, rules.numbers),
    ("Sub", "row", EXACT, rules.numbers),
    ("Mul", "row", EXACT, rules.numbers),
    ("Div", "row", ROUNDED, rules.numbers),
    ("Max", "row", EXACT, rules.numbers),
    ("Min", "row", EXACT, rules.numbers),
    ("Pow", "row", Tolerance(4, "element"), rules.float_only),
    ("Equal", "row", EXACT, rules.comparable),
    ("Less", "row", EXACT, rules.numbers),
    ("LessOrEqual", "row", EXACT, rules.numbers),
    ("Greater", "row", EXACT, rules.numbers),
    ("GreaterOrEqual", "row", EXACT, rules.numbers),
    ("And", "row", EXACT, rules.truth),
    ("Or", "row", EXACT, rules.truth),
    ("Xor", "row", EXACT, rules.truth),
    ("Not", "row", EXACT, rules.truth),
    ("Where", "row", EXACT, rules.where),
    ("Cast", "row", EXACT, rules.cast),
    ("Abs", "row", EXACT, rules.numbers),
    ("Neg", "row", EXACT, rules.numbers),
    ("Sqrt", "row", ROUNDED, rules.float_only),
    ("Reciprocal", "row", ROUNDED, rules.float_only),
    ("Exp", "row", Tolerance(8, "element"), rules.float_only),
    ("Log", "row", Tolerance(8, "element"), rules.float_only),
    ("Tanh", "row", Tolerance(8, "unit"), rules.float_only),
    ("Erf", "row", Tolerance(4, "unit"), rules.float_only),
    ("Sigmoid", "row", Tolerance(4, "unit"), rules.float_only),
    ("Softplus", "row", Tolerance(4, "unit"), rules.float_only),
    ("Gelu", "row", Tolerance(8, "row"), rules.float_only),
    ("Floor", "row", EXACT, rules.float_only),
    ("Ceil", "row", EXACT, rules.float_only),
    ("Round", "row", EXACT, rules.float_only),
    ("Sin", "row", Tolerance(4, "unit"), rules.float_only),
    ("Cos", "row", Tolerance(4, "unit"), rules.float_only),
    ("Sign", "row", EXACT, rules.numbers),
    ("IsNaN", "row", EXACT, rules.float_input),
    ("Relu", "row", EXACT, rules.float_only),
    ("Clip", "row", EXACT, rules.numbers),
    ("LeakyRelu", "row", ROUNDED, rules.float_only),
    ("HardSwish", "row", Tolerance(2, "row"), rules.float_only),
    ("HardSigmoid", "row", Tolerance(2, "unit"), rules.float_only),
    ("ReduceMean", "reduce", SUMMED, rules.reduces),
    ("ReduceSum", "reduce", SUMMED, rules.reduces),
    ("ReduceMax", "reduce", EXACT, rules.reduces),
    ("ReduceMin", "reduce", EXACT, rules.reduces),
    ("ReduceProd", "reduce", Tolerance(16, "element"), rules.reduces),
    ("ArgMax", "reduce", EXACT, rules.ranks),
    ("ArgMin", "reduce", EXACT, rules.ranks),
    ("TopK", "pick", EXACT, rules.top_k),
    ("GatherElements", "pick", EXACT, rules.picks),
    ("ScatterElements", "pick", EXACT, rules.puts),
    ("CumSum", "row_axis", SUMMED, rules.cumulates),
    ("GlobalAveragePool", "reduce", SUMMED, rules.float_only),
    ("Softmax", "row_axis", Tolerance(16, "row"), rules.softmax),
    ("LayerNormalization", "row_axis", Tolerance(8, "sum"), rules.norm),
    ("RMSNormalization", "row_axis", Tolerance(8, "row"), rules.norm),
    ("QuantizeLinear", "row_axis", EXACT, rules.quantize),
    ("Reshape", "view", EXACT, rules.constant_after(1)),
    ("Flatten", "view", EXACT, rules.fine),
    ("Squeeze", "view", EXACT, rules.constant_after(1)),
    ("Unsqueeze", "view", EXACT, rules.constant_after(1)),
    ("Identity", "view", EXACT, rules.fine),
    ("Transpose", "view", EXACT, rules.fine),
    ("Slice", "view", EXACT, rules.constant_bounds),
    ("Split", "view", EXACT, rules.constant_after(1)),
    ("Expand", "view", EXACT, rules.expand),
    ("Concat", "concat", EXACT, rules.concat),
    ("Pad", "pad", EXACT, rules.pad),
    ("Gather", "gather", EXACT, rules.gather),
    ("ScatterND", "scatter", EXACT, rules.scatter),
    ("MatMul", "matmul", Tolerance(16, "sum"), rules.matmul),
    ("MaxPool", "pool", EXACT, rules.pool),
    ("AveragePool", "pool", SUMMED, rules.pool),
    ("MatMulInteger", "linear", EXACT, rules.integer_product),
    ("ConvInteger", "conv", EXACT, rules.conv),
)

OPERATORS = {name: Operator(name, kind, tolerance, rule) for name, kind, tolerance, rule in _LIST}


def native(node: ir.Node) -> tuple[Operator | None, str]:
    """Return (operator, "") where the machine runs the node itself, else (None, the reason why the host must)."""
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        return None, f"{node.op_type} has no lowering to the machine"
    reason = operator.rule(node)
    return (None, f"{node.op_type}: {reason}") if reason else (operator, "")

"""Mixtures of experts: products with stacks of weights [E, K, N], of which an index may choose at run time.

The weights are constants all the same, and the array multiplies with constants: every expert is computed for every
row, and an index picks results instead of weights,

    MatMul(x[.., m, K], Gather(W, i))   ->   Gather(MatMul(x, W as [K, E * N]) as rows of N, row * E + i)

which is exact, as each result is the same sum. Routing then costs no more than picking rows, and time does not depend
on it. Where every expert has rows of its own, x[E, .., K], there is one product an expert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .edit import Editor, constant_array, is_constant, shape_of

EXPERTS_KEY = "flexc.experts"
"""Metadata key of a product with experts' weights: of how many experts there are results."""

FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


class Site:
    """Puts nodes in front of one that is being replaced."""

    def __init__(self, node: ir.Node, editor: Editor) -> None:
        self.node, self.editor, self.count = node, editor, 0

    def put(self, op: str, *inputs: ir.Value, attributes: Sequence[ir.Attr] = (), experts: int = 0) -> ir.Value:
        """Put a node and return its output; ``experts`` is noted on it."""
        self.count += 1
        value = self.editor.insert(self.node, op, inputs, suffix=f".{op.lower()}{self.count}", attributes=attributes)
        maker = value.producer()
        if experts and maker is not None:
            maker.metadata_props[EXPERTS_KEY] = str(experts)
        return value

    def ints(self, *numbers: int) -> ir.Value:
        """Return a constant of whole numbers."""
        return self.editor.constant("ints", np.array(numbers, np.int64))

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        """Put a Reshape."""
        return self.put("Reshape", value, self.ints(*shape))

    def transpose(self, value: ir.Value, *perm: int) -> ir.Value:
        """Put a Transpose."""
        return self.put("Transpose", value, attributes=[ir.AttrInt64s("perm", perm)])

    def swap(self, value: ir.Value, rank: int) -> ir.Value:
        """Put a Transpose of the last two dimensions."""
        return self.transpose(value, *range(rank - 2), rank - 1, rank - 2)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return a constant named after the node."""
        return self.editor.constant(f"{self.node.name}.{name}", np.ascontiguousarray(array))


def stacked_experts(node: ir.Node, editor: Editor) -> bool:
    """MatMul with a constant stack of weights [.., E, .., K, N] -> one product with all, or one an expert."""
    left, right = node.inputs
    if left is None or right is None or left.dtype not in FLOATS or min(len(shape_of(v)) for v in (left, right)) < 2:
        return False
    site = Site(node, editor)
    if is_constant(left) and len(shape_of(left)) > 2 and not is_constant(right):
        return _turned(site, left, right)
    weights = constant_array(right)
    batch = shape_of(right)[:-2]
    stacked = [axis for axis, size in enumerate(batch) if size > 1]
    if weights is None or len(stacked) != 1 or is_constant(left):
        return False
    behind = len(batch) - stacked[0]  # the place of the experts, counted from the end of the leading dimensions
    left = _before_expand(left, behind)
    experts = weights.reshape(-1, *weights.shape[-2:])
    lead = shape_of(left)[:-2]
    own = behind <= len(lead) and lead[-behind] > 1
    result = _one_an_expert(site, left, experts, behind) if own else _all_experts(site, left, experts, behind)
    editor.substitute(node, [site.reshape(result, *shape_of(node.outputs[0]))])
    return True


def _turned(site: Site, left: ir.Value, right: ir.Value) -> bool:
    """MatMul(W[.., N, K], x) -> Transpose(MatMul(Transpose(x), W transposed))."""
    weights = constant_array(left)
    if weights is None or math.prod(weights.shape[:-2]) == 1:
        return False
    weight = site.constant("turned", weights.swapaxes(-1, -2))
    product = site.put("MatMul", site.swap(right, len(shape_of(right))), weight)
    site.editor.substitute(site.node, [site.swap(product, len(shape_of(site.node.outputs[0])))])
    return True


def _before_expand(value: ir.Value, behind: int) -> ir.Value:
    """Return what an Expand repeats for every expert, where it repeats for nothing else."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Expand" and node.domain == "" else None
    if source is None or len(shape_of(source)) < 2:
        return value
    shape, own = shape_of(value), shape_of(source)
    axis = len(shape) - 2 - behind
    alone = (*shape[:axis], 1, *shape[axis + 1 :])
    return source if axis >= 0 and (1,) * (len(shape) - len(own)) + own == alone else value


def _around(left: ir.Value, behind: int) -> tuple[int, int]:
    """Return how many there are before the axis of experts, and between it and K."""
    *lead, m, _ = shape_of(left)
    axis = max(0, len(lead) - behind)
    return math.prod(lead[:axis]), math.prod(lead[axis + 1 :] if len(lead) >= behind else lead) * m


def _all_experts(site: Site, left: ir.Value, experts: np.ndarray, behind: int) -> ir.Value:
    """Emit one product of all rows with all experts: [before, E, between, N]."""
    count, k, n = experts.shape
    before, between = _around(left, behind)
    weight = site.constant("experts", experts.transpose(1, 0, 2).reshape(k, count * n))
    results = site.put("MatMul", site.reshape(left, before * between, k), weight, experts=count)
    return site.transpose(site.reshape(results, before, between, count, n), 0, 2, 1, 3)


def _one_an_expert(site: Site, left: ir.Value, experts: np.ndarray, behind: int) -> ir.Value:
    """Emit a product for every expert, of its own rows: [before, E, between, N]."""
    count, k, n = experts.shape
    before, between = _around(left, behind)
    whole = site.reshape(left, before, count, between, k)
    parts = []
    for expert in range(count):
        rows = site.put("Slice", whole, site.ints(expert), site.ints(expert + 1), site.ints(1))
        weight = site.constant(f"expert{expert}", experts[expert])
        product = site.put("MatMul", site.reshape(rows, before * between, k), weight, experts=count)
        parts.append(site.reshape(product, before, 1, between, n))
    return site.put("Concat", *parts, attributes=[ir.AttrInt64("axis", 1)])

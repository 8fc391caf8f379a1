"""How each operator is rewritten where a dim it works along is as long as a cache may become.

Most work on each position alone and stay as they are. What joins, cuts, compares or adds up along such a dim has a rule
here; an operator that has none, and may mix positions, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from ..isa.errors import FlexcError, raise_all
from .caches import Cache, source
from .edit import constant_array, int_attribute
from .infer import inner_nodes
from .length_cuts import cut, join, pick, pick_forward, sliced
from .lengths import Lengths
from .run_time import RunTime

Rule = Callable[["Rules", ir.Node], None]

#: Operators that work on each element alone, or only move elements along.
_EACH = {
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "Cast", "CastLike", "Ceil", "Clip", "Cos",
    "DequantizeLinear", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "QuantizeLinear", "Reciprocal", "Relu",
    "RotaryEmbedding", "Round", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Softplus", "Sqrt", "Squeeze",
    "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
#: What an element must be not to count in a reduction.
_NEUTRAL = {
    "ReduceSum": 0.0, "ReduceL1": 0.0, "ReduceL2": 0.0, "ReduceSumSquare": 0.0,
    "ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceProd": 1.0, "ReduceLogSumExp": -np.inf,
    "ArgMax": -np.inf, "ArgMin": np.inf,
}  # fmt: skip
#: Operands that only say how large something is to become.
_SIZES = {"Reshape": {1}, "Expand": {1}, "ConstantOfShape": {0}, "Tile": {1}, "Resize": {3}, "Split": {1}}


class Rules:
    """Rewrites one graph.

    Args:
        model: changed in place; to be sorted afterwards.
        lengths: what depends on the length of its past.
        caches: the nodes that join the past with what a step adds.
        valid: the input that says how many positions are valid before a step.
        where: name of the model in error messages.
    """

    def __init__(
        self, model: ir.Model, lengths: Lengths, caches: Mapping[ir.Node, Cache], valid: ir.Value, where: str
    ) -> None:
        self.graph, self.lengths, self.caches, self.where = model.graph, lengths, caches, where
        self.run_time = RunTime(model.graph, valid)
        self._made: dict[ir.Value, ir.Value] = {}
        self._clear: set[ir.Value] = set()  # values that are zero beyond the valid positions

    def run(self) -> None:
        """Rewrite every node that depends on run-time data; FlexcError lists all that cannot be."""
        problems = []
        for node in tuple(self.graph):
            if all(self.lengths.known(value) for value in node.outputs if value.name):
                continue
            try:
                self._node(node)
            except FlexcError as error:
                problems.append(error)
        raise_all(problems)

    def refuse(self, node: ir.Node, why: str) -> FlexcError:
        """Return the error that a node cannot be rewritten."""
        place = f"{self.where}: node '{node.name}' ({node.op_type})"
        remedy = "compile it for one length of the past at a time: leave --cache out and give --dim"
        return FlexcError(f"{why}, so the cache cannot have a fixed capacity", where=place, remedy=remedy)

    def _node(self, node: ir.Node) -> None:
        if node in self.caches:
            self._append(node, self.caches[node])
            return
        if node.domain == "" and node.op_type == "Slice":
            cut(self, node)
            return
        if any(self.lengths.known(value) and self.lengths.varies(value) for value in _inner_reads(node)):
            raise self.refuse(node, "a branch or body of it depends on the length")
        for place, value in enumerate(node.inputs):
            if value is not None and self.lengths.known(value) and self.lengths.varies(value):
                node.replace_input_with(place, self.operand(node, place, value))
        self._long(node)

    def _long(self, node: ir.Node) -> None:
        """Apply the rule of an operator that reads or makes something that is as long as the capacity."""
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        growing = [slope for value in values for slope in self.lengths.long_axes(value).values()]
        if not growing:
            return
        if node.op_type != "Concat" and any(self.is_past(value) for value in node.inputs):
            raise self.refuse(node, "reads the past apart from what a step adds to it")
        if any(slope != 1 for slope in growing):
            raise self.refuse(node, "a dim of its tensors grows by more than one element a position")
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        if rule is not None:
            rule(self, node)
        elif node.domain != "" or node.op_type not in _EACH:
            raise self.refuse(node, "may mix the positions of a cache in a way that has no rule")

    def is_past(self, value: ir.Value | None) -> bool:
        """Return whether a value is a cache before the step: as long as the capacity, not as the past."""
        return any(source(value) is cache.past for cache in self.caches.values())

    def operand(self, node: ir.Node, place: int, value: ir.Value) -> ir.Value:
        """Return what takes the place of a known operand whose numbers or size depend on the length."""
        if not self.lengths.known(value) or not self.lengths.varies(value):
            return value
        if place in _SIZES.get(node.op_type, set()):
            return self.run_time.constant(self.lengths.array(value))
        return self.number(value, node)

    def number(self, value: ir.Value, user: ir.Node) -> ir.Value:
        """Return a known value as it is at run time."""
        if not self.lengths.known(value) or not self.lengths.varies(value):
            return value
        if value not in self._made:
            made = self._number(value, user)
            made.type = made.type or ir.TensorType(ir.DataType.from_numpy(self.lengths.dtype(value)))
            self._made[value] = made
        return self._made[value]

    def _number(self, value: ir.Value, user: ir.Node) -> ir.Value:
        array, producer = self.lengths.array(value), value.producer()
        if self.lengths.padded(value):
            return self.run_time.constant(array)
        line = self.lengths.line(value)
        if line is not None:
            return self.run_time.line(line, array)
        if producer is not None and producer.op_type == "Slice" and producer.domain == "":
            return sliced(self, producer)
        if producer is None or producer.op_type in ("Range", "Shape", "Size"):
            raise self.refuse(user, f"'{value.name}' does not follow the length evenly")
        inputs = [
            None if each is None else self.operand(producer, place, each) for place, each in enumerate(producer.inputs)
        ]
        return self.run_time.copy(producer, inputs, list(producer.outputs).index(value))

    def _append(self, node: ir.Node, cache: Cache) -> None:
        """Concat(past, new) -> the new rows written into the past from the first position that is not valid on."""
        self.replace(node, self.written(cache.past, cache.new, cache.axis, 0))

    def written(self, base: ir.Value, new: ir.Value, axis: int, first: int) -> ir.Value:
        """Return ``base`` with ``new`` written along an axis from position ``valid + first`` on."""
        make, shape = self.run_time.node, self.lengths.shape(new)
        places = make("Unsqueeze", [self.run_time.positions(first, shape[axis]), self.run_time.constant(np.array([1]))])
        turned, rows = self.axis_first(base, axis, len(shape)), self.axis_first(new, axis, len(shape))
        return self.axis_back(make("ScatterND", [turned, places, rows]), axis, len(shape))

    def picked(self, data: ir.Value, index: ir.Value, axis: int, rank: int) -> ir.Value:
        """Return what lies at some positions along an axis of ``data``."""
        return self.axis_back(self.run_time.node("Gather", [self.axis_first(data, axis, rank), index]), axis, rank)

    def axis_first(self, value: ir.Value, axis: int, rank: int) -> ir.Value:
        """Return a value with one axis brought to the front."""
        order = [axis, *(each for each in range(rank) if each != axis)]
        return self.run_time.node("Transpose", [value], [ir.AttrInt64s("perm", order)]) if axis else value

    def axis_back(self, value: ir.Value, axis: int, rank: int) -> ir.Value:
        """Return a value with its first axis where it was before :meth:`axis_first`."""
        order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
        return self.run_time.node("Transpose", [value], [ir.AttrInt64s("perm", order)]) if axis else value

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Let a value take the place of the output of a node, which goes."""
        old = node.outputs[0]
        name, output = old.name, old.is_graph_output()
        value.shape, value.type = None, old.type
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        if output:
            value.name = name

    def masked(self, value: ir.Value, axis: int, neutral: float) -> ir.Value:
        """Return a value that is ``neutral`` beyond the valid positions of an axis."""
        shape = self.lengths.shape(value)
        kind = self.lengths.dtype(value)
        if not np.isfinite(neutral) and kind.kind in "iu":
            neutral = np.iinfo(kind).min if neutral < 0 else np.iinfo(kind).max
        inside = self.run_time.inside(shape[axis], self.lengths.surplus(value, axis), axis, len(shape))
        return self.run_time.node("Where", [inside, value, self.run_time.constant(np.array(neutral, kind))])

    def is_clear(self, value: ir.Value) -> bool:
        """Return whether a value is zero beyond the valid positions, as the results of a masked Softmax are."""
        node = value.producer()
        while node is not None and value not in self._clear:
            keeps = {"Mul": node.inputs, "Where": node.inputs[1:], "Cast": node.inputs, "Identity": node.inputs}
            candidates = [each for each in keeps.get(node.op_type, ()) if each is not None]
            zero = [each for each in candidates if (array := constant_array(each)) is not None and not array.any()]
            rest = [each for each in candidates if each not in zero and each.producer() is not None]
            if len(rest) != 1 or (node.op_type == "Where" and len(zero) != 1):
                return False
            value, node = rest[0], rest[0].producer()
        return value in self._clear

    def mark_clear(self, value: ir.Value) -> None:
        """Note that a value is zero beyond the valid positions."""
        self._clear.add(value)


def _inner_reads(node: ir.Node) -> list[ir.Value]:
    return [value for inner in inner_nodes(node) for value in inner.inputs if value is not None]


def _softmax(rules: Rules, node: ir.Node) -> None:
    """What is not valid gets minus infinity, and so no share."""
    value = node.inputs[0]
    assert value is not None
    axes = rules.lengths.long_axes(value)
    axis = int_attribute(node, "axis", -1) % len(rules.lengths.shape(value))
    if axis in axes:
        node.replace_input_with(0, rules.masked(value, axis, -np.inf))
        if node.op_type == "Softmax":
            rules.mark_clear(node.outputs[0])


def _reduce(rules: Rules, node: ir.Node) -> None:
    """What is not valid becomes neutral."""
    value = node.inputs[0]
    assert value is not None
    shape = rules.lengths.shape(value)
    single = int_attribute(node, "axis", 0) % len(shape) if node.op_type.startswith("Arg") else None
    axes = _axes(node, len(shape)) if single is None else (single,)
    if axes is None:
        raise rules.refuse(node, "reduces axes known at run time only")
    for axis in axes:
        if axis in rules.lengths.long_axes(value):
            if node.op_type not in _NEUTRAL:
                raise rules.refuse(node, "takes a mean over the positions of a cache")
            value = rules.masked(value, axis, _NEUTRAL[node.op_type]) if value is node.inputs[0] else value
    node.replace_input_with(0, value)


def _axes(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant_array(node.inputs[1])
        return None if array is None else tuple(int(axis) % rank for axis in array.reshape(-1)) or tuple(range(rank))
    attribute = node.attributes.get("axes")
    return tuple(axis % rank for axis in attribute.as_ints()) if attribute is not None else tuple(range(rank))


def _matmul(rules: Rules, node: ir.Node) -> None:
    """A sum over positions: factors of what is not valid are zero."""
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None
    assert right is not None
    rank = len(rules.lengths.shape(left))
    if rank - 1 in rules.lengths.long_axes(left) and not rules.is_clear(left):
        node.replace_input_with(0, rules.masked(left, rank - 1, 0.0))


def _einsum(rules: Rules, node: ir.Node) -> None:
    """As MatMul: the letters that are summed over."""
    terms, _, out = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    names, first = terms.split(","), node.inputs[0]
    if "." in terms or not out or first is None:
        raise rules.refuse(node, f"equation '{terms}->{out}' is not followed")
    axes = rules.lengths.long_axes(first)
    summed = [axis for axis in axes if names[0][axis] not in out]
    elsewhere = [
        name[axis]
        for name, value in zip(names[1:], node.inputs[1:], strict=True)
        if value is not None
        for axis in rules.lengths.long_axes(value)
        if name[axis] not in out and name[axis] not in names[0]
    ]
    if len(summed) > 1 or elsewhere:
        raise rules.refuse(node, "adds up several dims of a cache")
    if summed and not rules.is_clear(first):
        node.replace_input_with(0, rules.masked(first, summed[0], 0.0))


def _rows_only(rules: Rules, node: ir.Node) -> None:
    """Works along other dims: what is long stays apart."""
    data = node.inputs[0]
    assert data is not None
    rank = len(rules.lengths.shape(data))
    default = -1 if node.op_type != "Split" else 0
    axis = int_attribute(node, "axis", default) % rank
    along = {axis} if node.op_type == "Split" else set(range(axis, rank))
    if along & set(rules.lengths.long_axes(data)):
        raise rules.refuse(node, "works along the positions of a cache")


def _reshape(rules: Rules, node: ir.Node) -> None:
    """What is long keeps its place: as many elements lie before and behind it, however these are grouped."""
    data, out = node.inputs[0], node.outputs[0]
    assert data is not None
    before, after = (
        [math.prod(rules.lengths.shape(value)[:axis]) for axis in rules.lengths.long_axes(value)]
        for value in (data, out)
    )
    if before != after:
        raise rules.refuse(node, "mixes the positions of a cache with another dim")


def _gemm(rules: Rules, node: ir.Node) -> None:
    """Rows stay apart; a sum over positions has no rule."""
    if not rules.lengths.long_axes(node.outputs[0]) or int_attribute(node, "transA", 0):
        raise rules.refuse(node, "adds up the positions of a cache")


def _cumsum(rules: Rules, node: ir.Node) -> None:
    """From the first position on nothing beyond the valid ones comes in."""
    if int_attribute(node, "reverse", 0):
        raise rules.refuse(node, "adds up from the end of a cache")


def _pad(rules: Rules, node: ir.Node) -> None:
    """Positions get no border."""
    data, pads = node.inputs[0], constant_array(node.inputs[1])
    assert data is not None
    rank = len(rules.lengths.shape(data))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        raise rules.refuse(node, "pads some axes only")
    if pads is None or any(pads[axis] or pads[axis + rank] for axis in rules.lengths.long_axes(data)):
        raise rules.refuse(node, "pads the positions of a cache")


def _attention(rules: Rules, node: ir.Node) -> None:
    """Keys that are not valid are masked."""
    query, key = node.inputs[0], node.inputs[1]
    assert query is not None
    assert key is not None
    if len(node.inputs) > 4 and any(value is not None for value in node.inputs[4:]):
        raise rules.refuse(node, "keeps a past of its own")
    rank, keys = len(rules.lengths.shape(key)), rules.lengths.shape(key)
    axis = rank - 2
    if axis not in rules.lengths.long_axes(key):
        return
    inside = rules.run_time.inside(keys[axis], rules.lengths.surplus(key, axis), 1, 2)
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is None:
        rows = rules.lengths.shape(query)[rank - 2]
        size = rules.run_time.constant(np.array([rows, keys[axis]]))
        mask = rules.run_time.node("Expand", [inside, size])
        node.resize_inputs(max(4, len(node.inputs)))
    elif (kind := mask.dtype.numpy() if mask.dtype is not None else rules.lengths.dtype(mask)) == np.bool_:
        mask = rules.run_time.node("And", [mask, inside])
    else:
        low = rules.run_time.constant(np.array(-np.inf, kind))
        mask = rules.run_time.node("Where", [inside, mask, low])
    node.replace_input_with(3, mask)


_RULES: dict[str, Rule] = {
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "Gather": pick,
    "GatherND": pick_forward,
    "GatherElements": pick_forward,
    "Concat": join,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Split": _rows_only,
    "LayerNormalization": _rows_only,
    "RMSNormalization": _rows_only,
    "CumSum": _cumsum,
    "Pad": _pad,
    "Attention": _attention,
    **dict.fromkeys(_NEUTRAL, _reduce),
    "ReduceMean": _reduce,
}

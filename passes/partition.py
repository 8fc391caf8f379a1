"""Partition: which nodes run together as one kernel, on which engine, and why there.

Kernels run in the order of their creation. A node joins an earlier kernel only when everything it reads is there by
then, so the order stays right without looking at the graph again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.infer import reads
from ..frontend.linears import INTEGER_PRODUCTS
from ..frontend.operators import OPERATORS, Operator, native
from .emit import LINEAR_KEY, ROLE_KEY, pin_of
from .product_cost import WHY_KEY
from .repeat import Repetition, is_view, repetitions
from .rows import Form, Tail, is_elementwise, operand, output_form, result, row_length, row_product

#: A node that stands alone may take that many times the bytes of a row that several nodes share: the whole buffer. What
#: turns out to need more when its code is planned goes to the host.
ALONE = 3
#: Stream registers that a row kernel may use, of the 64 there are: some are left for what its parts cannot foresee.
STREAM_BUDGET = 58
#: Registers a node takes for its result and for what its recipe needs besides.
STREAMS_OF_KIND = {"view": 0, "row": 2, "reduce": 1, "row_axis": 4, "pick": 3, "concat": 1, "matmul": 2}
#: Which of the nodes that could run next goes first: what only names data differently, then what row kernels wait for.
#: Kinds of operators that row kernels take, or else kernels of their own.
ROW_KINDS = ("row", "row_axis", "reduce", "pick", "view", "concat")
PRIORITY = {"view": 0, "row": 2, "row_axis": 2, "reduce": 2, "pick": 2, "concat": 2}


#: Bytes an element that quantising a row at a time takes: both slots of what comes in, codes, and magnitudes.
LONG_ROW_BYTES = 16
#: Long rows are quantised one after the other by code of their own; more of them go to the host.
MOST_LONG_ROWS = 64


@dataclass
class Kernel:
    """Nodes that run together. ``kind`` is the way they are lowered, ``engine`` where the work is done.

    A ``loop`` holds the nodes of all turns of a repetition, and in ``body`` the kernels of its template. ``kept`` are
    values that are needed later though no node of this turn says so. ``tail`` is row work on the results of an array
    kernel; its nodes are the last ones (see :mod:`.tails`).
    """

    kind: str
    engine: str
    reason: str
    nodes: list[ir.Node] = field(default_factory=list)
    forms: dict[ir.Value, Form] = field(default_factory=dict)
    repetition: Repetition | None = None
    body: list[Kernel] = field(default_factory=list)
    kept: set[ir.Value] = field(default_factory=set)
    tail: Tail | None = None

    @property
    def chain(self) -> list[ir.Node]:
        """The nodes before the tail."""
        tail = self.tail
        return self.nodes[: len(self.nodes) - len(tail.views) - len(tail.nodes)] if tail is not None else self.nodes

    @property
    def chains(self) -> list[list[ir.Node]]:
        """The nodes before the tail, product by product: an array kernel has several where linears run together."""
        found: list[list[ir.Node]] = []
        for node in self.chain:
            if not found or node.op_type in INTEGER_PRODUCTS:
                found.append([])
            found[-1].append(node)
        return found

    @property
    def results(self) -> list[ir.Value]:
        """What an array kernel makes before its tail, product by product."""
        return [chain[-1].outputs[0] for chain in self.chains]

    def engine_of(self, node: ir.Node) -> str:
        """Return where one of the nodes is worked on: those of a tail on the vector unit."""
        return "vector" if self.tail is not None and node in self.tail.nodes else self.engine

    @property
    def name(self) -> str:
        """The name of the last node that computes: what the report calls the kernel."""
        return str(self.nodes[-1].name)

    def inputs(self) -> list[ir.Value]:
        """Return what the nodes read and none of them makes, in order of first use."""
        made = {output for node in self.nodes for output in node.outputs}
        seen: dict[ir.Value, None] = {}
        for node in self.nodes:
            seen.update({value: None for value in reads(node) if value not in made})
        return list(seen)

    def outputs(self) -> list[ir.Value]:
        """Return what others read, or the graph puts out."""
        own = set(self.nodes)
        made = [value for node in self.nodes for value in node.outputs]
        return [value for value in made if value in self.kept or leaves(value, own)]


def leaves(value: ir.Value, nodes: set[ir.Node]) -> bool:
    """Return whether a value is used outside these nodes or is an output of the graph."""
    return value.is_graph_output() or any(use.node not in nodes for use in value.uses())


def partition(
    model: ir.Model,
    row_bytes: int,
    pinned: Callable[[ir.Node], str] = lambda _node: "",
    unrolled: Collection[ir.Node] = (),
) -> list[Kernel]:
    """Return the kernels of a quantised graph in the order they run.

    ``row_bytes`` bounds the bytes that one row of a row kernel may take of the on-chip buffer; ``pinned`` returns a
    reason why the user wants a node on the host, or an empty string. Repetitions with one of the ``unrolled`` nodes
    stay as they are.
    """
    loops: dict[ir.Node, Kernel] = {}

    def fits(repetition: Repetition) -> bool:
        if any(pinned(node) or node in unrolled for node in repetition.nodes()):
            return False
        body = list(_Partition(row_bytes, pinned, in_loop=True).run(repetition.template))
        if any(kernel.kind == "host" or (kernel.engine == "array" and len(kernel.nodes) < 4) for kernel in body):
            return False
        kernel = loop_of(repetition, body)
        loops[kernel.nodes[0]] = kernel
        return True

    found = repetitions(model.graph, fits)
    groups = [list(repetition.nodes()) for repetition in found]
    return list(_Partition(row_bytes, pinned, {group[0]: loops[group[0]] for group in groups}).run(model.graph))


def loop_of(repetition: Repetition, body: list[Kernel]) -> Kernel:
    """Return the kernel of a loop whose turns run the kernels of ``body``, the values that leave any turn kept."""
    nodes = list(repetition.nodes())
    own = set(nodes)
    for kernel in body:
        for value, made in repetition.made().items():
            if value.producer() in kernel.nodes and any(leaves(each, own) for each in repetition.values(made)):
                kernel.kept.add(value)
    engine = "array" if any(kernel.engine == "array" for kernel in body) else "vector"
    reason = f"a loop of {len(repetition.turns)} turns"
    return Kernel("loop", engine, reason, nodes, repetition=repetition, body=body)


class _Partition:
    def __init__(
        self,
        row_bytes: int,
        pinned: Callable[[ir.Node], str],
        loops: Mapping[ir.Node, Kernel] | None = None,
        *,
        in_loop: bool = False,
    ) -> None:
        self.row_bytes = row_bytes
        self.pinned = pinned
        self.loops = loops or {}
        self.in_loop = in_loop
        self.kernels: list[Kernel] = []
        self.made_by: dict[ir.Value, int] = {}
        self.taken: set[ir.Node] = set()
        self.members: set[ir.Node] = set()
        self.last_row = -1
        self.last_host = -1

    def run(self, nodes: Iterable[ir.Node]) -> Iterator[Kernel]:
        order = list(nodes)
        self.members = set(order)
        for node in in_kernel_order(order, [loop.nodes for loop in self.loops.values()]):
            if node not in self.taken:
                self._place(node)
        yield from self.kernels

    def _place(self, node: ir.Node) -> None:
        if node in self.loops:
            self._add(self.loops[node])
            return
        wish = self.pinned(node) or ("pinned to the host" if pin_of(node) == "host" else "")
        operator, reason = (None, wish) if wish else native(node)
        if operator is None:
            self._host(node, reason)
        elif operator.kind == "linear" and operand(node, 1).const_value is None:
            self._product(node)
        elif operator.kind in ("linear", "conv"):
            self._new(operator.kind, "array", "constant weight", linear_chain(node, self.members))
        elif node.op_type == "Abs" and (chain := tensor_quantise_chain(node, self.row_bytes)):
            self._new("tensor_quantise", "vector", "one scale for the whole tensor", chain)
        elif operator.kind == "concat" and self._stacks_turns(node):
            self._new("concat", "dma", "the turns of a loop, side by side", [node])
        elif operator.kind in ROW_KINDS or (self.in_loop and row_product(node)):
            self._row(node, operator)
        else:
            default = "pinned to the vector unit" if pin_of(node) == "vector" else operator.kind
            reason = node.metadata_props.get(WHY_KEY, default)
            self._new(
                operator.kind, "dma" if operator.kind in ("gather", "scatter", "pad") else "vector", reason, [node]
            )

    def _product(self, node: ir.Node) -> None:
        chain = linear_chain(node, self.members)
        if len(chain) == 4:
            self._new("product", "array", node.metadata_props.get(WHY_KEY, "product of two activations"), chain)
        else:
            self._host(node, "MatMulInteger: its sums are not scaled by rows and then by columns")

    def _stacks_turns(self, node: ir.Node) -> bool:
        """Return whether a Concat puts together what the turns of one loop have made."""
        makers = {_computed_by(value) for value in node.inputs}
        return any(len(makers.intersection(loop.nodes)) > 1 for loop in self.loops.values()) if self.loops else False

    def _reads(self, node: ir.Node) -> list[int]:
        return [self.made_by.get(value, -1) for value in reads(node)]

    def _row(self, node: ir.Node, operator: Operator) -> None:
        latest = max(self._reads(node), default=-1)
        for place in dict.fromkeys((latest, self.last_row)):
            if place >= latest and place >= 0 and self._join_row(place, node, operator):
                return
        form = output_form(node, operator.kind, {})
        if operator.kind in ("view", "concat"):
            self._new(operator.kind, "dma", "data movement", [node])
        elif form is None:
            self._host(node, f"{node.op_type}: its rows do not line up")
        elif self._row_size([node], {result(node): form}) > (
            self.row_bytes if self.in_loop else ALONE * self.row_bytes
        ):
            self._host(node, f"{node.op_type}: a row of {_columns(node)} columns does not fit into the on-chip buffer")
        else:
            self._new("row", "vector", "elementwise and row operations", [node])
            self.kernels[-1].forms[result(node)] = form
            self.last_row = len(self.kernels) - 1

    def _join_row(self, place: int, node: ir.Node, operator: Operator) -> bool:
        kernel = self.kernels[place]
        if kernel.kind != "row" or any(index > place for index in self._reads(node)):
            return False
        own = [value for value in node.inputs if value is not None and value in kernel.forms]
        if operator.kind == "view" and not own:
            return False
        form = output_form(node, operator.kind, kernel.forms)
        if form is None or form.rows != next(iter(kernel.forms.values())).rows:
            return False
        forms = kernel.forms | {result(node): form}
        if self._streams(kernel, node) > STREAM_BUDGET or self._row_size([*kernel.nodes, node], forms) > self.row_bytes:
            return False
        kernel.nodes.append(node)
        kernel.forms[result(node)] = form
        self.made_by.update(dict.fromkeys(node.outputs, place))
        return True

    def _streams(self, kernel: Kernel, node: ir.Node) -> int:
        trial = Kernel("row", "", "", [*kernel.nodes, node])
        inside = sum(STREAMS_OF_KIND[OPERATORS[each.op_type].kind] for each in trial.nodes)
        outside = sum(2 for value in trial.inputs() if value.const_value is None or value.const_value.size > 1)
        return inside + outside + sum(1 for node in trial.nodes if leaves(result(node), set(trial.nodes)))

    def _row_size(self, nodes: list[ir.Node], forms: dict[ir.Value, Form]) -> int:
        """Estimate the bytes that a row of all that these nodes read and make takes; elementwise ones may cut rows.

        What comes and goes has two slots, a constant that all rows share has one.
        """
        if is_elementwise(nodes, forms):
            return 0
        read = {value: row_length(node, value) for node in nodes for value in node.inputs if value is not None}
        external = sum(
            length * (1 if math.prod(shape_of(value)) == length and value.const_value is not None else 2)
            for value, length in read.items()
            if value not in forms
        )
        return 4 * (2 * sum(form.cols for form in forms.values()) + external)

    def _host(self, node: ir.Node, reason: str) -> None:
        place = self.last_host
        if place >= 0 and all(index <= place for index in self._reads(node)):
            self.kernels[place].nodes.append(node)
            self.made_by.update(dict.fromkeys(node.outputs, place))
            if reason not in self.kernels[place].reason:
                self.kernels[place].reason += f"; {reason}"
            return
        self._new("host", "host", reason, [node])
        self.last_host = len(self.kernels) - 1

    def _new(self, kind: str, engine: str, reason: str, nodes: list[ir.Node]) -> None:
        self._add(Kernel(kind, engine, reason, nodes))

    def _add(self, kernel: Kernel) -> None:
        self.kernels.append(kernel)
        self.taken.update(kernel.nodes)
        made = (output for node in kernel.nodes for output in node.outputs)
        self.made_by.update(dict.fromkeys(made, len(self.kernels) - 1))


def _columns(node: ir.Node) -> int:
    return max(row_length(node, value) for value in (*node.inputs, *node.outputs) if value is not None)


def _computed_by(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    while node is not None and is_view(node):
        node = operand(node).producer()
    return node


def in_kernel_order(nodes: Sequence[ir.Node], groups: Iterable[list[ir.Node]] = ()) -> Iterator[ir.Node]:
    """Yield nodes in an order that makes kernels long: views as soon as they can be, heavy work before row work.

    A linear comes with the nodes that dequantise it, right after one another, and so does every group.
    """
    chains = {group[0]: group for group in groups}
    lead = {member: node for node, chain in chains.items() for member in chain}
    place = {node: index for index, node in enumerate(nodes)}
    heads = [node for node in nodes if node.op_type in INTEGER_PRODUCTS and node not in lead]
    for node in heads:
        chains[node] = linear_chain(node, place)
        lead.update(dict.fromkeys(chains[node], node))
    missing: dict[ir.Node, int] = {}
    readers: dict[ir.Node, list[ir.Node]] = {}
    wanted: dict[ir.Node, set[ir.Node]] = {}
    for node in nodes:
        head = lead.get(node, node)
        makers = {lead.get(each, each) for value in reads(node) if (each := value.producer()) in place}
        wanted.setdefault(head, set()).update(makers - {head})
    for head, makers in wanted.items():
        missing[head] = len(makers)
        for maker in makers:
            readers.setdefault(maker, []).append(head)
    ready = [(_priority(node), place[node], node) for node, count in missing.items() if not count]
    heapq.heapify(ready)
    while ready:
        _, _, node = heapq.heappop(ready)
        yield from chains.get(node, [node])
        for reader in readers.get(node, []):
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, (_priority(reader), place[reader], reader))


def _priority(node: ir.Node) -> int:
    operator = OPERATORS.get(node.op_type)
    return PRIORITY.get(operator.kind, 1) if operator else 1


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a value, or None where there are more, none, or the graph puts it out."""
    users = {use.node for use in value.uses()}
    return users.pop() if len(users) == 1 and not value.is_graph_output() else None


def linear_chain(product: ir.Node, among: Container[ir.Node]) -> list[ir.Node]:
    """Return the integer product and the nodes after it that dequantise: Cast, Mul, Mul, then Reshape and bias Add.

    Only nodes ``among`` the given ones are taken, and only what quantisation made for this product is sure to
    dequantise it: of a product that came as it is, nothing else.
    """
    if product.op_type == "MatMulInteger" and operand(product, 1).const_value is None:
        return _product_chain(product, among)
    chain = [product]
    linear = product.metadata_props.get(LINEAR_KEY)
    for op_type in ("Cast", "Mul", "Mul", "Reshape", "Add"):
        follower = only_user(chain[-1].outputs[0])
        if follower is None or follower.op_type != op_type or follower not in among:
            if op_type == "Reshape":
                continue
            break
        if op_type in ("Cast", "Mul") and follower.metadata_props.get(LINEAR_KEY, "") != linear:
            break
        if op_type == "Add" and not _is_bias(follower, chain[-1].outputs[0]):
            break
        if op_type == "Reshape" and not _keeps_columns(follower):
            break
        chain.append(follower)
    if len(chain) < 4:
        return [product]
    return chain


def _product_chain(product: ir.Node, among: Container[ir.Node]) -> list[ir.Node]:
    """Return a product of two activations, its Cast, and the Muls by a scale a row and then by one a column."""
    chain = [product]
    for op_type, axis in (("Cast", 0), ("Mul", 1), ("Mul", 2)):
        summand = chain[-1].outputs[0]
        follower = only_user(summand)
        if follower is None or follower.op_type != op_type or follower not in among:
            return [product]
        if shape_of(follower.outputs[0]) != shape_of(summand):
            return [product]
        scales = [value for value in follower.inputs if value is not None and value is not summand]
        if axis and (len(scales) != 1 or shape_of(scales[0])[-axis : len(shape_of(scales[0])) - axis + 1] not in _ONE):
            return [product]
        chain.append(follower)
    return chain


#: What a shape has at an axis along which a value is one number: nothing, where the axis is missing.
_ONE = ((), (1,))


def _keeps_columns(reshape: ir.Node) -> bool:
    """Return whether a Reshape of a product [rows, N] only cuts or joins rows, or cuts its N columns."""
    before, after = shape_of(operand(reshape)), shape_of(reshape.outputs[0])
    return len(before) == 2 and any(math.prod(after[place:]) == before[1] for place in range(len(after) + 1))


def _is_bias(add: ir.Node, summand: ir.Value) -> bool:
    (other,) = [value for value in add.inputs if value is not summand] or [None]
    if other is None or other.const_value is None:
        return False
    maker = summand.producer()
    channel = 1 if len(shape_of(summand)) > 2 and maker is not None and maker.op_type != "Reshape" else -1
    sizes = shape_of(other)
    wanted = shape_of(summand)[channel]
    place = len(sizes) - (len(shape_of(summand)) - 1 if channel == 1 else 1)
    return shape_of(add.outputs[0]) == shape_of(summand) and all(
        size == (wanted if axis == place else 1) for axis, size in enumerate(sizes)
    )


def tensor_quantise_chain(first: ir.Node, row_bytes: int) -> list[ir.Node]:
    """Return Abs, ReduceMax, Max, Div, QuantizeLinear where one scale serves a whole image, else an empty list.

    A row of which more than ``row_bytes`` would be needed at once is such an image, too.
    """
    shape = shape_of(operand(first))
    long_rows = len(shape) == 2 and shape[0] <= MOST_LONG_ROWS and LONG_ROW_BYTES * shape[1] > row_bytes
    if first.metadata_props.get(ROLE_KEY) != "quantise" or not (long_rows or len(shape) in (3, 4)):
        return []
    chain = [first]
    for op_type in ("ReduceMax", "Max", "Div"):
        follower = only_user(chain[-1].outputs[0])
        if follower is None or follower.op_type != op_type:
            return []
        chain.append(follower)
    users = {use.node for use in chain[-1].outputs[0].uses() if use.node.op_type == "QuantizeLinear"}
    return [*chain, users.pop()] if len(users) == 1 else []

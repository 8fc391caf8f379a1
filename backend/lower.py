"""From a quantised graph to a program: partition, plan every kernel, place memory, write the code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.errors import FlexcError
from ..isa.machine import Machine
from ..isa.program import TOGETHER, Op, Program, Segment, Tensor
from ..passes.partition import Kernel, partition
from ..passes.prune import NM_KEY
from ..passes.repeat import Repetition
from .assign import assign
from .code import Builder, DoesNotFit, Semaphores
from .context import Context
from .conv_kernel import ConvKernel
from .fusion import Fusion
from .host_kernel import HostKernel, tensor_of
from .linear_kernel import CellAllocator, LinearKernel, emit_resident
from .loop_kernel import Irregular, LoopKernel, Lowering
from .matmul_kernel import MatMulKernel
from .memory import allocate
from .moves import CopyKernel, concat_kernel, gather_kernel, pad_kernel, view_kernel
from .pool_kernel import PoolKernel
from .product_kernel import ProductKernel
from .recurrence import Recurrence, in_rows
from .roll import Written, roll
from .row_kernel import RowKernel
from .scatter_kernel import scatter_kernel
from .states import States
from .tail_kernel import Unfusable, fused
from .tensor_quantise import TensorQuantiseKernel


@dataclass
class Planned:
    """A kernel of the partition with its lowering."""

    kernel: Kernel
    lowering: Lowering


@dataclass
class Code:
    """The kernels of a graph that have code, in order, the code, and the bytes of memory that it needs."""

    kernels: list[Kernel]
    builder: Builder
    weight_bytes: int
    const_bytes: int
    dram_bytes: int
    states: States


class _Refused(Exception):
    """Nodes whose code turned out to need more than the machine has, with the reasons: the host must run them."""

    def __init__(self, reasons: dict[ir.Node, str]) -> None:
        self.reasons = reasons


class Compiler:
    """Lowers one quantised graph for one machine.

    Repetitions with a node of ``unrolled`` become no loops; array kernels with one of ``apart`` get no tails.
    """

    def __init__(
        self,
        model: ir.Model,
        machine: Machine,
        pinned: Callable[[ir.Node], str],
        unrolled: Collection[ir.Node] = (),
        apart: Collection[ir.Node] = (),
    ) -> None:
        self.model, self.machine, self.pinned, self.unrolled, self.apart = model, machine, pinned, unrolled, apart
        self.context = Context(machine)
        self.cells = CellAllocator(machine)
        self.hosts: list[HostKernel] = []
        self.written: list[Tensor] = []
        self.coded: list[Kernel] = []

    def write(self) -> Code:
        """Return the code; constants are placed but not gathered."""
        for value in self.model.graph.inputs:
            self.context.output(value)
        kernels = partition(self.model, self.machine.buffer.bytes // 3, self.pinned, self.unrolled)
        fusion = Fusion(kernels, self.context, self.apart)
        planned = [self._plan(place, kernel) for place, kernel in fusion.kernels()]
        states = self._keep_interface(len(kernels))
        finish = states.finish()
        weight_bytes, const_bytes = self.context.const.place()
        dram_bytes = allocate(list(self.context.lifetimes.values()), states.storages())
        self._check_capacity(const_bytes + dram_bytes)
        builder = Builder(self.machine)
        self._emit(builder, planned, finish)
        return Code(self.coded, builder, weight_bytes, const_bytes, dram_bytes, states)

    def finish(self, code: Code) -> Program:
        """Gather the constants and return the program."""
        graph, builder, states = self.model.graph, code.builder, code.states
        rolled = roll(Written(builder.units, builder.ops, builder.taps, builder.tiles), self.machine)
        assigned = assign(rolled.units, self.machine)
        image = np.zeros(code.const_bytes, np.uint8)
        self.context.const.write(image)
        return Program(
            code=tuple(assigned.code),
            machine=self.machine,
            const=image,
            weight_bytes=code.weight_bytes,
            dram_bytes=code.dram_bytes,
            inputs=tuple(tensor_of(str(value.name), self.context.views[value]) for value in graph.inputs),
            outputs=tuple(tensor_of(str(value.name), states.place(value)) for value in graph.outputs),
            segments=self._segments(),
            states=states.declared(),
            debug=assigned.debug(rolled.ops, rolled.taps, rolled.tiles, self.written),
        )

    def _check_capacity(self, needed: int) -> None:
        """Refuse a model that this machine cannot hold, before its constants are gathered."""
        capacity = self.machine.dram.capacity_bytes
        if needed > capacity:
            raise FlexcError(
                f"weights and activations take {needed} bytes of DRAM, target '{self.machine.name}' has {capacity}",
                remedy="choose a smaller shape, or a target with a larger capacity_bytes",
            )

    def _keep_interface(self, end: int) -> States:
        """Keep inputs and outputs in memory throughout, so that the user can look at both after a run."""
        graph = self.model.graph
        self.context.kernel = end
        for value in graph.outputs:
            view = self.context.view(value)
            if view.storage.space != "dram":
                raise FlexcError("the output does not depend on any input", where=f"output '{value.name}'")
        self.context.keep(graph.inputs)
        return States(graph, self.context)

    def _plan(self, place: int, kernel: Kernel) -> Planned:
        self.context.kernel = place
        if kernel.repetition is not None:
            return Planned(kernel, self._loop(kernel, kernel.repetition))
        try:
            return Planned(kernel, self._lowering(kernel))
        except DoesNotFit as reason:
            fallback = Kernel("host", "host", f"{kernel.nodes[-1].op_type}: {reason}", kernel.nodes)
            return Planned(fallback, self._host(fallback))

    def _loop(self, kernel: Kernel, repetition: Repetition) -> Lowering:
        """Plan a loop over nodes: with its state in the buffer where it can stay there, else around whole kernels."""
        if in_rows(kernel):
            with suppress(Irregular):
                return Recurrence(kernel, repetition, self.context)
        return LoopKernel(kernel, repetition, self.context, self._lowering)

    def _lowering(self, kernel: Kernel) -> Lowering:
        make = self._makers().get(kernel.kind)
        if make is None:
            return self._host(kernel)
        with fused(kernel):
            return make(kernel)

    def _makers(self) -> dict[str, Callable[[Kernel], Lowering]]:
        """Return what plans each kind of kernel; every other kind is a host segment."""
        context, cells = self.context, self.cells
        return {
            "row": lambda kernel: RowKernel(kernel, context),
            "linear": lambda kernel: LinearKernel(kernel, context, cells),
            "product": lambda kernel: ProductKernel(kernel, context, cells),
            "conv": lambda kernel: ConvKernel(kernel, context, cells),
            "tensor_quantise": lambda kernel: TensorQuantiseKernel(kernel, context),
            "matmul": lambda kernel: MatMulKernel(kernel, context),
            "view": lambda kernel: view_kernel(kernel, context),
            "concat": lambda kernel: concat_kernel(kernel, context),
            "pad": lambda kernel: pad_kernel(kernel, context),
            "gather": lambda kernel: gather_kernel(kernel, context),
            "scatter": lambda kernel: scatter_kernel(kernel, context),
            "pool": lambda kernel: PoolKernel(kernel.nodes[0], context),
        }

    def _host(self, kernel: Kernel) -> HostKernel:
        self.hosts.append(HostKernel(kernel, self.context, self.model, len(self.hosts)))
        return self.hosts[-1]

    def _segments(self) -> tuple[Segment, ...]:
        return tuple(host.segment() for host in self.hosts)

    def _emit(self, builder: Builder, planned: list[Planned], finish: Sequence[CopyKernel]) -> None:
        builder.write(Semaphores.prologue())
        builder.emit("barrier")
        if self.machine.array.resident:
            emit_resident(builder, self.cells)
        refused: dict[ir.Node, str] = {}
        for item in planned:
            first = builder.length
            try:
                with fused(item.kernel):
                    item.lowering.emit(builder)
            except DoesNotFit as reason:
                if item.kernel.repetition is not None:
                    raise Irregular(item.kernel.nodes[0]) from reason
                refused.update(dict.fromkeys(item.kernel.nodes, f"{item.kernel.nodes[-1].op_type}: {reason}"))
                continue
            if builder.length > first:
                self.coded.append(item.kernel)
                stored = list(self._stored(item.kernel))
                op = self._op(item.kernel, first, builder.length)
                builder.ops.append(replace(op, writes=tuple(tensor.name for tensor in stored)))
                self.written += stored
        if refused:
            raise _Refused(refused)
        first = builder.length
        for copies in finish:
            copies.emit(builder)
        if builder.length > first:
            builder.ops.append(Op("states", "Copy", (), "dma", "", first, builder.length, "kept for the next run"))
        builder.emit("halt")

    def _stored(self, kernel: Kernel) -> Iterator[Tensor]:
        """Yield the values that a kernel hands on, where they lie in DRAM when its code has run."""
        for value in kernel.outputs():
            view = self.context.views.get(value)
            if view is not None and view.storage.space == "dram":
                yield tensor_of(str(value.name), view)

    def _op(self, kernel: Kernel, first: int, last: int) -> Op:
        products = [node for node in kernel.nodes if NM_KEY in node.metadata_props]
        leads = (products if kernel.repetition is None else products[:1]) or kernel.nodes[-1:]
        names = [str(lead.metadata_props.get("flexc.linear", lead.name)) for lead in leads]
        tail = kernel.tail.nodes if kernel.tail is not None else ()
        return Op(
            name=TOGETHER.join(names),
            op_type=leads[0].op_type if products or len(kernel.nodes) == 1 else "+".join(_kinds(kernel)),
            nodes=tuple(str(node.name) for node in (*kernel.chain, *tail)),
            engine=kernel.engine,
            nm=TOGETHER.join(dict.fromkeys(str(lead.metadata_props[NM_KEY]) for lead in leads if products)),
            first=first,
            last=last,
            reason=kernel.reason,
            tail=len(tail),
        )


def _kinds(kernel: Kernel) -> list[str]:
    return list(dict.fromkeys(node.op_type for node in kernel.nodes))


def lower(model: ir.Model, machine: Machine, pinned: Callable[[ir.Node], str] = lambda _node: "") -> Program:
    """Return the program of a quantised graph for a machine.

    Raises:
        FlexcError: a linear does not fit the machine, or an output is constant.
    """
    compiler, code = _write(model, machine, pinned)
    return compiler.finish(code)


def plan(model: ir.Model, machine: Machine) -> list[Kernel]:
    """Return the kernels that a quantised graph becomes, without packing its weights; what needs no code is none.

    Raises:
        FlexcError: as for :func:`lower`.
    """
    return _write(model, machine, lambda _node: "")[1].kernels


def _write(model: ir.Model, machine: Machine, pinned: Callable[[ir.Node], str]) -> tuple[Compiler, Code]:
    """Write the code.

    What turns out not to fit while its code is written goes to the host, and loops whose turns turn out not to lie
    evenly in memory are unrolled again; then everything is planned anew.
    """
    for value in model.graph.inputs:
        shape_of(value)
    refused: dict[ir.Node, str] = {}
    unrolled: set[ir.Node] = set()
    apart: set[ir.Node] = set()

    def for_host(node: ir.Node) -> str:
        return pinned(node) or refused.get(node, "")

    while True:
        compiler = Compiler(model, machine, for_host, unrolled, apart)
        try:
            return compiler, compiler.write()
        except _Refused as found:
            refused.update(found.reasons)
        except Unfusable as kernel:
            apart.add(kernel.node)
        except Irregular as loop:
            unrolled.add(loop.node)

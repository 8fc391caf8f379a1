"""Emitting one box of a row kernel: transfers in, vector instructions, transfers out, overlapped by semaphores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..frontend.operators import OPERATORS
from ..isa.fields import Value
from ..isa.program import Tap
from ..isa.streams import DTYPES, Step, Stream
from ..isa.table import BY_MNEMONIC
from ..passes.layout import aligned
from ..passes.rows import operand, result
from .boxes import Box, over, ring
from .code import Builder, Loop, Pending, Semaphores, nest, normalised, window
from .context import machine_dtype
from .recipes import RECIPES, Operand
from .transfers import bring, take

if TYPE_CHECKING:
    from .row_kernel import Access, RowKernel, Source


class RowChunk:
    """The code of one box: what happens to one chunk, inside the box's loops."""

    def __init__(
        self,
        kernel: RowKernel,
        builder: Builder,
        box: Box,
        accesses: Sequence[Access],
        loops: Sequence[Loop] | None = None,
    ) -> None:
        self.kernel, self.builder, self.box = kernel, builder, box
        self.place = {id(access): index for index, access in enumerate(accesses)}
        self.loops = builder.loops(*(count for count, _ in box.loops)) if loops is None else list(loops)
        self.ring = ring(self.loops)
        self.held: dict[Access, Stream] = {}
        self.made: dict[ir.Value, Stream] = {}
        self.pool: dict[int, list[int]] = {}
        self.room: list[tuple[int, int]] = []
        self.code: list[Pending] = []

    def dry_run(self) -> tuple[list[Pending], list[Pending], list[Pending]]:
        """Make room for everything and note the vector code; return the loads before and in the loops, and the stores.

        Raises:
            DoesNotFit: the buffer is too small.
        """
        left = [each for each in self.kernel.loads if each not in self.held]
        first = [self._load(each, moving=False) for each in left if not self._moves(each)]
        loads = [self._load(each, moving=True) for each in left if self._moves(each)]
        stores = [self._store(root, access) for root, access in self.kernel.stores.items()]
        self._compute()
        return first, loads, stores

    def emit(self) -> None:
        """Write the box."""
        loads, stores = self._begin()
        self.builder.write(nest(over(self.box, self.loops, self._total()), [*loads, *self.code, *stores]))

    def _begin(self) -> tuple[list[Pending], list[Pending]]:
        """Write what comes in once, and return what comes and goes over and over."""
        first, loads, stores = self.dry_run()
        if first:
            first[-1].post(Semaphores.IN_FULL)
            sync = Pending("sync", {}, {"engine": "vector"}).wait(Semaphores.IN_FULL)
            self.builder.write([*first, sync])
        self._overlap(loads, stores)
        return loads, stores

    def _overlap(self, loads: list[Pending], stores: list[Pending]) -> None:
        if loads:
            loads[0].wait(Semaphores.EMPTY["in"][1])
            loads[-1].post(Semaphores.IN_FULL)
            self.code[0].wait(Semaphores.IN_FULL)
            self.code[-1].post(Semaphores.EMPTY["in"][1])
        if stores:
            self.code[0].wait(Semaphores.EMPTY["out"][1])
            self.code[-1].post(Semaphores.OUT_FULL)
            stores[0].wait(Semaphores.OUT_FULL)
            stores[-1].post(Semaphores.EMPTY["out"][1])

    def _total(self) -> int:
        """Return the rows, or where columns are cut too the elements, of the value in all."""
        rows = math.prod(self.kernel.rows)
        return rows * next(iter(self.kernel.forms.values())).cols if self.box.cols else rows

    def _moves(self, access: Access) -> bool:
        place = self.place[id(access)]
        return any(strides[place] for _, strides in self.box.loops)

    def _extent(self, access: Access) -> tuple[int, int]:
        """Return the rows and columns of an operand that a chunk has."""
        place = self.place[id(access)]
        rows = 1 if self.box.row_strides[place] == 0 else self.box.rows
        if not self.box.cols:
            return rows, access.cols
        return rows, 1 if self.box.col_strides[place] == 0 else self.box.cols

    def _outside(self, access: Access) -> Stream:
        """Return the stream on the operand in DRAM."""
        place = self.place[id(access)]
        col = self.box.col_strides[place] if self.box.cols else access.col_stride
        steps = [
            step
            for loop, (_, strides) in zip(self.loops, self.box.loops, strict=True)
            for step in loop.step(strides[place])
        ]
        base = access.view.address + self.box.offset[place]
        pitch = (self.box.row_strides[place], col or access.view.itemsize)
        return window(access.view.storage.space, access.view.dtype, base, self._extent(access), pitch, steps)

    def _slots(self, size: int, *, ringed: bool) -> tuple[int, list[Step]]:
        turning = self.ring if ringed else None
        base, distance = self._reserve(size, 2 if turning else 1)
        return base, turning.step(distance, 2) if turning else []

    def _reserve(self, size: int, slots: int = 1) -> tuple[int, int]:
        """Return the address of so many slots of the buffer, and the bytes from one to the next."""
        return self.builder.buffer(size, slots), aligned(size)

    def _load(self, access: Access, *, moving: bool) -> Pending:
        source = self._outside(access)
        copy, held = bring(source, *self._slots(source.bytes, ringed=moving))
        self.held[access] = held
        for part, (whole, first) in self.kernel.within.items():
            if whole is access:
                columns = replace(held, base=held.base + first * held.col_pitch, cols=part.cols)
                self.held[part] = normalised(columns)
        return copy

    def _store(self, root: ir.Value, access: Access) -> Pending:
        target = self._outside(access)
        copy, self.made[root] = take(target, *self._slots(target.bytes, ringed=True))
        return copy

    def _compute(self) -> None:
        nodes = self.kernel.kernel.nodes
        last_use = {
            root: place
            for place, sources in enumerate(self.kernel.sources)
            for root in sources
            if isinstance(root, ir.Value)
        }
        for place, node in enumerate(nodes):
            root = result(node)
            if self.kernel.roots[root] is not root:
                continue
            if root not in self.made:
                self.made[root] = self._value_room(root)
            self._node(node, self.made[root], self.kernel.sources[place])
            self._give_back(last_use, place)

    def _node(self, node: ir.Node, dst: Stream, sources: Sequence[Source]) -> None:
        operands = [self._operand(source) for source in sources]
        self.room = []
        if OPERATORS[node.op_type].kind == "concat":
            self._concat(node, dst, operands)
        else:
            self._tap(RECIPES[node.op_type](self, node, dst, operands), result(node))
        for size, address in self.room:
            self.pool.setdefault(size, []).append(address)

    def _concat(self, node: ir.Node, dst: Stream, operands: Sequence[Operand]) -> None:
        start, value = 0, node.outputs[0]
        for place, given in enumerate(operands):
            width = shape_of(operand(node, place))[-1]  # of what is repeated the stream itself has one column only
            base = dst.base + start * dst.col_pitch
            part = normalised(replace(dst, base=base, cols=width))
            mnemonic = "vfill" if isinstance(given, float) else "vmov"
            self._tap(self.op(mnemonic, part, given), value, start)
            start += width

    def _operand(self, source: Source) -> Operand:
        if isinstance(source, ir.Value):
            return self.made[source]
        return source if source is None or isinstance(source, float) else self.held[source]

    def _value_room(self, value: ir.Value) -> Stream:
        cols = self.box.cols or self.kernel.forms[value].cols
        return self._room(cols, machine_dtype(value))[1]

    def _room(self, cols: int, dtype: str) -> tuple[int, Stream]:
        size = aligned(self.box.rows * cols * DTYPES[dtype])
        free = self.pool.get(size)
        address = free.pop() if free else self._reserve(size)[0]
        return size, window("buf", dtype, address, (self.box.rows, cols))

    def _give_back(self, last_use: dict[ir.Value, int], place: int) -> None:
        for root, last in last_use.items():
            if last == place and root not in self.kernel.stores:
                stream = self.made[root]
                self.pool.setdefault(aligned(stream.bytes), []).append(stream.base)

    def temp(self, cols: int, dtype: str = "f32") -> Stream:
        """Return room for one value a row and column until the present node is done."""
        size, stream = self._room(cols, dtype)
        self.room.append((size, stream.base))
        return stream

    def op(self, mnemonic: str, dst: Stream, *operands: Operand, swap: int = 0, least: int = 0) -> int:
        """Add a vector instruction; return its place in the chunk's code."""
        names = [name for name in BY_MNEMONIC[mnemonic].reads if name != "dst"]
        given = list(operands)
        if mnemonic not in ("vsel", "quant", "vfill") and len(given) == 2 and isinstance(given[0], float):
            given, swap = [given[1], given[0]], 1 - swap
        given = self._filled(mnemonic, given)
        streams = {"dst": dst} | {
            name: each for name, each in zip(names, given, strict=False) if isinstance(each, Stream)
        }
        values: dict[str, Value] = {}
        for number in given:
            if isinstance(number, float):
                values["imm"] = number
        values |= {name: flag for name, flag in (("swap", swap), ("least", least)) if flag}
        self.code.append(Pending(mnemonic, streams, values))
        return len(self.code) - 1

    def _filled(self, mnemonic: str, operands: list[Operand]) -> list[Operand]:
        """Put numbers that the instruction cannot hold into the buffer."""
        most = {"vsel": 1, "vfill": 1, "quant": 0}.get(mnemonic, 1 if len(operands) == 2 else 0)
        numbers = [place for place, each in enumerate(operands) if isinstance(each, float)]
        filled = list(operands)
        for place in numbers[: len(numbers) - most] if len(numbers) > most else []:
            room = self.temp(1)
            self.op("vfill", room, operands[place])
            filled[place] = room
        return filled

    def _tap(self, pc: int, value: ir.Value, start: int = 0) -> None:
        """Record that instruction ``pc`` of the chunk makes the columns of ``value`` from ``start`` on."""
        wide = 1 if self.box.cols else self.kernel.forms[value].cols
        steps = [
            step
            for loop, (_, strides) in zip(self.loops, self.box.loops, strict=True)
            for step in loop.step(strides[-1] * wide)
        ]
        tap = Tap(
            pc=0,
            operand="dst",
            value=str(value.name),
            dtype=machine_dtype(value),
            shape=shape_of(value),
            base=self.box.offset[-1] * wide + start,
            row_stride=self.box.row_strides[-1] * wide,
            col_stride=self.box.col_strides[-1] if self.box.cols else 1,
            steps=tuple(steps),
        )
        self.code[pc].taps.append(tap)

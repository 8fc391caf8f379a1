"""Products of two activations on the vector unit: the right operand stays in the buffer, rows of the left stream."""

from __future__ import annotations

from ..frontend.edit import shape_of
from ..isa.program import Tap
from ..isa.streams import Step, Stream
from ..passes.layout import aligned
from ..passes.partition import Kernel
from .boxes import divisor, even_chunk, ring
from .code import Builder, DoesNotFit, Pending, Semaphores, Tree, nest, window
from .context import Context, machine_dtype
from .row_kernel import dense_strides, wanted_order
from .transfers import bring, take
from .views import View, collapse


class MatMulKernel:
    """MatMul of two tensors that are both made at run time."""

    def __init__(self, kernel: Kernel, context: Context) -> None:
        self.machine = context.machine
        self.value = kernel.nodes[0].outputs[0]
        shape = shape_of(self.value)
        left, right = (context.view(value) for value in kernel.nodes[0].inputs if value is not None)
        self.k = left.shape[-1]
        self.left = left.broadcast((*shape[:-2], shape[-2], self.k))
        self.right = right.broadcast((*shape[:-2], self.k, shape[-1]))
        self.rows, self.cols = self._choose(shape[-2], shape[-1])
        self.out = context.output(self.value, wanted_order(self.value))

    def _choose(self, rows: int, cols: int) -> tuple[int, int]:
        """Return the rows of the left operand and the columns of the right one that are worked on at once."""
        wide = cols
        while self._need(1, wide) > self.machine.buffer.bytes:
            if wide == 1:
                raise DoesNotFit("one column of the right operand is larger than the buffer")
            wide = divisor(cols, wide - 1)
        high = min(rows, 256)
        while high > 1 and self._need(high, wide) > self.machine.buffer.bytes:
            high -= 1
        return even_chunk(rows, high), wide

    def _need(self, rows: int, cols: int) -> int:
        return aligned(4 * self.k * cols) + 2 * aligned(4 * rows * self.k) + 2 * aligned(4 * rows * cols)

    def emit(self, builder: Builder) -> None:
        """Write the kernel's code: whole chunks of rows, then the rest."""
        every = self.out.shape[-2]
        whole, rest = divmod(every, self.rows)
        for start, count, rows in ((0, whole, self.rows), (whole * self.rows, 1, rest)):
            if rows and count:
                builder.begin_kernel()
                self._write(builder, start, count, rows)
                builder.emit("barrier")

    def _write(self, builder: Builder, start: int, count: int, rows: int) -> None:
        """Write a nest: batch, columns, rows."""
        logical = dense_strides(self.out.shape)
        views = (self.left, self.right, self.out)
        batch = collapse(self.out.shape[:-2], [*(view.strides[:-2] for view in views), logical[:-2]])
        loops = builder.loops(*(size for size, _ in batch), self.out.shape[-1] // self.cols, count)
        matrix = self.out.shape[-2] * self.out.shape[-1]
        outer = [
            loop.over("matrix", "matrices", 1 if own[3] == matrix else 0, step=own[3] // matrix)
            for loop, (_, own) in zip(loops[:-2], batch, strict=True)
        ]
        col = loops[-2].over("column group", "columns", self.cols, limit=self.out.shape[-1])
        row = loops[-1].over("chunk", "rows", rows, start=start, limit=self.out.shape[-2])
        turning = ring(loops)
        steps = [
            [step for loop, (_, own) in zip(outer, batch, strict=True) for step in loop.step(own[i])] for i in range(4)
        ]

        def stream(view: View, place: int, shape: tuple[int, int], by_row: int, by_col: int) -> Stream:
            moves = steps[place] + row.step(by_row * view.strides[-2]) + col.step(by_col * view.strides[-1])
            base = view.address + (start * view.strides[-2] if by_row else 0)
            return window(view.storage.space, view.dtype, base, shape, (view.strides[-2], view.strides[-1]), moves)

        load_right, right = bring(
            stream(self.right, 1, (self.k, self.cols), 0, self.cols), builder.buffer(4 * self.k * self.cols)
        )
        slots = 2 if turning else 1
        left_at, out_at = (builder.buffer(4 * rows * wide, slots) for wide in (self.k, self.cols))
        turns = [turning.step(aligned(4 * rows * wide), 2) if turning else [] for wide in (self.k, self.cols)]
        load_left, left = bring(stream(self.left, 0, (rows, self.k), rows, 0), left_at, turns[0])
        store, result = take(stream(self.out, 2, (rows, self.cols), rows, self.cols), out_at, turns[1])
        product = Pending("vmm", {"dst": result, "a": left, "b": right})
        moves = steps[3] + row.step(rows * logical[-2]) + col.step(self.cols)
        product.taps.append(self._tap(start * logical[-2], logical[-2], tuple(moves)))
        inside = Semaphores.EMPTY["in"][1], Semaphores.EMPTY["out"][1]
        load_left.wait(inside[0]).post(Semaphores.IN_FULL)
        product.wait(Semaphores.IN_FULL, inside[1]).post(inside[0], Semaphores.OUT_FULL)
        store.wait(Semaphores.OUT_FULL).post(inside[1])
        load_right.wait(Semaphores.EMPTY["sums"][0]).post(Semaphores.WEIGHTS_FULL)
        ready = Pending("sync", {}, {"engine": "vector"}).wait(Semaphores.WEIGHTS_FULL)
        done = Pending("sync", {}, {"engine": "vector"}).post(Semaphores.EMPTY["sums"][0])
        body: Tree = [load_right, ready, *nest([row], [load_left, product, store]), done]
        builder.write(nest([*outer, col], body))

    def _tap(self, base: int, row_stride: int, steps: tuple[Step, ...]) -> Tap:
        value = self.value
        return Tap(0, "dst", str(value.name), machine_dtype(value), shape_of(value), base, row_stride, 1, steps)

"""Pooling: the greatest, or the mean, of shifted views of a few rows of the images, channels innermost."""

from __future__ import annotations

import math

import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.program import Tap
from ..isa.streams import Step, Stream
from ..passes.layout import aligned
from .boxes import divisor, ring
from .code import Builder, DoesNotFit, Pending, Semaphores, nest, window
from .context import Context, machine_dtype
from .image import Sliding, as_images, as_value, border_copies, bordered
from .moves import Copy, write_copy
from .transfers import bring, take
from .views import View


class PoolKernel:
    """MaxPool, or an AveragePool that counts its padding as zeros."""

    def __init__(self, node: ir.Node, context: Context) -> None:
        self.value = node.outputs[0]
        self.mean = node.op_type == "AveragePool"
        source = node.inputs[0]
        assert source is not None
        self.sliding = Sliding.of(node, node.attributes.get_ints("kernel_shape", []))
        self.images, self.copies = self._bordered(context, as_images(context.view(source)))
        height, width = self.sliding.out
        count, _, self.width, channels = self.images.shape
        self.reach = (self.sliding.kernel[0] - 1) * self.sliding.dilations[0] + 1
        self.channels = self._channels(context.machine.buffer.bytes, channels)
        storage = context.scratch(str(self.value.name), 4 * count * height * width * channels)
        self.out = View.dense(storage, "f32", (count, height, width, channels))
        context.set(self.value, as_value(self.out, shape_of(self.value)))

    def _bordered(self, context: Context, images: View) -> tuple[View, list[Copy]]:
        """Return the images with their border of -inf or 0, channels innermost, and the copies that make it."""
        border = self.sliding.border
        if border.empty and images.strides[3] == 4:
            return images, []
        name = f"{self.value.name}/bordered"
        whole, inside = bordered(context, name, images.shape, "f32", border)
        edge = 0.0 if self.mean else -math.inf
        return whole, [*border_copies(context, name, whole, border, edge), (images, inside)]

    def _channels(self, room: int, channels: int) -> int:
        """Return how many channels are worked on at once."""
        most = channels
        while 2 * aligned(4 * self.reach * self.width * most) + 2 * aligned(4 * self.sliding.out[1] * most) > room:
            if most == 1:
                raise DoesNotFit("the rows under one window are larger than the buffer")
            most = divisor(channels, most - 1)
        return most

    def emit(self, builder: Builder) -> None:
        """Write the border, then a nest over groups of channels and output rows."""
        for source, target in self.copies:
            builder.begin_kernel()
            write_copy(builder, source, target)
        if self.copies:
            builder.emit("barrier")
        builder.begin_kernel()
        self._write(builder)
        builder.emit("barrier")

    def _write(self, builder: Builder) -> None:
        channels, (height, pixels), width = self.channels, self.sliding.out, self.width
        count, _, _, every = self.images.shape
        image, group, row, line = builder.loops(count, every // channels, height, self.reach)
        outer = [image, group, row]
        turning = ring(outer)
        a_line = 4 * width * channels
        held_at = builder.buffer(self.reach * a_line, 2 if turning else 1)
        turns = turning.step(aligned(self.reach * a_line), 2) if turning else []
        by_image, by_row, by_pixel, _ = self.images.strides
        moves = image.step(by_image) + group.step(4 * channels)
        moves += row.step(self.sliding.strides[0] * by_row) + line.step(by_row)
        outside = window(self.images.storage.space, "f32", self.images.address, (width, channels), (by_pixel, 4), moves)
        load, _ = bring(outside, held_at, turns + line.step(a_line))
        out_moves = image.step(self.out.strides[0]) + group.step(4 * channels) + row.step(self.out.strides[1])
        target = window("dram", "f32", self.out.address, (pixels, channels), (self.out.strides[2], 4), out_moves)
        out_turns = turning.step(aligned(target.bytes), 2) if turning else []
        store, result = take(target, builder.buffer(target.bytes, 2 if turning else 1), out_turns)
        code = self._joined(result, held_at, width, turns)
        steps = image.step(every * height * pixels) + group.step(channels * height * pixels) + row.step(pixels)
        shape = shape_of(self.value)
        code[-1].taps.append(
            Tap(0, "dst", str(self.value.name), machine_dtype(self.value), shape, 0, 1, height * pixels, tuple(steps))
        )
        empty_in, empty_out = Semaphores.EMPTY["in"][1], Semaphores.EMPTY["out"][1]
        ready = Pending("sync", {}, {"engine": "dma0"}).wait(empty_in)
        full = Pending("sync", {}, {"engine": "dma0"}).post(Semaphores.IN_FULL)
        code[0].wait(Semaphores.IN_FULL, empty_out)
        code[-1].post(empty_in, Semaphores.OUT_FULL)
        store.wait(Semaphores.OUT_FULL).post(empty_out)
        builder.write(nest(outer, [ready, *nest([line], [load]), full, *code, store]))

    def _joined(self, result: Stream, at: int, width: int, turns: list[Step]) -> list[Pending]:
        """Return the code that joins the pixels under each window, one place of the window after the other."""
        sliding, channels = self.sliding, self.channels
        join = "vadd" if self.mean else "vmax"
        code: list[Pending] = []
        for i in range(sliding.kernel[0]):
            for j in range(sliding.kernel[1]):
                base = at + 4 * channels * (i * sliding.dilations[0] * width + j * sliding.dilations[1])
                part = window(
                    "buf", "f32", base, (result.rows, channels), (4 * channels * sliding.strides[1], 4), turns
                )
                if code:
                    code.append(Pending(join, {"dst": result, "a": result, "b": part}))
                else:
                    code.append(Pending("vmov", {"dst": result, "a": part}))
        if self.mean:
            code.append(Pending("vmul", {"dst": result, "a": result}, {"imm": 1 / math.prod(sliding.kernel)}))
        return code

"""Quantising whole images, one scale each: the greatest magnitude first, then a row of pixels at a time into INT8."""

from __future__ import annotations

from ..frontend.edit import shape_of
from ..isa.program import Tap
from ..isa.streams import Stream
from ..passes.layout import aligned
from ..passes.partition import Kernel
from ..passes.rows import operand
from .boxes import Box, boxes, cut, even_chunk, ring
from .code import Builder, Pending, Semaphores, Tree, nest, window
from .context import Context, machine_dtype
from .image import Border, Sliding, as_images, as_value, border_copies, bordered
from .moves import write_copy
from .transfers import bring, take
from .views import View, collapse

#: Smallest normal float32 and the greatest INT8 code: see ``passes/quantise.py``, which says what is computed here.
FLOOR, LEVELS = 2.0**-126, 127.0
_MOST_COLS, _MOST_ROWS = 512, 32


class TensorQuantiseKernel:
    """Abs, ReduceMax, Max, Div, QuantizeLinear of images; the codes get the border that their readers need."""

    def __init__(self, kernel: Kernel, context: Context) -> None:
        source = operand(kernel.nodes[0])
        self.machine = context.machine
        self.scale_value, self.codes = kernel.nodes[3].outputs[0], kernel.nodes[4].outputs[0]
        self.source = context.view(source)
        self.images = as_images(self.source)
        name = str(self.codes.name)
        border = Border.around(
            Sliding.of(use.node, shape_of(operand(use.node, 1))[2:]).border
            for use in self.codes.uses()
            if use.node.op_type == "ConvInteger"
        )
        whole, self.inside = bordered(context, name, self.images.shape, "i8", border)
        self.border = border_copies(context, name, whole, border, 0)
        context.bordered.add(self.codes)
        context.set(self.codes, as_value(self.inside, shape_of(self.codes)))
        self.scale = context.output(self.scale_value)

    def emit(self, builder: Builder) -> None:
        """Write the search for the greatest magnitude, the border, and the quantisation."""
        for source, target in self.border:
            builder.begin_kernel()
            write_copy(builder, source, target)
        found = self._boxes()
        for image in range(self.images.shape[0]):
            for place, box in enumerate(found):
                builder.begin_kernel()
                self._write_peak(builder, image, box, first=place == 0, last=place == len(found) - 1)
                builder.emit("barrier")
            self._write_codes(builder, image)

    def _boxes(self) -> list[Box]:
        """Return the boxes of one image; what is repeated is seen once."""
        moving = [axis for axis, stride in enumerate(self.source.strides) if stride and axis]
        order = sorted(moving, key=lambda axis: -self.source.strides[axis])
        shape = [self.source.shape[axis] for axis in order]
        dims = collapse(shape, [[self.source.strides[axis] for axis in order], [0] * len(order)])
        cols = dims[-1][0] if dims else 1
        room = (self.machine.buffer.bytes - 1024) // 12  # elements: two slots of what comes in, one of magnitudes
        most = min(_MOST_COLS, room)
        return boxes(dims, 2, cols, lambda rows, wide: min(rows, _MOST_ROWS, room // wide), most)

    def _peaks(self, builder: Builder) -> tuple[Stream, Stream]:
        """Return the running maxima and the scale in the buffer: at the same place in every part of the kernel."""
        running = window("buf", "f32", builder.buffer(4 * _MOST_ROWS), (_MOST_ROWS, 1))
        return running, window("buf", "f32", builder.buffer(4), (1, 1))

    def _write_peak(self, builder: Builder, image: int, box: Box, *, first: bool, last: bool) -> None:
        running, scale = self._peaks(builder)
        loops = builder.loops(*(count for count, _ in box.loops))
        turning = ring(loops)
        steps = [step for loop, (_, own) in zip(loops, box.loops, strict=True) for step in loop.step(own[0])]
        base = self.source.address + image * self.source.strides[0] + box.offset[0]
        outside = window(
            self.source.storage.space,
            "f32",
            base,
            (box.rows, box.cols),
            (box.row_strides[0], box.col_strides[0] or 4),
            steps,
        )
        at = builder.buffer(outside.bytes, 2 if turning else 1)
        load, held = bring(outside, at, turning.step(aligned(outside.bytes), 2) if turning else [])
        size = window("buf", "f32", builder.buffer(held.bytes), (held.rows, held.cols))
        part = window("buf", "f32", builder.buffer(4 * held.rows), (held.rows, 1))
        own = window("buf", "f32", running.base, (held.rows, 1))
        load.wait(Semaphores.EMPTY["in"][1]).post(Semaphores.IN_FULL)
        body: Tree = [
            load,
            Pending("vabs", {"dst": size, "a": held}).wait(Semaphores.IN_FULL).post(Semaphores.EMPTY["in"][1]),
            Pending("vrmax", {"dst": part, "a": size}),
            Pending("vmax", {"dst": own, "a": own, "b": part}),
        ]
        before: Tree = [Pending("vfill", {"dst": running}, {"imm": 0.0})] if first else []
        after = self._finish(image, running, scale) if last else []
        chunks = [loop.over("chunk", "", 0) for loop in loops]
        builder.write([*before, *nest(chunks, body), *after])

    def _finish(self, image: int, running: Stream, scale: Stream) -> Tree:
        """Return the code that makes the scale of an image of the running maxima and takes it away."""
        across = window("buf", "f32", running.base, (1, running.rows))
        done = Pending("vdiv", {"dst": scale, "a": scale}, {"imm": LEVELS}).post(Semaphores.OUT_FULL)
        value = self.scale_value
        done.taps.append(Tap(0, "dst", str(value.name), machine_dtype(value), shape_of(value), image, 1, 1))
        store, _ = take(window("dram", "f32", self.scale.address + 4 * image, (1, 1)), scale.base)
        return [
            Pending("vrmax", {"dst": scale, "a": across}),
            Pending("vmax", {"dst": scale, "a": scale}, {"imm": FLOOR}),
            done,
            store.wait(Semaphores.OUT_FULL),
        ]

    def _write_codes(self, builder: Builder, image: int) -> None:
        _, _, width, channels = self.images.shape
        room = builder.machine.buffer.bytes - 4096
        chunk = even_chunk(width, max(1, room // (2 * 5 * channels + 256)))
        for loop, pixels, offset in cut((width, (1,)), chunk, (0,)):
            builder.begin_kernel()
            self._write_rows(builder, image, loop[0], pixels, offset[0])
            builder.emit("barrier")

    def _write_rows(self, builder: Builder, image: int, chunks: int, pixels: int, start: int) -> None:
        _, scale = self._peaks(builder)
        _, height, width, channels = self.images.shape
        row, chunk = builder.loops(height, chunks)
        row = row.over("row of pixels", "rows", 1, limit=height)
        chunk = chunk.over("chunk", "pixels of the row", pixels, start=start, limit=width)
        turning = ring([row, chunk])

        def side(view: View) -> Stream:
            by_image, by_row, by_pixel, by_channel = view.strides
            moves = row.step(by_row) + chunk.step(pixels * by_pixel)
            base = view.address + image * by_image + start * by_pixel
            return window(view.storage.space, view.dtype, base, (pixels, channels), (by_pixel, by_channel), moves)

        source, target = side(self.images), side(self.inside)
        slots = 2 if turning else 1
        ats = [builder.buffer(each.bytes, slots) for each in (source, target)]
        turns = [turning.step(aligned(each.bytes), 2) if turning else [] for each in (source, target)]
        load, held = bring(source, ats[0], turns[0])
        store, codes = take(target, ats[1], turns[1])
        moves = row.step(width) + chunk.step(pixels)
        value = self.codes
        first = image * channels * height * width + start
        tap = Tap(0, "dst", str(value.name), "i8", shape_of(value), first, 1, height * width, tuple(moves))
        quant = Pending("quant", {"dst": codes, "a": held, "scale": scale}, {}, [tap])
        load.wait(Semaphores.EMPTY["in"][1]).post(Semaphores.IN_FULL)
        quant.wait(Semaphores.IN_FULL, Semaphores.EMPTY["out"][1]).post(Semaphores.EMPTY["in"][1], Semaphores.OUT_FULL)
        store.wait(Semaphores.OUT_FULL).post(Semaphores.EMPTY["out"][1])
        builder.write(nest([row, chunk], [load, quant, store]))

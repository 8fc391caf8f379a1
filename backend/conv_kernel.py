"""Convolutions on the array: every output pixel is a vector gathered from the image while it comes into the buffer.

K runs over kernel rows, kernel columns and channels. A grouped convolution becomes several linears side by side; each
takes as many groups as fill a macro's columns, its weight being zero between the groups: for those zeros the in-cell
index costs nothing (a depthwise one is 1:16 or sparser).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.program import Tap
from ..isa.streams import Step
from ..passes.mapping import LinearShape, choose
from ..passes.partition import Kernel
from ..passes.pattern import NM, detect
from ..passes.tail_cost import TailCost
from .code import Builder, DoesNotFit, Loop, Pending, Tree, nest, window
from .context import Context, array_of
from .image import Sliding, as_images, as_value, border_copies, bordered
from .linear_body import Job, LinearBody, Result
from .linear_kernel import CellAllocator, Chain, PlannedBox, boxes_cycles, output_taps, pattern_of, plan_boxes, results
from .linear_weights import Floats, Weights
from .moves import Copy, CopyKernel
from .pack import Codes
from .tail_code import TailRun
from .tail_kernel import TailKernel
from .views import View


@dataclass(frozen=True)
class Parts:
    """A convolution as ``count`` linears: each reads ``channels`` and makes ``columns``, from ``groups`` groups."""

    count: int
    groups: int
    channels: int
    columns: int


class ConvKernel:
    """ConvInteger with a constant weight: the same code for every image of a batch, each with a scale of its own."""

    def __init__(self, kernel: Kernel, context: Context, cells: CellAllocator) -> None:
        self.chain, self.machine = Chain.of(kernel), context.machine
        product = self.chain.product
        self.name = str(product.name)
        weight = shape_of(self.chain.weight)
        self.sliding = Sliding.of(product, weight[2:])
        self.copies: list[Copy] = []
        self.images = self._plan_images(context)
        self.scale = context.view(self.chain.column) if self.chain.column is not None else None
        self.groups = product.attributes.get_int("group", 1)
        self.tail = self._plan_tail(kernel, context)
        self.parts, self.shape = self._cut(context)
        self.boxes = plan_boxes(self.shape, self.parts.count, self._weights(), context, cells, self.name)
        self.result = self._plan_output(context)

    def _plan_images(self, context: Context) -> View:
        """Return images with channels innermost and zeros around them: a copy where they do not lie like that."""
        source, border = self.chain.source, self.sliding.border
        images = as_images(context.view(source))
        if images.strides[3] == 1 and (border.empty or source in context.bordered):
            return images
        name = f"{self.name}/images"
        whole, inside = bordered(context, name, images.shape, "i8", border)
        self.copies = [*border_copies(context, name, whole, border, 0), (images, inside)]
        return inside

    def _cut(self, context: Context) -> tuple[Parts, LinearShape]:
        """Return the linears side by side: the smallest that fill whole tiles, or one for all where they do not fit."""
        weight, channels = shape_of(self.chain.weight), self.images.shape[3]
        filters, columns = weight[0], context.machine.array.columns
        each = filters // self.groups
        sizes = [s for s in range(1, self.groups) if self.groups % s == 0 and s * each % columns == 0]
        for size in [*sizes[:1], self.groups]:
            count = self.groups // size
            parts = Parts(count, size, channels // count, filters // count)
            k = self.sliding.kernel[0] * self.sliding.kernel[1] * parts.channels
            rows = self.sliding.out[0] * self.sliding.out[1]
            cost, branches = self._tail_cost(parts), 1 if self.tail is None else self.tail.branches
            pattern, unit = self._pattern(parts), self.sliding.out[1]
            shape = LinearShape(rows, k, parts.columns, pattern, unit, count > 1, tail=cost, branches=branches)
            if choose(shape, context.machine) is not None:
                return parts, shape
        raise DoesNotFit(f"{shape.k} x {shape.n} cannot be mapped")

    def _plan_tail(self, kernel: Kernel, context: Context) -> TailKernel | None:
        if kernel.tail is None:
            return None
        images = self._results()
        pixels, channels = images.shape[1] * images.shape[2], images.shape[3]
        view = as_value(images, shape_of(self.chain.output))
        return TailKernel(kernel, context, [view], pixels, 4 * channels)

    def _results(self) -> View:
        """Return the results as a tail sees them."""
        filters = shape_of(self.chain.weight)[0]
        return results(self.chain, (self.images.shape[0], *self.sliding.out, filters))

    def _tail_cost(self, parts: Parts) -> TailCost | None:
        if self.tail is None:
            return None
        if (self.tail.tail.whole or self.tail.branches > 1) and parts.count > 1:
            raise DoesNotFit("whole rows or branches of a convolution in parts")
        return self.tail.cost(parts.columns // self.tail.branches)

    def cycles(self) -> int:
        """Return about how many cycles the kernel takes."""
        return boxes_cycles(self.boxes, self.machine, self.images.shape[0] * self.parts.count)

    def _pattern(self, parts: Parts) -> NM:
        if parts.groups == 1:
            return pattern_of(self.chain.product)
        return detect(self._codes(parts).astype(np.float32))

    def _codes(self, parts: Parts) -> Codes:
        """Return the weight as [filters, K of a part]: kernel rows, kernel columns, channels; zero between groups."""
        weight = array_of(self.chain.weight).astype(np.int8, copy=False)
        filters, own = weight.shape[:2]
        flat = np.moveaxis(weight, 1, -1).reshape(filters, -1, own)
        wide = np.zeros((filters, flat.shape[1], parts.channels), np.int8)
        each = filters // self.groups
        for row in range(filters):
            start = row // each % parts.groups * own
            wide[row, :, start : start + own] = flat[row]
        return wide.reshape(filters, -1)

    def _weights(self) -> Weights:
        chain = self.chain
        filters = shape_of(chain.weight)[0]

        def flat(value: ir.Value) -> Floats:
            return np.broadcast_to(array_of(value).astype(np.float32).reshape(-1), (filters,))

        scales, bias = (None if each is None else partial(flat, each) for each in (chain.scales, chain.bias))
        return Weights(lambda: self._codes(self.parts), scales, bias)

    def _plan_output(self, context: Context) -> View:
        value = self.chain.output
        if self.tail is not None:
            return self._results()
        height, width = self.sliding.out
        padded = max(box.mapping.n_padded for box in self.boxes) * self.parts.count
        count, size = self.images.shape[0], 4 * height * width * padded
        storage = context.scratch(str(value.name), count * size)
        channels = self.parts.columns * self.parts.count
        shape, strides = (count, height, width, channels), (size, 4 * width * padded, 4 * padded, 4)
        images = View(storage, self.chain.dtype, shape, strides)
        context.set(value, as_value(images, shape_of(value)))
        return images

    def emit(self, builder: Builder) -> None:
        """Write the kernel's code, one box of rows after the other."""
        CopyKernel([*self.copies, *([] if self.tail is None else self.tail.copied.values())]).emit(builder)
        for image in range(self.images.shape[0]):
            for box in self.boxes:
                builder.begin_kernel()
                LinearBody(self._job(image, box, builder), builder).write()

    def _job(self, image: int, box: PlannedBox, builder: Builder) -> Job:
        def fetch(address: int, turns: Sequence[Step], part: Loop, block: Loop) -> Tree:
            return self._fetch(builder, image, box, address, turns, (part, block))

        pitch = self.result.strides[2]
        address = self.result.address + image * self.result.strides[0] + box.start * pitch
        elements = self.parts.columns * self.sliding.out[0] * self.sliding.out[1]
        taps = self._taps(image, box.start)
        result = Result("dram", address, pitch, 4 * self.parts.columns, taps, elements, self.chain.dtype)
        scales = window("dram", "f32", self.scale.address + 4 * image, (1, 1)) if self.scale is not None else None
        parts, weights = self.parts.count, box.weights.address
        tail = self._tail_run(image, box.start)
        return Job(
            box.mapping, box.blocks, parts, box.start, weights, result, scales, (0, 0), box.unit, fetch, tail=tail
        )

    def _tail_run(self, image: int, start: int) -> TailRun | None:
        if self.tail is None:
            return None
        layout = self.tail.layout
        still = (0,) * len(layout.row)
        at = tuple(image * stride for (stride,) in self.tail.by_batch((self.images.shape[0],)))
        part = tuple(self.parts.columns * stride for stride in layout.inner[0][1]) if self.parts.count > 1 else still
        return TailRun(self.tail, part, at).starting(start)

    def _taps(self, image: int, start: int) -> tuple[tuple[Tap, ...], ...]:
        pixels, channels = self.sliding.out[0] * self.sliding.out[1], self.result.shape[3]
        branches = self.shape.branches
        firsts = [image * channels + branch * (channels // branches) for branch in range(branches)]
        return tuple(output_taps(self.chain, first * pixels + start, 1, pixels) for first in firsts)

    def _fetch(
        self,
        builder: Builder,
        number: int,
        box: PlannedBox,
        address: int,
        turns: Sequence[Step],
        loops: tuple[Loop, Loop],
    ) -> Tree:
        """Return the transfers that gather a block of vectors: a row of output pixels and a kernel row at a time."""
        sliding, image, mapping = self.sliding, self.images, box.mapping
        by_image, by_row, by_pixel, _ = image.strides
        part, block = loops
        channels, pixels = self.parts.channels, sliding.out[1]
        joined = sliding.dilations[1] == 1 and channels == image.shape[3] and by_pixel == channels
        rows = mapping.resident_rows // pixels
        down, kernel_row, kernel_col = builder.loops(rows, sliding.kernel[0], 1 if joined else sliding.kernel[1])
        down = down.over("row of pixels", "rows of the block", 1)
        kernel_row = kernel_row.over("kernel row", "kernel rows", 1)
        kernel_col = kernel_col.over("kernel column", "kernel columns", sliding.kernel[1] if joined else 1)
        first = box.start // pixels * sliding.strides[0] - sliding.border.top
        base = image.address + number * by_image + first * by_row - sliding.border.left * by_pixel
        moves = part.step(channels) + block.step(rows * sliding.strides[0] * by_row)
        moves += down.step(sliding.strides[0] * by_row) + kernel_row.step(sliding.dilations[0] * by_row)
        moves += kernel_col.step(sliding.dilations[1] * by_pixel)
        width = channels * (sliding.kernel[1] if joined else 1)
        pitch = (sliding.strides[1] * by_pixel, 1)
        outside = window(image.storage.space, "i8", base, (pixels, width), pitch, moves)
        places = down.step(pixels * mapping.k_padded) + kernel_row.step(sliding.kernel[1] * channels)
        places += kernel_col.step(channels) + list(turns)
        inside = window("buf", "i8", address, (pixels, width), (mapping.k_padded, 1), places)
        copy: Tree = [Pending("copy", {"dst": inside, "src": outside}, {"channel": 0})]
        builder.end_loops([down, kernel_row, kernel_col])
        return nest([down, kernel_row, kernel_col], copy)

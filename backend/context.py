"""What planning a program knows: the view of every value, and how long each storage is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..frontend.edit import shape_of
from ..isa.errors import FlexcError
from ..isa.machine import Machine
from ..isa.streams import DTYPES as ITEMSIZE
from .memory import ConstImage, Lifetime
from .views import Storage, View

#: ONNX type -> element type of the machine.
DTYPES = {
    "FLOAT": "f32",
    "INT8": "i8",
    "UINT8": "u8",
    "INT16": "i16",
    "UINT16": "u16",
    "INT32": "i32",
    "INT64": "i64",
    "FLOAT16": "f16",
    "BOOL": "b8",
}


@dataclass
class Context:
    """Filled kernel by kernel while planning, read while emitting."""

    machine: Machine
    const: ConstImage = field(default_factory=ConstImage)
    lifetimes: dict[int, Lifetime] = field(default_factory=dict)
    views: dict[ir.Value, View] = field(default_factory=dict)
    #: Images around which there are zeros enough for every convolution that reads them.
    bordered: set[ir.Value] = field(default_factory=set)
    kernel: int = 0

    def view(self, value: ir.Value) -> View:
        """Return where a value lies, and keep it alive for the present kernel; initializers are placed on first use."""
        if value not in self.views:
            self.views[value] = self._constant(value)
        view = self.views[value]
        lifetime = self.lifetimes.get(id(view.storage))  # neither constants nor what moves with a loop have one
        if lifetime is not None:
            lifetime.last = max(lifetime.last, self.kernel)
        return view

    def scratch(self, name: str, size: int) -> Storage:
        """Return dram storage for the present kernel, kept alive as long as views on it are read."""
        storage = Storage(name, "dram", size)
        self.lifetimes[id(storage)] = Lifetime(storage, self.kernel, self.kernel)
        return storage

    def output(self, value: ir.Value, order: Sequence[int] | None = None) -> View:
        """Return new dense storage for a value, its dimensions in memory in that order."""
        shape = shape_of(value)
        dtype = machine_dtype(value)
        view = View.dense(Storage(str(value.name), "dram", 0), dtype, shape, order)
        storage = self.scratch(str(value.name), max(1, view.size) * view.itemsize)
        return self.set(value, View(storage, dtype, view.shape, view.strides))

    def set(self, value: ir.Value, view: View) -> View:
        """Record where a value lies."""
        self.views[value] = view
        return view

    def keep(self, values: Iterable[ir.Value]) -> None:
        """Keep values alive for the present kernel."""
        for value in values:
            self.view(value)

    def constant(self, name: str, array: npt.NDArray[Any]) -> View:
        """Return a dense constant."""
        dense = np.ascontiguousarray(array)
        dtype = {np.dtype(np.bool_): "b8"}.get(dense.dtype) or {"f": "f", "i": "i", "u": "u"}[dense.dtype.kind] + str(
            dense.dtype.itemsize * 8
        )
        storage = self.const.add(name, dense.nbytes, lambda: [dense.reshape(-1).view(np.uint8)])
        return View.dense(storage, dtype, array.shape)

    def _constant(self, value: ir.Value) -> View:
        tensor = value.const_value
        if tensor is None:
            raise FlexcError("the value is read before anything makes it", where=f"value '{value.name}'")
        shape, dtype = shape_of(value), machine_dtype(value)
        size = math.prod(shape) * ITEMSIZE[dtype]
        storage = self.const.add(
            str(value.name), size, lambda: [np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)]
        )
        return View.dense(storage, dtype, shape)


def machine_dtype(value: ir.Value) -> str:
    """Return the machine's element type of a value, or raise FlexcError where it has none."""
    name = value.dtype.name if value.dtype is not None else "unknown"
    if name not in DTYPES:
        known, node = ", ".join(DTYPES), value.producer()
        place = f" of node '{node.name}' ({node.op_type})" if node is not None else ""
        remedy = f"use one of {known}"
        raise FlexcError(f"the machine has no element type {name}", where=f"value '{value.name}'{place}", remedy=remedy)
    return DTYPES[name]


def array_of(value: ir.Value) -> npt.NDArray[np.generic]:
    """Return the content of a constant."""
    assert value.const_value is not None
    return value.const_value.numpy()

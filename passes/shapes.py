"""Shapes of a static graph as plain integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..isa.errors import FlexcError

if TYPE_CHECKING:
    import onnx_ir as ir


def static_shape(value: ir.Value | None) -> tuple[int, ...]:
    """Return the sizes of a value's axes.

    Raises:
        FlexcError: a size is unknown.
    """
    if value is None or value.shape is None or not value.shape.is_static():
        name = value.name if value is not None else "?"
        raise FlexcError(f"'{name}' has no static shape", remedy="bind dynamic inputs, --shape NAME=1x256")
    return value.shape.numpy()

"""The array's instructions and the host: handed on to what carries them out."""

from __future__ import annotations

from ..memory import Array
from .registry import Call, handler


@handler("ldw")
def ldw(call: Call, cells: range, src: Array) -> None:
    """Write tiles into cells."""
    assert call.leaf.groups is not None
    call.array.load_weights(cells, src, call.leaf.groups, (call.leaf.pc, tuple(call.iterations)))


@handler("lda")
def lda(call: Call, act: Array) -> None:
    """Latch activations."""
    call.array.load_activations(act)


@handler("mac")
def mac(call: Call, acc: Array, cells: range) -> None:
    """Multiply and sum."""
    assert call.leaf.groups is not None
    slices = call.leaf.instr.integer("slices")
    call.array.multiply(acc, cells, call.leaf.groups, slices, call.adds, call.leaf.pc)


@handler("accum")
def accum(call: Call, dst: Array, src: Array) -> None:
    """Add sums to sums."""
    call.array.accumulate(dst, src)


@handler("host")
def host(call: Call) -> None:
    """Run a segment on the host."""
    call.host(call.leaf.instr.integer("segment"))

"""Weights of a few bits, packed into bytes and scaled by blocks: what onnxruntime's 4-bit quantisers and genai write.

The array takes INT8 with one scale a column, so such weights are dequantised while a model is loaded; the report says
so. Layouts: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, MatMulNBits, MatMulBnb4 and
GatherBlockQuantized.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .codes import CODES_KEY
from .edit import Editor, constant_array, int_attribute

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

#: Bits of a number that divide a byte: the others have no kernel in onnxruntime, so nothing to be checked against.
_BITS = (2, 4, 8)
#: The 16 numbers of a 4-bit float and of a normal float (QLoRA, https://arxiv.org/abs/2305.14314, appendix E).
_FP4_HALF = (0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
_FP4 = (*_FP4_HALF, *(-each for each in _FP4_HALF))
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_BNB4 = {0: _FP4, 1: _NF4}


def unpacked(packed: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Return numbers of ``bits`` bits [..., n * 8 / bits], the first in the lowest bits of a byte, a byte each."""
    if bits == 8:
        return packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., np.newaxis] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*packed.shape[:-1], packed.shape[-1] * len(shifts))


def _product(node: ir.Node, weight: Floats, bias: ir.Value | None, editor: Editor) -> bool:
    """Put x @ weight [K, N], and a bias, in the place of a node; its first input is x."""
    numbers = editor.constant(f"{node.name}.numbers", weight)
    result = editor.insert(node, "MatMul", [node.inputs[0], numbers], suffix=".product")
    product = result.producer()
    assert product is not None, "it has just been inserted"
    product.metadata_props[CODES_KEY] = "requantised"
    if bias is not None:
        result = editor.insert(node, "Add", [result, bias], suffix=".biased")
    editor.substitute(node, [result])
    return True


def matmul_n_bits(node: ir.Node, editor: Editor) -> bool:
    """MatMulNBits of 2, 4 or 8 bits: (a, packed b, scales, zero points, block of every k, bias); blocks along K.

    (onnxruntime's kernel for CPUs leaves packed zero points out where every k has its own block; its definition and its
    other kernels do not, nor do we.)
    """
    packed, scales, zeros, order, bias = [*node.inputs, *[None] * 5][1:6]
    codes, factors = constant_array(packed), constant_array(scales)
    columns, k, bits, block = (int_attribute(node, name, 4) for name in ("N", "K", "bits", "block_size"))
    late = any(value is not None and value.const_value is None for value in (zeros, order))
    if codes is None or factors is None or late or bits not in _BITS or codes.size == 0:
        return False
    blocks = -(-k // block)
    given = constant_array(order)
    places = np.arange(k) // block if given is None else given.reshape(-1)[:k]
    numbers = unpacked(codes.reshape(columns, -1), bits)[:, :k].astype(np.float32)
    numbers -= _zeros(constant_array(zeros), (columns, blocks), bits)[:, places]
    numbers *= factors.astype(np.float32).reshape(columns, blocks)[:, places]
    return _product(node, np.ascontiguousarray(numbers.T), bias, editor)


def _zeros(zeros: Array | None, shape: tuple[int, ...], bits: int) -> Floats:
    """Return the zero point of every block: packed along the last axis, or numbers of their own, or the middle."""
    if zeros is None:
        return np.full(shape, 1 << (bits - 1), np.float32)
    if zeros.dtype == np.uint8:
        zeros = unpacked(zeros.reshape(*shape[:-1], -1), bits)[..., : shape[-1]]
    return zeros.astype(np.float32).reshape(shape)


def matmul_bnb4(node: ir.Node, editor: Editor) -> bool:
    """MatMulBnb4: (a, packed b, greatest magnitude of every block); FP4 or NF4, blocks along the rows of [N, K]."""
    codes, greatest = (constant_array(value) for value in node.inputs[1:3])
    table = _BNB4.get(int_attribute(node, "quant_type", -1))
    if codes is None or greatest is None or table is None or not int_attribute(node, "transB", 1):
        return False
    columns, k, block = (int_attribute(node, name, 0) for name in ("N", "K", "block_size"))
    halves = unpacked(codes.reshape(-1, 1), 4)[:, ::-1].reshape(-1)[: columns * k]  # the first in the highest bits
    numbers = np.array(table, np.float32)[halves]
    numbers *= greatest.astype(np.float32).reshape(-1).repeat(block)[: columns * k]
    return _product(node, np.ascontiguousarray(numbers.reshape(columns, k).T), None, editor)


def gather_block_quantized(node: ir.Node, editor: Editor) -> bool:
    """GatherBlockQuantized: (table, indices, scales, zero points); blocks along one axis of a constant table."""
    data, indices, scales, zeros = [*node.inputs, None][:4]
    codes, factors = constant_array(data), constant_array(scales)
    if codes is None or factors is None or (zeros is not None and zeros.const_value is None):
        return False
    bits = int_attribute(node, "bits", 4)
    if codes.dtype == np.uint8:
        codes = unpacked(codes, bits)
    axis = int_attribute(node, "quantize_axis", 1) % codes.ndim
    block = int_attribute(node, "block_size", 128) or codes.shape[axis]
    places = np.arange(codes.shape[axis]) // block
    numbers = codes.astype(np.float32)
    offsets = _offsets(codes, constant_array(zeros), factors.shape, bits)
    if offsets is not None:
        numbers -= offsets.take(places, axis)
    numbers *= factors.astype(np.float32).take(places, axis)
    table = editor.constant(f"{node.name}.numbers", numbers)
    along = [ir.AttrInt64("axis", int_attribute(node, "gather_axis", 0))]
    result = editor.insert(node, "Gather", [table, indices], suffix=".rows", attributes=along)
    rows = result.producer()
    assert rows is not None, "it has just been inserted"
    rows.metadata_props[CODES_KEY] = "dequantised"
    editor.substitute(node, [result])
    return True


def _offsets(codes: Array, zeros: Array | None, shape: tuple[int, ...], bits: int) -> Floats | None:
    """Return the zero points of a table by blocks; packed bytes have the middle where none are given, others none."""
    if codes.dtype == np.uint8:
        return _zeros(zeros, shape, bits)
    return None if zeros is None else zeros.astype(np.float32)


RULES: dict[str, Callable[[ir.Node, Editor], bool]] = {
    "MatMulNBits": matmul_n_bits,
    "MatMulBnb4": matmul_bnb4,
    "GatherBlockQuantized": gather_block_quantized,
}

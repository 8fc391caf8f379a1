"""The linears of a program: their dimensions, read off the graph, and how they were mapped, read off the code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from flexc.emulator.ops import Ops
from flexc.emulator.walk import Leaf, build, visits
from flexc.frontend.edit import shape_of
from flexc.isa.program import Op, Program
from flexc.passes.pattern import NM
from flexc.passes.product_cost import WHY_KEY

PRODUCTS = ("MatMulInteger", "ConvInteger")
"""The operators that run on the array."""


@dataclass(frozen=True)
class Dims:
    """A linear lowered to a matrix product: `rows` vectors of `k` times a weight of `n` columns."""

    rows: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        """Products of the dense weight."""
        return self.rows * self.k * self.n

    def kept_macs(self, pattern: NM) -> int:
        """Products of the weights that a pattern keeps."""
        return self.rows * self.n * pattern.kept(self.k)


@dataclass
class TileUse:
    """What the code of one op does on the array: its grouping, and how often it multiplies and writes tiles."""

    runs_as: str = ""
    tile_k: int = 0
    columns: int = 0
    slices: int = 1
    vectors: int = 0
    multiplications: int = 0
    tile_writes: int = 0

    def share(self, linears: int) -> TileUse:
        """Return what one of so many linears has of it that lie side by side: all multiply at once."""
        return replace(self, columns=self.columns // linears, tile_writes=self.tile_writes // linears)


def dims_of(node: ir.Node) -> Dims:
    """Return the dimensions of an integer product; a convolution's weight is [n, k / kernel, kernel ...]."""
    weight, out = node.inputs[1], node.outputs[0]
    assert weight is not None
    weights, result = shape_of(weight), shape_of(out)
    if node.op_type == "MatMulInteger":
        return Dims(math.prod(result[:-1]), weights[-2], weights[-1])
    return Dims(result[0] * math.prod(result[2:]), math.prod(weights[1:]), weights[0])


def products(model: ir.Model) -> Mapping[str, ir.Node]:
    """Return the integer products of a quantised graph by node name."""
    return {str(node.name): node for node in model.graph if node.op_type in PRODUCTS}


def activation_products(model: ir.Model) -> list[dict[str, str]]:
    """Return for every product of two activations the node, the engine it runs on, and why there."""
    return [
        {
            "node": str(node.name),
            "engine": "array" if node.op_type in PRODUCTS else "vector",
            "reason": str(node.metadata_props[WHY_KEY]),
        }
        for node in model.graph
        if WHY_KEY in node.metadata_props
    ]


def products_of(op: Op, nodes: Mapping[str, ir.Node]) -> list[ir.Node]:
    """Return the integer products that an op carries out: none, one, or several side by side."""
    return [nodes[name] for name in op.nodes if name in nodes]


def mappings(program: Program) -> dict[int, TileUse]:
    """Return what the code of each op that multiplies does, by the op's index."""
    ops = Ops(program)
    around = ops.around()
    found: dict[int, TileUse] = {}
    for leaf, times in visits(build(program).root):
        first = around[leaf.pc]
        if first >= 0 and leaf.instr.mnemonic in ("mac", "ldw"):
            _note(found.setdefault(first, TileUse()), leaf, times)
    return {
        index: _share(use, len(ops.alike[first])) for first, use in found.items() for index in ops.alike[first].values()
    }


def _share(use: TileUse, ops: int) -> TileUse:
    """Return what one of the ops does that have the same code in iterations of a loop."""
    return replace(use, multiplications=use.multiplications // ops, tile_writes=use.tile_writes // ops)


def _note(mapping: TileUse, leaf: Leaf, times: int) -> None:
    groups = leaf.groups
    assert groups is not None
    if leaf.instr.mnemonic == "ldw":
        mapping.tile_writes += times * leaf.streams["cells"].rows
        return
    mapping.runs_as = str(NM(groups.n, groups.m))
    mapping.tile_k = groups.depth
    mapping.slices = leaf.instr.integer("slices")
    mapping.columns = leaf.streams["acc"].cols // mapping.slices
    mapping.vectors = max(mapping.vectors, leaf.streams["acc"].rows)
    mapping.multiplications += times

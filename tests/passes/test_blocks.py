"""Grouping linears into blocks: by module paths, by node names, by repeated shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from flexc.frontend.linears import Linear
from flexc.frontend.load import SCOPE_KEY
from flexc.passes.blocks import blocks_of


def linear(name: str, k: int, n: int, scope: str = "") -> Linear:
    weight = ir.Value(name=f"{name}.w", const_value=ir.tensor(np.zeros((1, 1), np.float32)))
    node = ir.Node("", "MatMul", [ir.Value(name="x"), weight], name=name)
    if scope:
        node.metadata_props[SCOPE_KEY] = scope
    return Linear(node, name, weight, 1, k, n, False)


def names(blocks: Sequence[Sequence[Linear]]) -> list[list[str]]:
    return [[each.name for each in block] for block in blocks]


def test_module_paths_say_it() -> None:
    linears = [
        linear(f"node_linear_{5 * block + place}", 8, 8 + place, f"model.layers.{block}.{part}")
        for block in range(2)
        for place, part in enumerate(("q", "experts.0", "experts.1"))
    ]
    grouped = names(blocks_of([linear("stem", 3, 8, "embed"), *linears, linear("head", 8, 50, "lm_head")]))
    assert grouped == [
        ["node_linear_0", "node_linear_1", "node_linear_2"],
        ["node_linear_5", "node_linear_6", "node_linear_7"],
    ]


def test_node_names_say_it_too() -> None:
    linears = [linear(f"/h.{block}/{part}/MatMul", 8, 8 + block) for block in range(11) for part in ("qkv", "mlp")]
    grouped = names(blocks_of([*linears, linear("/head/MatMul", 8, 9)]))
    assert len(grouped) == 11
    assert grouped[10] == ["/h.10/qkv/MatMul", "/h.10/mlp/MatMul"]  # by number, not by spelling


def test_repeated_shapes_are_the_last_resort() -> None:
    shapes = [(3, 8), *[(8, 8), (8, 16), (16, 8)] * 4, (8, 50)]
    linears = [linear(f"node_MatMul_{17 * place}", k, n) for place, (k, n) in enumerate(shapes)]
    grouped = blocks_of(linears)
    assert [len(block) for block in grouped] == [3, 3, 3, 3]
    assert [each.k for each in grouped[0]] == [8, 8, 16]


def test_a_model_that_repeats_nothing_is_one_block() -> None:
    linears = [linear("a", 3, 8), linear("b", 8, 5), linear("c", 5, 2)]
    assert names(blocks_of(linears)) == [["a", "b", "c"]]
    assert blocks_of([]) == []

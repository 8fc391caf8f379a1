"""Dynamic dims: what must be given, and what may not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
import onnx_ir as ir
import pytest

from flexc.frontend.load import load
from flexc.isa.errors import FlexcError

Build = Callable[..., onnx.ModelProto]
Same = Callable[..., ir.Model]

TEXT = "g (float[b,s,4] tokens, float[b,4] mask) => (float[b,s,4] y) { a = Constant<value_ints=[1]>() \
m = Unsqueeze(mask, a) y = Add(tokens, m) }"


def test_a_symbol_holds_for_every_input(build: Build, same: Same) -> None:
    model = same(build(TEXT), {"tokens": (2, 3, 4)})
    assert model.graph.inputs[1].shape == ir.Shape([2, 4])
    assert model.graph.outputs[0].shape == ir.Shape([2, 3, 4])


def test_another_size_works_as_well(build: Build, same: Same) -> None:
    assert same(build(TEXT), {"tokens": (5, 1, 4)}).graph.outputs[0].shape == ir.Shape([5, 1, 4])


def test_all_open_inputs_are_listed(build: Build) -> None:
    with pytest.raises(FlexcError) as caught:
        load(build(TEXT))
    assert "'tokens' [b, s, 4]" in caught.value.message
    assert "'mask' [b, 4]" in caught.value.message
    assert "--dim b=16 --dim s=16" in caught.value.remedy


def test_dims_without_names_are_asked_for_by_shape() -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(FlexcError) as caught:
        load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    assert "--shape x=16x4" in caught.value.remedy


@pytest.mark.parametrize(
    ("shapes", "message", "remedy"),
    [
        ({"token": (1, 2, 4)}, "'token', which is no input", "did you mean 'tokens'"),
        ({"zzz": (1,)}, "'zzz', which is no input", "inputs: tokens, mask"),
        ({"tokens": (1, 2)}, "has 2 dims, the model declares 3", "--shape tokens="),
        ({"tokens": (1, 2, 5)}, "dim 2 is 5, the model fixes it to 4", "give 4"),
        ({"tokens": (1, -1, 4)}, "dim below 0", "whole numbers"),
        ({"tokens": (1, 2, 4), "mask": (2, 4)}, "dim 0 of input 'tokens' makes 'b' 1", "agree"),
    ],
)
def test_wrong_shapes(build: Build, shapes: Mapping[str, Sequence[int]], message: str, remedy: str) -> None:
    with pytest.raises(FlexcError) as caught:
        load(build(TEXT), shapes)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("dims", [{"b": 2, "s": 3}, {"s": 3, "b": 2}])
def test_symbols_are_bound_by_name(build: Build, dims: Mapping[str, int]) -> None:
    assert load(build(TEXT), dims=dims).graph.outputs[0].shape == ir.Shape([2, 3, 4])


def test_a_symbol_and_a_shape_go_together(build: Build) -> None:
    model = load(build(TEXT), {"mask": (2, 4)}, {"s": 3})
    assert model.graph.outputs[0].shape == ir.Shape([2, 3, 4])


@pytest.mark.parametrize(
    ("dims", "message", "remedy"),
    [
        ({"seq": 3}, "--dim seq: no input has a dim of that name", "dynamic dims: b in tokens, mask; s in tokens"),
        ({"b": -1}, "--dim b=-1 is below 0", "whole number"),
        ({"b": 2}, "'tokens' [2, s, 4]", "--dim s=16"),
    ],
)
def test_wrong_dims(build: Build, dims: Mapping[str, int], message: str, remedy: str) -> None:
    with pytest.raises(FlexcError) as caught:
        load(build(TEXT), dims=dims)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def grown() -> onnx.ModelProto:
    """A cache of `past` rows, `seq` new ones, and a mask over both, as exporters write it."""

    def info(name: str, *dims: int | str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

    nodes = [
        onnx.helper.make_node("Concat", ["cache", "new"], ["joined"], axis=0),
        onnx.helper.make_node("Mul", ["joined", "mask"], ["y"]),
    ]
    inputs = [info("cache", "past", 2), info("new", "seq", 2), info("mask", "past + seq", 1)]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [info("y", "past + seq", 2)])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("shapes", "dims"),
    [
        ({}, {"past": 5, "seq": 3}),
        ({"mask": (8, 1)}, {"seq": 3}),
        ({"mask": (8, 1), "cache": (5, 2)}, {}),
        ({}, {"past + seq": 8, "past": 5}),
    ],
)
def test_derived_dims_follow_their_symbols(shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int]) -> None:
    model = load(grown(), shapes, dims)
    assert [value.shape for value in model.graph.inputs] == [ir.Shape([5, 2]), ir.Shape([3, 2]), ir.Shape([8, 1])]


def test_a_derived_dim_that_contradicts_its_symbols_is_refused() -> None:
    with pytest.raises(FlexcError) as caught:
        load(grown(), {"mask": (9, 1)}, {"past": 5, "seq": 3})
    assert "dim 0 of input 'mask' makes 'past + seq' 9, but --dim past makes 'past' 5" in caught.value.message
    assert "so 'past + seq' is 8" in caught.value.message


def test_an_open_derived_dim_is_asked_for_by_its_symbols() -> None:
    with pytest.raises(FlexcError) as caught:
        load(grown(), dims={"seq": 3})
    assert "'cache' [past, 2]" in caught.value.message
    assert caught.value.remedy == "add, with your sizes, --dim past=16"


def test_names_that_lie_are_refused_where_the_sizes_meet(build: Build) -> None:
    """One symbol for two sizes: nothing in the names tells, the operators do."""
    text = "g (float[a,4] x, float[c,4] u) => (float[a,4] y) { y = Mul(x, u) }"
    with pytest.raises(FlexcError, match=r"node '.*' \(Mul\)"):
        load(build(text), dims={"a": 2, "c": 3})

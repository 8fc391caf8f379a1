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
    assert "--shape tokens=16x16x4 --shape mask=16x4" in caught.value.remedy


@pytest.mark.parametrize(
    ("shapes", "message", "remedy"),
    [
        ({"token": (1, 2, 4)}, "'token', which is no input", "did you mean 'tokens'"),
        ({"zzz": (1,)}, "'zzz', which is no input", "inputs: tokens, mask"),
        ({"tokens": (1, 2)}, "has 2 dims, the model declares 3", "--shape tokens="),
        ({"tokens": (1, 2, 5)}, "dim 2 is 5, the model fixes it to 4", "give 4"),
        ({"tokens": (1, 0, 4)}, "dim below 1", "positive"),
        ({"tokens": (1, 2, 4), "mask": (2, 4)}, "input 'tokens' makes it 1", "same number"),
    ],
)
def test_wrong_shapes(build: Build, shapes: Mapping[str, Sequence[int]], message: str, remedy: str) -> None:
    with pytest.raises(FlexcError) as caught:
        load(build(TEXT), shapes)
    assert message in caught.value.message
    assert remedy in caught.value.remedy

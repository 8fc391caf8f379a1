"""Files that ask for too much are refused quickly, in words."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import flexc
from flexc.frontend.limits import MAX_NODES, check_node_count
from flexc.frontend.load import load
from flexc.isa.errors import FlexcError
from tests.frontend.conftest import Same

Ops = Callable[[ir.Model], list[str]]

HEAD = '<ir_version: 8, opset_import: ["": 20, "loc": 1]>'
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])


def model_of(nodes: list[onnx.NodeProto], functions: list[onnx.FunctionProto] | None = None) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("loc", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [X], [Y]), functions=functions, opset_imports=imports)


def call(name: str, *ends: str) -> onnx.NodeProto:
    return helper.make_node(name, [ends[0]], [ends[1]], domain="loc" if name.startswith("F") else "")


def doubling(levels: int) -> list[onnx.FunctionProto]:
    """Functions of which each calls the one before twice: 2^levels nodes in all."""
    imports = [helper.make_opsetid("loc", 1), helper.make_opsetid("", 20)]
    bodies = [[call("Relu", "a", "b")]]
    bodies += [[call(f"F{n}", "a", "c"), call(f"F{n}", "c", "b")] for n in range(levels)]
    return [helper.make_function("loc", f"F{n}", ["a"], ["b"], body, imports) for n, body in enumerate(bodies)]


def test_nodes_in_the_file_are_counted_first() -> None:
    nodes = [call("Relu", "x" if place == 0 else f"v{place}", f"v{place + 1}") for place in range(MAX_NODES)]
    with pytest.raises(FlexcError, match="more than 100000 nodes"):
        load(model_of([*nodes, call("Relu", f"v{MAX_NODES}", "y")]))


def test_functions_count_expanded() -> None:
    assert len(load(model_of([call("F3", "x", "y")], doubling(3))).graph) == 8
    with pytest.raises(FlexcError, match="functions expanded"):
        load(model_of([call("F40", "x", "y")], doubling(40)))


def test_functions_expand_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.from_proto(model_of([call("F3", "x", "y")], doubling(3)))
    monkeypatch.setattr("flexc.frontend.limits.MAX_NODES", 8)
    check_node_count(model, "m")
    monkeypatch.setattr("flexc.frontend.limits.MAX_NODES", 7)
    with pytest.raises(FlexcError, match="m: has more than 7 nodes"):
        check_node_count(model, "m")


def test_recursion_is_refused() -> None:
    body = helper.make_function("loc", "F", ["a"], ["b"], [call("F", "a", "b")], [helper.make_opsetid("loc", 1)])
    with pytest.raises(FlexcError, match="function 'F' calls itself"):
        load(model_of([call("F", "x", "y")], [body]))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("100000,100000,100000", "1000000000000000 elements"),
        ("0,8", "has no elements"),
    ],
)
def test_inputs_of_a_senseless_size(shape: str, words: str) -> None:
    proto = onnx.parser.parse_model(f"{HEAD} g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}")
    with pytest.raises(FlexcError, match=words):
        load(proto)


@pytest.mark.parametrize(
    "body",
    [
        "c = ConstantOfShape(s) r = ReduceSum<keepdims=0>(c) y = Add(x, r)",
        "c = Expand(x, s) r = ReduceSum<keepdims=0>(c) y = Add(x, r)",
        (
            "n = Constant<value_int=1000000000000000>() z = Constant<value_int=0>() o = Constant<value_int=1>()"
            " c = Range(z, n, o) f = Cast<to=1>(c) r = ReduceSum<keepdims=0>(f) y = Add(x, r)"
        ),
    ],
)
def test_values_of_a_senseless_size_take_no_memory(body: str) -> None:
    proto = onnx.parser.parse_model(
        f"{HEAD} g (float[1,8] x) => (float[1,8] y) <int64[4] s = {{100000000, 1000000, 1, 8}}> {{ {body} }}"
    )
    tracemalloc.start()
    with pytest.raises(FlexcError, match="elements"):
        load(proto)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_what_has_no_elements_in_between_is_a_constant(same: Same, ops: Ops) -> None:
    text = f"{HEAD} g (float[2,8] x) => (float[2,8] y) <int64[1] a = {{3}}, int64[1] b = {{1}}, float[1] f = {{1.5}}>"
    body = "{ e = Slice(x, a, a, b) m = Mul(e, f) s = ReduceSum<keepdims = 0>(m) n = Neg(x) y = Add(n, s) }"
    assert ops(same(onnx.parser.parse_model(text + body))) == ["Neg"]


def test_outputs_without_elements_are_refused() -> None:
    text = f"{HEAD} g (float[2,8] x) => (float[0,8] y) <int64[1] a = {{0}}> {{ y = Slice(x, a, a, a) }}"
    with pytest.raises(FlexcError, match="'y': has no elements"):
        load(onnx.parser.parse_model(text))


def test_a_model_larger_than_the_machine() -> None:
    proto = onnx.parser.parse_model(f"{HEAD} g (float[65536,65536] x) => (float[65536,65536] y) {{ y = Relu(x) }}")
    with pytest.raises(FlexcError, match="bytes of DRAM, target 'edge' has 17179869184"):
        flexc.compile(proto)

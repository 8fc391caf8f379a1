"""What loading removes, what it computes, and what it must leave alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flexc.frontend import fold
from flexc.frontend.load import SCOPE_KEY, load
from flexc.isa.errors import FlexcError

Build = Callable[..., onnx.ModelProto]
Same = Callable[..., ir.Model]
Ops = Callable[[ir.Model], list[str]]


def test_constants_become_initializers(build: Build, same: Same, ops: Ops) -> None:
    model = same(
        build("g (float[2,3] x) => (float[2,3] y) { c = Constant<value_float=2.0>() d = Neg(c) y = Mul(x, d) }")
    )
    assert ops(model) == ["Mul"]
    assert list(model.graph.initializers) == ["d"]


def test_identity_and_inference_dropout_go(build: Build, same: Same, ops: Ops) -> None:
    model = same(
        build("g (float[2,3] x) => (float[2,3] y) { a = Identity(x) b = Relu(a) c = Dropout(b) y = Identity(c) }")
    )
    assert ops(model) == ["Relu"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_identity_from_input_to_output_stays(build: Build, same: Same, ops: Ops) -> None:
    assert ops(same(build("g (float[2] x) => (float[2] y, float[2] z) { y = Identity(x) z = Relu(x) }"))) == [
        "Identity",
        "Relu",
    ]


def test_one_value_for_two_outputs_keeps_both_names(build: Build, same: Same) -> None:
    model = same(build("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Identity(y) }"))
    assert [value.name for value in model.graph.outputs] == ["y", "z"]


def test_constant_outputs_keep_their_names(build: Build, same: Same) -> None:
    text = "g (float[2,3] x) => (int64[2] y, int64[2] z, float[2,3] r) { y = Shape(x) z = Shape(x) r = Relu(x) }"
    model = same(build(text))
    assert [value.name for value in model.graph.outputs] == ["y", "z", "r"]


def test_shape_arithmetic_folds_once_bound(build: Build, same: Same, ops: Ops) -> None:
    text = """g (float[b,s,6] x) => (float[n,m,k,2] y) {
        s = Shape(x)  i = Constant<value_int=1>()  d = Gather(s, i)
        ax = Constant<value_ints=[0]>()  u = Unsqueeze(d, ax)
        head = Constant<value_ints=[0]>()  tail = Constant<value_ints=[3,2]>()
        shape = Concat<axis=0>(head, u, tail)  y = Reshape(x, shape)
    }"""
    model = same(build(text), {"x": (2, 5, 6)})
    assert ops(model) == ["Reshape"]
    assert model.graph.outputs[0].shape == ir.Shape([2, 5, 3, 2])


@pytest.mark.parametrize(
    "line",
    [
        "y = Transpose<perm=[0,1,2]>(x)",
        "s = Constant<value_ints=[2,3,1]>() y = Reshape(x, s)",
        "s = Constant<value_ints=[1]>() y = Expand(x, s)",
        "y = Cast<to=1>(x)",
        "a = Constant<value_ints=[0]>() b = Constant<value_ints=[9]>() y = Slice(x, a, b)",
        "p = Constant<value_ints=[0,0,0,0,0,0]>() y = Pad(x, p)",
        "y = Concat<axis=0>(x)",
    ],
)
def test_nodes_that_change_nothing_go(build: Build, same: Same, ops: Ops, line: str) -> None:
    text = f"g (float[2,3,1] i) => (float[2,3,1] o) {{ x = Relu(i) {line} o = Neg(y) }}"
    assert ops(same(build(text))) == ["Relu", "Neg"]


@pytest.mark.parametrize(
    ("line", "op"),
    [
        ("y = Transpose<perm=[1,0]>(x)", "Transpose"),
        (
            "a = Constant<value_ints=[-1]>() b = Constant<value_ints=[-9]>() y = Slice(x, a, b, e, a)",
            "Slice",
        ),
        ("p = Constant<value_ints=[1,0,-1,0]>() y = Pad(x, p)", "Pad"),
    ],
)
def test_same_shape_is_not_same_values(build: Build, same: Same, ops: Ops, line: str, op: str) -> None:
    text = f"g (float[3,3] i) => (float[3,3] o) {{ e = Constant<value_ints=[0]>() x = Relu(i) {line} o = Neg(y) }}"
    assert op in ops(same(build(text)))


def test_a_branch_with_constant_condition_is_inlined(build: Build, same: Same, ops: Ops) -> None:
    text = """g (float[2,3] x) => (float[2,3] y) {
        c = Constant<value = bool {1}>()
        z = If (c) <then_branch = t () => (float[2,3] a) { one = Constant<value_float=1.0>() a = Add(x, one) },
                    else_branch = e () => (float[2,3] b) { b = Neg(x) }>
        y = Relu(z)
    }"""
    assert ops(same(build(text))) == ["Add", "Relu"]


def test_a_scan_too_long_to_unroll_keeps_its_body_and_gets_its_shapes(build: Build, same: Same, ops: Ops) -> None:
    text = """g (float[4] h, float[s,4] x) => (float[4] last, float[s,4] all) {
        last, all = Scan <num_scan_inputs=1, body = b (float[4] p, float[4] q) => (float[4] n, float[4] o) {
            t = Tanh(p)  n = Add(t, q)  o = Identity(n)
        }> (h, x)
    }"""
    assert ops(same(build(text), {"x": (40_000, 4)})) == ["Scan"]


def test_operators_that_onnx_has_no_shape_rule_for(build: Build, same: Same, ops: Ops) -> None:
    text = "g (float[2,4,3,3] x) => (float[2,4,3,3] y) { a = MeanVarianceNormalization(x) y = Relu(a) }"
    assert "MeanVarianceNormalization" not in ops(same(build(text)))


def test_equal_small_constants_are_one(build: Build, same: Same) -> None:
    weights = {name: np.ones(3, np.float32) for name in ("a", "b")}
    model = same(build("g (float[3] x) => (float[3] y) { c = Identity(b) p = Mul(x, a) y = Mul(p, c) }", **weights))
    assert list(model.graph.initializers) == ["a"]


def test_a_copy_of_a_large_weight_is_that_weight(build: Build, same: Same) -> None:
    text = "g (float[40,40] x) => (float[40,40] y) { c = Identity(w) p = MatMul(x, w) y = MatMul(p, c) }"
    assert list(same(build(text, w=np.ones((40, 40), np.float32))).graph.initializers) == ["w"]


def test_a_constant_that_is_the_output(build: Build, same: Same) -> None:
    model = same(build("g (float[2] x) => (float[2] y) { y = Constant<value_floats=[1.,2.]>() }"))
    assert [node.op_type for node in model.graph] == ["Identity"]


def test_functions_are_inlined(same: Same, ops: Ops) -> None:
    text = """<ir_version: 9, opset_import: ["" : 20, "local" : 1]>
    g (float[2,3] x) => (float[2,3] y) { y = local.twice(x) }
    <domain: "local", opset_import: ["" : 20]> twice (a) => (b) { b = Add(a, a) }"""
    assert ops(same(onnx.parser.parse_model(text))) == ["Add"]


def test_dead_nodes_and_weights_go(build: Build, same: Same) -> None:
    model = same(build("g (float[2] x) => (float[2] y) { d = Add(x, w) y = Relu(x) }", w=np.ones(2, np.float32)))
    assert len(model.graph) == 1
    assert not model.graph.initializers


def test_nodes_get_unique_repeatable_names(build: Build) -> None:
    proto = build("g (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) y = Relu(b) }")
    names = [node.name for node in load(proto).graph]
    assert len(set(names)) == 3
    assert names == [node.name for node in load(proto).graph]


def test_nodes_out_of_order_are_sorted(build: Build, ops: Ops) -> None:
    proto = build("g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }")
    proto.graph.node.reverse()
    assert ops(load(proto)) == ["Relu", "Neg"]


def test_large_results_are_not_folded(build: Build, same: Same, ops: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "SIZE_LIMIT", 1000)
    text = """g (float[40,40] x) => (float[40,40] y) {
        s = Constant<value_ints=[40,40]>()  big = Expand(w, s)  y = Mul(x, big)
    }"""
    assert ops(same(build(text, w=np.ones((40, 1), np.float32)))) == ["Expand", "Mul"]


def test_random_numbers_are_refused(build: Build) -> None:
    text = "g (float[2] x) => (float[2] y) { r = RandomNormal<shape=[2]>() y = Add(x, r) }"
    with pytest.raises(FlexcError, match="random numbers"):
        load(build(text))


def test_old_opsets_are_raised(build: Build, same: Same, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((24, 32)).astype(np.float32)
    text = "g (float[2,24] x) => (float[2,1,32] y) { m = MatMul(x, w) d = Dropout(m) y = Unsqueeze<axes=[1]>(d) }"
    model = same(build(text, opset=9, w=weight))
    assert model.opset_imports[""] == 13
    assert [node.op_type for node in model.graph] == ["MatMul", "Unsqueeze"]


def test_opsets_from_the_future_are_refused(build: Build) -> None:
    proto = build("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.opset_import[0].version = 99
    with pytest.raises(FlexcError, match="operator set 99 is newer"):
        load(proto)


def test_the_module_path_survives_and_source_notes_do_not(build: Build) -> None:
    proto = build("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    notes: dict[str, Any] = {"pkg.torch.onnx.name_scopes": "['', 'layers.0', 'layers.0.act', 'relu']", "namespace": "x"}
    for key, text in notes.items():
        proto.graph.node[0].metadata_props.add(key=key, value=text)
    (node,) = load(proto).graph
    assert dict(node.metadata_props) == {SCOPE_KEY: "layers.0.act"}


def test_the_source_model_is_not_changed(build: Build) -> None:
    source = ir.serde.deserialize_model(build("g (float[s] x) => (float[s] y) { a = Identity(x) y = Relu(a) }"))
    load(source, {"x": (4,)})
    assert len(source.graph) == 2
    assert source.graph.inputs[0].shape == ir.Shape(["s"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (float[2] x) => (float[2] y) { y = Rellu(x) }", "not a valid ONNX node.*Rellu"),
        ("g (float[2] x) => (float[2] y) { y = Relu(x, x) }", "not a valid ONNX node"),
        ("g (float[2,3] x) => (float[2,3] y) { y = MatMul(x, x) }", "not a valid ONNX node.*Incompatible"),
        ("g (float[2] x) => (float[2] y) { y = Add(x, nowhere) }", "reads 'nowhere', which no"),
        ("g (float[2] x) => (int64[1,k] y) { y = NonZero(x) }", "depends on run-time data"),
        ("g (float[2] x) => (int64[1,2] y) { y = NonZero(x) }", "depends on run-time data"),
        ("g (float[4] x, bool[4] c) => (float[k] y) { y = Compress(x, c) }", "use the mask itself"),
        ("g (int64[1] n) => (float[k] y) { y = ConstantOfShape(n) }", "make that a constant, or bind the dims"),
        ("g (uint32[4] x) => (uint32[4] y) { y = Identity(x) }", "input 'x': has element type UINT32"),
        ("g (float[2,4] x) => (seq(float[1,4]) s) { s = SplitToSequence(x) }", "'s' is not a tensor"),
        ("g (float[2] x) => (float[2] y) { y = Relu(a) a = Neg(y) }", "not a valid ONNX model"),
    ],
)
def test_bad_graphs_are_refused_in_words(build: Build, text: str, message: str) -> None:
    with pytest.raises(FlexcError) as raised:
        load(build(text))
    assert re.search(message, str(raised.value))


def test_a_constant_has_the_shape_of_its_numbers(build: Build, same: Same, ops: Ops) -> None:
    proto = build("g (float[2,3,4] x) => (float[] y) <int64[2,1] i = {1, 0}> { y = GatherND(x, i) }")
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["some", 1]))
    assert ops(same(proto)) == ["Reshape", "Slice", "Reshape"]


def test_empty_pieces_are_not_joined(build: Build, same: Same, ops: Ops) -> None:
    text = "g (float[2,3] x) => (float[2,3] y) <int64[1] a = {1}, int64[1] from = {3}, int64[1] to = {9}> "
    model = same(build(text + "{ cut = Slice(x, from, to, a) z = Neg(x) y = Concat<axis=1>(z, cut) }"))
    assert ops(model) == ["Neg"]


def test_a_layout_for_one_processor_is_refused_with_what_to_do(build: Build) -> None:
    proto = build("g (float[1,8,4,4] x) => (float[1,8,4,4] y) { z = Relu(x)  y = Relu(z) }")
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft.nchwc", 1))
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "com.microsoft.nchwc", "ReorderInput"
    with pytest.raises(FlexcError, match=r"nchwc::ReorderInput(.|\n)*ORT_ENABLE_EXTENDED"):
        load(proto)

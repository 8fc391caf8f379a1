"""Operators that ONNX defines by others: their definition takes their place and means the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser
from onnx.reference import ReferenceEvaluator

from flexc.backend.lower import lower
from flexc.emulator.run import Executor
from flexc.frontend.load import load
from flexc.frontend.operators import native
from flexc.isa.machine import load_machine
from flexc.passes.session import Session

#: Attention in its forms: text of the graph, and what each needs of the operator set.
ATTENTION = {
    "plain": "(float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,6] v) => (float[] y) { y = Attention(q, k, v) }",
    "causal": "(float[1,2,5,8] q, float[1,2,5,8] k, float[1,2,5,6] v) => (float[] y) "
    "{ y = Attention <is_causal = 1> (q, k, v) }",
    "heads in rows, shared": "(float[2,5,16] q, float[2,7,8] k, float[2,7,8] v) => (float[] y) "
    "{ y = Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.3> (q, k, v) }",
    "mask of numbers": "(float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,8] v, float[5,7] m) => (float[] y) "
    "{ y = Attention <softcap = 2.0> (q, k, v, m) }",
    "mask of truth values": "(float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,8] v, bool[1,1,5,7] m) => (float[] y) "
    "{ y = Attention(q, k, v, m) }",
    "with a past": "(float[1,2,3,8] q, float[1,2,3,8] k, float[1,2,3,8] v, float[1,2,4,8] pk, float[1,2,4,8] pv) => "
    "(float[] y, float[] nk, float[] nv) { y, nk, nv = Attention <is_causal = 1> (q, k, v, , pk, pv) }",
    "scores": "(float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,8] v) => (float[] y, float[] s) "
    "{ y, nk, nv, s = Attention <qk_matmul_output_mode = 3> (q, k, v) }",
}
ROTARY = {
    "by halves": "(float[1,2,5,8] x, float[1,5,4] c, float[1,5,4] s) => (float[] y) { y = RotaryEmbedding(x, c, s) }",
    "interleaved": "(float[1,2,5,8] x, float[1,5,4] c, float[1,5,4] s) => (float[] y) "
    "{ y = RotaryEmbedding <interleaved = 1> (x, c, s) }",
    "partly": "(float[1,5,16] x, float[9,2] c, float[9,2] s, int64[1,5] p) => (float[] y) "
    "{ y = RotaryEmbedding <num_heads = 2, rotary_embedding_dim = 4> (x, c, s, p) }",
}
OTHERS = {
    "mish": "(float[3,7] x) => (float[] y) { y = Mish(x) }",
    "selu": "(float[3,7] x) => (float[] y) { y = Selu <alpha = 1.5> (x) }",
    "log softmax": "(float[3,4,7] x) => (float[] y) { y = LogSoftmax <axis = 1> (x) }",
    "norm": "(float[3,7] x) => (float[] y) { y = ReduceL2(x) }",
    "mean and variance": "(float[2,3,4,4] x) => (float[] y) { y = MeanVarianceNormalization(x) }",
}


def parsed(text: str, opset: int = 23) -> onnx.ModelProto:
    """Read a graph written as text."""
    graph = parser.parse_graph(f"small {text}")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def feeds_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Return numbers for all inputs; whole ones are below 5."""
    rng, feeds = np.random.default_rng(0), {}
    for each in model.graph.input:
        kind = each.type.tensor_type.elem_type
        numbers = rng.standard_normal([dim.dim_value for dim in each.type.tensor_type.shape.dim])
        whole = {TensorProto.INT64: numbers.argsort(axis=-1), TensorProto.BOOL: numbers > -1}
        feeds[each.name] = whole.get(kind, numbers).astype(helper.tensor_dtype_to_np_dtype(kind))
    return feeds


def operators(model: ir.Model) -> Counter[str]:
    """Return how often each operator is there."""
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("text", [*ATTENTION.values(), *ROTARY.values(), *OTHERS.values()])
def test_definitions_mean_the_same_and_run_on_the_machine(text: str) -> None:
    model = parsed(text)
    feeds, loaded = feeds_of(model), load(model)
    kept = operators(loaded) & operators(ir.from_proto(model))
    assert not kept
    assert not [reason for node in loaded.graph for operator, reason in [native(node)] if operator is None]
    expected = ReferenceEvaluator(model).run(None, feeds)
    again = Session(loaded).run(feeds)
    program = lower(loaded, load_machine("edge"))
    run = Executor(program).run({name: array[np.newaxis] for name, array in feeds.items()})
    assert "host" not in [op.engine for op in program.debug.ops]
    for output, value in zip(model.graph.output, expected, strict=True):
        np.testing.assert_allclose(again[output.name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(run[output.name][0], value, rtol=1e-4, atol=1e-5)


def test_constant_masks_leave_nothing_behind() -> None:
    found = operators(load(parsed(ATTENTION["causal"])))
    assert found["Where"] == 0
    assert found["ReduceMax"] == 0
    assert found["Add"] == 1
    assert operators(load(parsed(ATTENTION["plain"])))["Add"] == 0


def test_operators_of_the_machine_keep_their_form() -> None:
    found = operators(load(parsed("(float[3,7] x) => (float[] y) { a = Gelu(x) b = HardSwish(a) y = Softmax(b) }")))
    assert found == {"Gelu": 1, "HardSwish": 1, "Softmax": 1}

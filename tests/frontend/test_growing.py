"""Growing caches of fixed capacity: exact at every length, for every way exporters write them; or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from flexc.frontend.edit import shape_of
from flexc.frontend.load import load
from flexc.frontend.states import STATE_KEY
from flexc.isa.errors import FlexcError

CAPACITY = 12
AXES = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] last = {-1}, "
AXES += "int64[1] many = {99}"
Arrays = dict[str, np.ndarray]
Feed = Callable[[int, int], Arrays]


def session(model: onnx.ModelProto | ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.serde.serialize_model(model) if isinstance(model, ir.Model) else model
    return ort.InferenceSession(proto.SerializeToString(), options)


def run(running: ort.InferenceSession, feeds: Arrays) -> Arrays:
    return dict(zip([each.name for each in running.get_outputs()], running.run(None, feeds), strict=True))


def compare(
    proto: onnx.ModelProto,
    symbol: str,
    long: dict[str, int],
    feed: Feed,
    steps: tuple[int, ...],
    apart: tuple[float, float] = (0, 1e-6),
) -> None:
    """Run a model as exported, its past growing, beside its form of fixed capacity; all outputs must agree.

    ``symbol`` is that of the step; ``long`` the axes of inputs and outputs that grow;
    ``feed(n, step)`` are the inputs besides the past; ``apart`` is how far caches, and other outputs, may be apart.
    """
    original, valid = session(proto), 0
    pasts = [each for each in original.get_inputs() if each.name.startswith("past")]
    grown = {each.name: np.zeros([0 if isinstance(d, str) else d for d in each.shape], np.float32) for each in pasts}
    held: Arrays = {}
    for step in steps:
        model = load(proto, dims={symbol: step}, cache=CAPACITY)
        becomes = {
            str(v.name): v.metadata_props[STATE_KEY] for v in model.graph.inputs if STATE_KEY in v.metadata_props
        }
        assert set(becomes) == set(grown)
        shapes = {str(value.name): shape_of(value) for value in model.graph.inputs}
        given = feed(valid, step)
        expected = run(original, given | grown)
        padded = {name: _padded(array, shapes[name]) for name, array in given.items()}
        stale = {name: held.get(name, np.full(shapes[name], 7.0, np.float32)) for name in grown}  # what lies there
        result = run(session(model), padded | stale | {"past_length": np.array([valid])})
        valid += step
        for name, array in expected.items():
            got = np.take(result[name], np.arange(valid), long[name]) if name in long else result[name]
            most = apart[0 if name in long else 1]  # sums over zeros that are added may be cut into other parts
            np.testing.assert_allclose(got, array, rtol=most, atol=most, err_msg=f"{name} after {valid}")
        held = {name: result[output] for name, output in becomes.items()}
        grown = {name: expected[output] for name, output in becomes.items()}


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(array, [(0, size - own) for own, size in zip(array.shape, shape, strict=True)])


def decoder_feed(proto: onnx.ModelProto) -> Feed:
    names = [each.name for each in proto.graph.input]
    rng = np.random.default_rng(3)

    def feed(valid: int, step: int) -> Arrays:
        mask = np.ones((1, valid + step), np.int64)
        mask[:, :1] = 0  # a position that the user masks out
        every = {
            "input_ids": rng.integers(0, 48, (1, step)),
            "attention_mask": mask,
            "position_ids": np.arange(valid, valid + step)[None],
        }
        return {name: array for name, array in every.items() if name in names}

    return feed


@pytest.mark.parametrize("file", ["cache_dynamo.onnx", "cache_legacy.onnx"])
def test_exported_decoders_are_exact_at_every_length(root: Path, file: str) -> None:
    proto = onnx.load(root / "tests/models" / file)
    symbol = (
        next(each for each in proto.graph.input if each.name == "input_ids").type.tensor_type.shape.dim[1].dim_param
    )
    long = {"present.0.key": 2, "present.0.value": 2}
    compare(proto, symbol, long, decoder_feed(proto), (4, 1, 1, 3, 1))


def parsed(body: str) -> onnx.ModelProto:
    """Return a model with a cache [1, past, 4], rows `x` [1, step, 4] that it grows by, and what `body` makes of it."""
    text = (
        '<ir_version: 8, opset_import: ["" : 18]>'
        "g (float[1,step,4] x, float[1,past,4] past_k) => (float[] y, float[1,total,4] present_k)"
        f"<{AXES}>{{ present_k = Concat<axis = 1>(past_k, x) {body} }}"
    )
    return onnx.parser.parse_model(text)


X = np.random.default_rng(1).standard_normal((1, 40, 4)).astype(np.float32)


def rows(valid: int, step: int) -> Arrays:
    return {"x": X[:, valid : valid + step]}


BODIES = {
    "attention without any mask": "t = Transpose<perm = [0,2,1]>(present_k) s = MatMul(x, t) p = Softmax(s) "
    "y = MatMul(p, present_k)",
    "products that are no shares": "t = Transpose<perm = [0,2,1]>(present_k) s = MatMul(x, t) y = MatMul(s, present_k)",
    "a sum over positions": "y = ReduceSum(present_k, one)",
    "the greatest over positions": "y = ReduceMax(present_k, one)",
    "the least over positions": "y = ReduceMin(present_k, one)",
    "the place of the greatest": "a = ArgMax<axis = 1>(present_k) y = Cast<to = 1>(a)",
    "sums so far, of the last step": "c = CumSum(present_k, one) s = Shape(past_k) p = Slice(s, one, two) "
    "y = Slice(c, p, many, one)",
    "the last position": "y = Gather<axis = 1>(present_k, last)",
    "the last position by a slice": "y = Slice(present_k, last, many, one)",
    "positions from the length": "s = Shape(past_k) p = Slice(s, one, two) f = Cast<to = 1>(p) y = Add(x, f)",
    "the square of the length": "s = Shape(past_k) p = Slice(s, one, two) f = Cast<to = 1>(p) q = Mul(f, f) "
    "r = Reshape(q, one) y = Add(x, r)",
    "a scale by the length": "s = Shape(present_k) p = Slice(s, one, two) f = Cast<to = 1>(p) r = Sqrt(f) "
    "y = Div(x, r)",
    "one length worked out in two ways": "s = Shape(past_k) p = Slice(s, one, two) w = Shape(x) q = Slice(w, one, two) "
    "t = Add(p, q) u = ConstantOfShape(t) v = Shape(present_k) a = Slice(v, one, two) b = ConstantOfShape(a) "
    "c = Add(u, b) e = Unsqueeze(c, one) f = Add(present_k, e) y = ReduceSum(f, one)",
    "a contraction by letters": 'y = Einsum<equation = "bpd,bpe->bde">(present_k, present_k)',
}  # fmt: skip


@pytest.mark.parametrize("form", BODIES)
def test_what_adds_up_or_picks_along_a_cache(form: str) -> None:
    proto = parsed(BODIES[form])
    compare(proto, "step", {"present_k": 1}, rows, (3, 2, 1))


def test_an_operand_of_the_length_of_the_past_is_joined_at_its_end() -> None:
    body = "o = Mul(x, x) j = Concat<axis = 1>(past_k, o) t = Neg(j) y = ReduceSum(t, one)"
    compare(parsed(body), "step", {"present_k": 1}, rows, (3, 2, 1))


def test_a_name_within_another_name_is_not_the_same() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>'
        "g (float[1,step,4] x, float[1,s8,4] past_k, float[1,s81,4] past_encoder)"
        "=> (float[1,4] y, float[1,total,4] present_k)"
        "{ present_k = Concat<axis = 1>(past_k, x) n = Neg(past_encoder) y = ReduceSum<keepdims = 0>(n, one) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    model = load(proto, dims={"step": 2, "s81": 5}, cache=CAPACITY)
    assert [shape_of(value)[1:] for value in model.graph.inputs[:3]] == [(2, 4), (CAPACITY, 4), (5, 4)]


def test_a_cache_that_is_cast_to_its_own_type_is_put_out() -> None:
    proto = parsed("y = ReduceSum(present_k, one)")
    proto.graph.node[0].output[0] = "joined"
    proto.graph.node.insert(1, onnx.helper.make_node("Cast", ["joined"], ["present_k"], to=onnx.TensorProto.FLOAT))
    compare(proto, "step", {"present_k": 1}, rows, (3, 2, 1))


def test_a_mask_that_is_added_to_the_scores_of_several_positions() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>'
        "g (float[1,step,4] x, float[1,past,4] past_k, float[1,all] mask) => (float[] y, float[1,total,4] present_k)"
        f"<{AXES}>{{ present_k = Concat<axis = 1>(past_k, x) t = Transpose<perm = [0,2,1]>(present_k)"
        " s = MatMul(x, t) a = Add(s, mask) w = Shape(s) r = Reshape(a, w) p = Softmax(r) y = MatMul(p, present_k) }"
    )

    def feed(valid: int, step: int) -> Arrays:
        return rows(valid, step) | {"mask": X[0, : valid + step, :1].T.copy()}

    compare(proto, "step", {"present_k": 1}, feed, (3, 2, 1))


REFUSED = {
    "the past alone": ("m = Neg(past_k) y = ReduceSum(m, one)", "reads the past apart from what a step adds"),
    "a mean over positions": ("y = ReduceMean(present_k, one)", "takes a mean over the positions"),
    "positions turned into another dim": (
        "s = Shape(present_k) p = Slice(s, one, two) t = Concat<axis = 0>(last, p) y = Reshape(present_k, t)",
        "mixes the positions of a cache with another dim",
    ),
    "from the end": ("y = CumSum<reverse = 1>(present_k, one)", "adds up from the end"),
    "merged with another dim": (
        "m = Reshape(present_k, last) y = ReduceSum(m, zero)",
        "grows by more than one element",
    ),
    "a norm over positions": (
        "t = Transpose<perm = [0,2,1]>(present_k) y = LayerNormalization<axis = -2>(t, x)",
        "works along the positions",
    ),
    "something else": ("y = Hardmax<axis = 1>(present_k)", "has no rule"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(form: str) -> None:
    body, message = REFUSED[form]
    with pytest.raises(FlexcError, match=message) as caught:
        load(parsed(body), dims={"step": 2}, cache=CAPACITY)
    assert "leave --cache out" in str(caught.value)


def test_a_model_without_a_cache_and_a_capacity_too_small_are_refused() -> None:
    plain = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    )
    with pytest.raises(FlexcError, match="has no cache that grows"):
        load(plain, dims={"n": 2}, cache=CAPACITY)
    with pytest.raises(FlexcError, match=r"--cache 3: a step takes 3 positions"):
        load(parsed("y = Neg(x)"), dims={"step": 3}, cache=3)

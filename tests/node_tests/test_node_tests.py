"""A seeded part of ONNX's node tests: right numbers, clean refusals, and no worse than the page says."""

from __future__ import annotations

import random
import warnings

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.test_case import TestCase

from flexc.backend_adapter import FlexcBackend
from flexc.isa.errors import FlexcError
from tests.node_tests.suite import OUTCOMES, cases, run_case
from tests.node_tests.table import KNOWN, TABLE, read

COUNT = 300


@pytest.fixture(scope="module")
def chosen() -> list[TestCase]:
    """A part of all cases, the same each time."""
    every = cases()
    return sorted(random.Random(20261125).sample(every, COUNT), key=lambda case: case.name)


def test_no_case_is_worse_than_the_page_says(chosen: list[TestCase]) -> None:
    page = read(TABLE.read_text(encoding="utf-8"))
    assert len(page) > 1000
    worse = []
    for case in chosen:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = run_case(case)
        said = page.get(outcome.name)
        if said is not None and OUTCOMES.index(outcome.status) > OUTCOMES.index(said):
            worse.append(f"{outcome.name}: {outcome.status}, the page says {said}: {outcome.reason}")
    assert not worse, "\n".join(worse)


def test_the_page_has_no_bug_and_no_wrong_number_but_the_known_ones() -> None:
    page = read(TABLE.read_text(encoding="utf-8"))
    assert "bug" not in page.values()
    assert {name for name, status in page.items() if status == "wrong"} <= set(KNOWN)


def test_run_node_takes_one_node() -> None:
    node = onnx.helper.make_node("Slice", ["x", "starts", "ends"], ["y"])
    x = np.arange(6, dtype=np.float32)
    outputs = FlexcBackend.run_node(node, [x, np.array([1]), np.array([4])])
    np.testing.assert_array_equal(outputs[0], [1, 2, 3])


def test_a_program_is_made_anew_for_other_shapes_and_other_steering_numbers() -> None:
    node = onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])
    infos = [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"]),
        onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, [2]),
    ]
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    rep = FlexcBackend.prepare(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    for size, shape in ((6, (2, 3)), (6, (3, 2)), (8, (2, 4))):
        x = np.arange(size, dtype=np.float32)
        assert rep.run([x, np.array(shape)])[0].tolist() == x.reshape(shape).tolist()


def test_only_the_cpu_is_a_device() -> None:
    assert FlexcBackend.supports_device("CPU")
    assert not FlexcBackend.supports_device("CUDA")
    with pytest.raises(FlexcError, match="no device 'CUDA'"):
        FlexcBackend.prepare(onnx.ModelProto(), "CUDA")


def test_an_input_that_is_no_tensor_is_refused() -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    infos = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])]
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    rep = FlexcBackend.prepare(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    with pytest.raises(FlexcError, match="not a tensor"):
        rep.run(["text"])

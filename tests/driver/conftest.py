"""What the tests of the command line share: small models as files, and a way to call the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flexc.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def flexc(capsys: pytest.CaptureFixture[str]) -> Call:
    """Carry out a command line."""

    def call(*words: object) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return call


def report_of(flexc: Call, *words: object) -> dict[str, Any]:
    """Prune, and return the report."""
    done = flexc("prune", *words, "--json")
    assert (done.code, done.err) == (0, "")
    report: dict[str, Any] = json.loads(done.out)
    return report


def mlp_proto() -> onnx.ModelProto:
    """x [1,3,37] -> linear with bias (40) -> Relu -> linear (5) -> Softmax: y."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.standard_normal((37, 40)),
        "b1": rng.standard_normal(40),
        "w2": rng.standard_normal((40, 5)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Add", ["a", "b1"], ["b"], name="bias"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("MatMul", ["c", "w2"], ["d"], name="second"),
        helper.make_node("Softmax", ["d"], ["y"], name="softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 37])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A file with the small MLP."""
    path = tmp_path / "mlp.onnx"
    onnx.save(mlp_proto(), path)
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small MLP, magnitude-pruned to 2:4 and compiled; the model lies beside it as mlp.onnx."""
    folder = tmp_path_factory.mktemp("compiled")
    onnx.save(mlp_proto(), folder / "mlp.onnx")
    program = folder / "mlp.fxc"
    assert main(["compile", str(folder / "mlp.onnx"), "-o", str(program), "--prune", "magnitude", "--nm", "2:4"]) == 0
    return program


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five windows of data for the MLP, in a .npy file."""
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(1).standard_normal((5, 1, 3, 37)).astype(np.float32))
    return path

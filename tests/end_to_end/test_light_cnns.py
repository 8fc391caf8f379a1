"""Topologies of the ONNX model zoo as onnx ships them, weights made by ConstantOfShape: one always, all on demand.

``pytest tests/end_to_end/test_light_cnns.py --light-cnns`` takes all nine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.backend.test.data
import pytest

import flexc

FOLDER = Path(next(iter(onnx.backend.test.data.__path__))) / "light"
QUICK = "light_squeezenet.onnx"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = sorted(path.name for path in FOLDER.glob("*.onnx"))
    metafunc.parametrize("name", names if metafunc.config.getoption("--light-cnns") else [QUICK])


def test_a_topology_compiles_and_checks_without_the_host(name: str) -> None:
    program = flexc.compile(FOLDER / name, prune="none")
    assert not [op.reason for op in program.image.debug.ops if op.engine == "host"]
    rng = np.random.default_rng(0)
    feeds = {each.name: rng.standard_normal(each.shape).astype(np.float32) for each in program.image.inputs}
    verdict = program.check(feeds)
    assert verdict.passed, verdict.line()
    assert verdict.array_ops > 0

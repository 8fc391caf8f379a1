"""Inverse and hyperbolic functions on the machine: within a few roundings of the real numbers, up to the ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import flexc

Floats = npt.NDArray[np.float32]
TINY = [0.0, -0.0, 1e-30, 1e-6, 1e-3]
HALF = [0.25, 0.4999, 0.5, 0.5001]
ANY = [*TINY, *HALF, 0.41, 0.42, 0.9999, 1.0, 1.0001, 2.41, 2.42, 10.0, 80.0]
BELOW_ONE = [*TINY, *HALF, 0.9, 0.999, 0.999999]
#: Operator -> (its function in numpy, where it is tried, and the negative of that, too).
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], list[float], bool]] = {
    "Acos": (np.arccos, [*BELOW_ONE, 1.0], True),
    "Acosh": (np.arccosh, [1.0, 1.000001, 1.001, 1.4999, 1.5001, 2.0, 1499.0, 1501.0, 1e20, 3e38], False),
    "Asin": (np.arcsin, [*BELOW_ONE, 1.0], True),
    "Asinh": (np.arcsinh, [*ANY, 1499.0, 1501.0, 1e20, 3e38], True),
    "Atan": (np.arctan, [*ANY, 1e20, np.inf], True),
    "Atanh": (np.arctanh, BELOW_ONE, True),
    "Cosh": (np.cosh, [*ANY, 89.0], True),
    "Sinh": (np.sinh, [*ANY, 89.0], True),
    "Tan": (np.tan, [*TINY, *HALF, 0.9, 1.2, 1.5], True),
}


@pytest.mark.parametrize("op", FUNCTIONS)
def test_it_is_close_to_the_real_numbers(op: str) -> None:
    function, places, both = FUNCTIONS[op]
    dense = np.linspace(min(places), min(max(places), 100.0), 301)
    x: Floats = np.array([*places, *dense], np.float32)
    x = np.concatenate([x, -x]) if both else x
    text = f'<ir_version: 10, opset_import: ["": 22]> g (float[{x.size}] x) => (float[{x.size}] y) {{ y = {op}(x) }}'
    program = flexc.compile(onnx.parser.parse_model(text))
    assert not [each for each in program.image.debug.ops if each.engine == "host"]
    assert program.check({"x": x}).passed
    y = program.run({"x": x}).outputs["y"]
    np.testing.assert_allclose(y, function(x.astype(np.float64)), rtol=8e-7, atol=1e-37)

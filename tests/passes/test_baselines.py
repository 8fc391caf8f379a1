"""Patterns by simple rules: how near they come to a sparsity, and whom they favour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.linears import Linear
from flexc.isa.errors import FlexcError
from flexc.passes.baselines import OWL_SPREAD, owl, owl_densities, sparsity_of, uniform
from flexc.passes.pattern import NM
from flexc.passes.prune import Request

MODEL = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)


def linear(name: str, k: int, n: int, matrix: np.ndarray | None = None) -> Linear:
    numbers = np.ones((k, n), np.float32) if matrix is None else matrix
    weight = ir.Value(name=f"{name}.w", const_value=ir.tensor(numbers))
    ir.Graph([], [], nodes=[], initializers=[weight])
    return Linear(ir.Node("", "MatMul", [ir.Value(name="x"), weight], name=name), name, weight, 1, k, n, False)


def decoder(blocks: int, matrices: Sequence[np.ndarray] = ()) -> list[Linear]:
    names = [f"/layers.{block}/{part}" for block in range(blocks) for part in ("qkv", "mlp")]
    given = dict(zip(names, matrices, strict=False))
    return [linear(name, 64, 32, given.get(name)) for name in names]


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("k", [64, 37])
def test_uniform_reaches_a_sparsity_with_the_two_nearest_patterns(sparsity: float, k: int) -> None:
    linears = [linear(f"l{place}", k, 24 + 8 * (place % 3)) for place in range(30)]
    patterns = uniform(MODEL, linears, Request(sparsity=sparsity)).patterns
    reached = sparsity_of(linears, patterns)
    assert sparsity <= reached < sparsity + 0.01
    kept = {round(8 * nm.density) for nm in patterns.values()}
    assert max(kept) - min(kept) <= 1
    if k == 64 and len(kept) == 2:  # they take turns: no half of the model is much denser
        first = [round(8 * nm.density) for nm in list(patterns.values())[:15]]
        assert np.mean(first) == pytest.approx(8 * (1 - sparsity), abs=0.3)


def test_uniform_takes_a_pattern_as_given() -> None:
    assert set(uniform(MODEL, decoder(2), Request(nm=NM(3, 16))).patterns.values()) == {NM(3, 16)}


def test_more_than_1_of_m_cannot_be_reached() -> None:
    for method in (uniform, owl):
        with pytest.raises(FlexcError, match=r"sparsity 0\.9 cannot be reached: 1:8 in every linear is 0\.8750"):
            method(MODEL, decoder(3), Request(sparsity=0.9))
        assert method(MODEL, decoder(3), Request(sparsity=0.9, m_set=(4, 16))).patterns


def test_owl_gives_blocks_with_outliers_more_weights() -> None:
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((64, 32)).astype(np.float32) for _ in range(8)]
    for matrix in matrices[4:6]:  # the third block
        matrix[rng.random(matrix.shape) < 0.03] *= 40
    linears = decoder(4, matrices)
    patterns = owl(MODEL, linears, Request(sparsity=0.6)).patterns
    density = [patterns[f"/layers.{block}/qkv"].density for block in range(4)]
    assert density[2] == max(density) > min(density)
    assert all(patterns[f"/layers.{block}/qkv"] == patterns[f"/layers.{block}/mlp"] for block in range(4))
    assert 0.6 <= sparsity_of(linears, patterns) < 0.6 + 1 / 32


def test_owl_densities_stay_near_the_mean() -> None:
    densities = owl_densities(np.array([1.0, 3.0, 2.0, 50.0]), [True, True, True, False], 0.7)
    assert densities[:3].mean() == pytest.approx(0.3)
    assert densities[1] - densities[0] == pytest.approx(2 * OWL_SPREAD)
    assert densities[3] == pytest.approx(0.3)  # alone outside the blocks: its outliers do not count
    np.testing.assert_allclose(owl_densities(np.ones(3), [True] * 3, 0.5), 0.5)

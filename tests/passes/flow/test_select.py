"""Selection by measured divergence on a small language model, and the weights it leads to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from flexc.frontend.linears import find_linears
from flexc.frontend.load import load
from flexc.isa.errors import FlexcError
from flexc.passes.calibrate import input_specs
from flexc.passes.feeds import Feeds, windows
from flexc.passes.flow.options import FlowOptions
from flexc.passes.flow.select import run_flow, select

DECODER = Path(__file__).parents[2] / "models" / "decoder.onnx"


@pytest.fixture
def decoder() -> ir.Model:
    return load(DECODER)


@pytest.fixture
def feeds(decoder: ir.Model, tmp_path: Path) -> Feeds:
    tokens = np.random.default_rng(3).integers(0, 48, 8 * 16)
    np.save(tmp_path / "tokens.npy", tokens)
    return windows(input_specs(decoder), tmp_path / "tokens.npy")


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.75])
def test_the_sparsity_asked_for_is_reached(decoder: ir.Model, feeds: Feeds, sparsity: float) -> None:
    selection = run_flow(decoder, feeds, FlowOptions(sparsity=sparsity))
    linears = [linear for linear in find_linears(decoder) if linear.name in selection.patterns]
    zeros = sum(int(np.sum(linear.matrix() == 0)) for linear in linears)
    assert zeros / sum(linear.n * linear.k for linear in linears) >= sparsity
    assert {linear.node.metadata_props["flexc.nm"] for linear in linears} == set(map(str, selection.patterns.values()))


def test_an_unreachable_sparsity_is_refused_before_anything_is_measured(decoder: ir.Model, feeds: Feeds) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("measured in vain")

    with pytest.raises(FlexcError, match="no choice of patterns keeps to"):
        select(decoder, feeds, FlowOptions(sparsity=0.9, m_set=(4,)), nothing)

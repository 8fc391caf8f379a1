"""A permutation that changes what a model computes is found out and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexc.frontend.load import load
from flexc.isa.errors import FlexcError
from flexc.passes.calibrate import calibrate, input_specs
from flexc.passes.feeds import random_feeds
from flexc.passes.permute import apply
from flexc.passes.permute.same import distance, same_outputs
from flexc.passes.prune import open_linears

DECODER = Path(__file__).parents[1] / "models" / "decoder.onnx"


def permuted_decoder() -> int:
    """Permute the decoder for 2:4 under supervision; return how many classes were."""
    model = load(DECODER)
    feeds = random_feeds(input_specs(model), 2, seed=3)
    statistics = calibrate(model, feeds)
    with same_outputs(model, feeds[0]):
        _, count = apply.permute(model, open_linears(model), statistics, 0.5, (4,))
    return count


def test_one_that_keeps_everything_passes() -> None:
    assert permuted_decoder() > 0


def test_one_that_forgets_a_constant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right, seen = apply.permuted, [0]

    def forgetful(array: Any, *rest: Any) -> Any:
        seen[0] += 1
        return array if seen[0] == 1 else right(array, *rest)

    monkeypatch.setattr(apply, "permuted", forgetful)
    with pytest.raises(FlexcError, match=r"in another order of channels output '.*' differs by") as caught:
        permuted_decoder()
    assert "--permute none" in str(caught.value.remedy)


def test_the_distance_is_relative() -> None:
    ones = np.ones(4, np.float32)
    assert distance(ones, ones * np.float32(1.5)) == pytest.approx(0.5)
    assert distance(np.zeros(4, np.float32), ones) == pytest.approx(2)
    assert distance(np.array([1, 2]), np.array([2, 1])) == 0
    endless = np.array([np.inf, 1], np.float32)
    assert distance(endless, endless) == 0
    assert distance(endless, ones[:2]) == np.inf

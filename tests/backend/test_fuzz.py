"""Random graphs with fixed seeds; ``python -m tests.backend.fuzz 0 1000`` tries more."""

from __future__ import annotations

import pytest

from tests.backend.fuzz import KINDS, try_seed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(100, 110))
def test_random_graphs(seed: int, kind: str) -> None:
    try_seed(seed, kind)

"""N:M patterns: how they are written, what is refused, and finding the one a weight has."""

from __future__ import annotations

import numpy as np
import pytest

from flexc.isa.errors import UsageError
from flexc.passes.masks import top_mask
from flexc.passes.pattern import BLOCKS, DENSE, NM, block_maxima, covering, detect, fits, macro_cost

SPARSE = [NM(n, m) for m in BLOCKS for n in range(1, m)]


@pytest.mark.parametrize("text", ["1:2", "4:8", "15:16", "dense"])
def test_parse_and_print_are_inverse(text: str) -> None:
    assert str(NM.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5:4", "5:4: N must not exceed M"),
        ("1:3", "1:3: M must be one of 2, 4, 8, 16"),
        ("4:32", "4:32: M must be one of 2, 4, 8, 16"),
        ("0:4", "0:4: N must be at least 1"),
        ("4", "4: not an N:M pattern"),
        ("a:b", "a:b: not an N:M pattern"),
        ("-1:4", "-1:4: not an N:M pattern"),
    ],
)
def test_bad_patterns_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        NM.parse(text)
    assert str(caught.value).splitlines()[0] == message


def test_kept_counts_the_short_last_block() -> None:
    assert NM(2, 4).kept(4) == 2
    assert NM(2, 4).kept(5) == 3
    assert NM(2, 4).kept(7) == 4
    assert DENSE.kept(7) == 7


def test_cost_follows_the_machine_table() -> None:
    """One tile takes K_tile positions: floor(128 / N) blocks of M; 1:16 alone needs two cycles a vector."""
    k_tile = {"dense": 128, "1:2": 256, "3:4": 168, "1:8": 1024, "3:8": 336, "4:8": 256, "2:16": 1024, "8:16": 256}
    for text, k in k_tile.items():
        assert macro_cost(k, NM.parse(text))[0] == 1
        assert macro_cost(k + 1, NM.parse(text))[0] == 2
    assert macro_cost(2048, NM(1, 16))[0] == 2
    assert macro_cost(64, NM(4, 8)) == (1, 32 * 11)


@pytest.mark.parametrize("k", [2048, 1283, 40])
@pytest.mark.parametrize("nm", SPARSE, ids=str)
def test_detection_finds_the_counts_of_every_pattern(nm: NM, k: int) -> None:
    weights = np.random.default_rng(0).standard_normal((3, k)).astype(np.float32)
    pruned = weights * top_mask(np.abs(weights), nm)
    assert block_maxima(pruned)[nm.m] == nm.n
    found = detect(pruned, [nm.m])
    assert found == min((nm, DENSE), key=lambda choice: macro_cost(k, choice))


def test_of_fitting_patterns_the_cheapest_wins() -> None:
    weights = np.zeros((2, 512), np.float32)
    weights[:, ::4] = 1  # 1:4, therefore also 2:8 and 4:16, all one tile; fewest bits decides
    assert detect(weights) == NM(1, 4)
    assert detect(weights, [8, 16]) == NM(2, 8)


def test_a_full_or_nearly_full_block_makes_a_weight_dense() -> None:
    weights = np.ones((2, 64), np.float32)
    assert detect(weights) == DENSE
    weights[:, 0] = 0  # unstructured: other blocks are full
    assert detect(weights) == DENSE


def test_an_empty_weight_takes_the_cheapest_pattern() -> None:
    assert detect(np.zeros((2, 4096), np.float32)).n == 1


def test_one_bad_block_late_in_a_large_weight_is_seen() -> None:
    weights = np.zeros((3000, 1024), np.float32)
    weights[:, ::8] = 1
    weights[2999, 1016:1019] = 1
    assert block_maxima(weights)[8] == 3


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([NM(2, 4)], NM(2, 4)),
        ([NM(2, 4), NM(1, 4)], NM(2, 4)),
        ([NM(1, 2), NM(3, 8)], NM(4, 8)),
        ([NM(1, 4), NM(3, 16)], NM(4, 16)),
        ([NM(1, 8), NM(7, 8), NM(1, 2)], NM(7, 8)),
        ([NM(1, 4), DENSE], DENSE),
        ([NM(1, 2), NM(2, 2)], DENSE),
    ],
    ids=str,
)
def test_one_pattern_covers_several(patterns: list[NM], wanted: NM) -> None:
    assert covering(patterns) == wanted
    rng = np.random.default_rng(0)
    for nm in patterns:
        matrix = rng.standard_normal((8, 48)).astype(np.float32)
        assert fits(np.where(top_mask(np.abs(matrix), nm), matrix, 0).astype(np.float32), wanted)

"""Storages that are alive at the same time never overlap; constants lie where their content is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexc.backend.memory import ConstImage, Lifetime, allocate
from flexc.backend.views import Storage
from flexc.passes.layout import ALIGN, aligned

LIFETIMES = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 12), st.integers(0, 6)), max_size=12)


def lifetimes(drawn: list[tuple[int, int, int]]) -> list[Lifetime]:
    return [
        Lifetime(Storage(f"s{place}", "dram", size), first, first + length)
        for place, (size, first, length) in enumerate(drawn)
    ]


@settings(max_examples=40)
@given(LIFETIMES)
def test_nothing_alive_overlaps(drawn: list[tuple[int, int, int]]) -> None:
    items = lifetimes(drawn)
    total = allocate(items)
    for place, a in enumerate(items):
        assert a.storage.address % ALIGN == 0
        assert 0 <= a.storage.address <= total - a.storage.size
        for b in items[:place]:
            together = a.first <= b.last and b.first <= a.last
            apart = (
                a.storage.address + a.storage.size <= b.storage.address
                or b.storage.address + b.storage.size <= a.storage.address
            )
            assert apart or not together


@settings(max_examples=40)
@given(LIFETIMES)
def test_no_more_than_everything_side_by_side_and_no_less_than_what_is_alive_at_once(
    drawn: list[tuple[int, int, int]],
) -> None:
    items = lifetimes(drawn)
    total = allocate(items)
    alive = [sum(aligned(each.storage.size) for each in items if each.first <= t <= each.last) for t in range(20)]
    assert max(alive) <= total <= sum(aligned(each.storage.size) for each in items)


def test_memory_is_used_again() -> None:
    items = lifetimes([(100, 0, 1), (100, 2, 1), (100, 4, 1)])
    assert allocate(items) == 128
    assert {each.storage.address for each in items} == {0}


def test_constants_lie_behind_the_weights_and_hold_their_content() -> None:
    image = ConstImage()
    bias = image.add("bias", 3, lambda: [np.array([1, 2, 3], np.uint8)])
    weight = image.add("weight", 70, lambda: [np.full(30, 7, np.uint8), np.full(40, 8, np.uint8)], weights=True)
    weight_bytes, total = image.place()
    assert (weight.address, weight_bytes, bias.address, total) == (0, 128, 128, 192)
    content = np.zeros(total, np.uint8)
    image.write(content)
    assert content[bias.address : bias.address + 3].tolist() == [1, 2, 3]
    assert content[:70].tolist() == [7] * 30 + [8] * 40
    assert not content[70:128].any()


def test_content_of_another_size_is_noticed() -> None:
    image = ConstImage()
    image.add("bias", 4, lambda: [np.zeros(3, np.uint8)])
    image.place()
    with pytest.raises(AssertionError, match="bias"):
        image.write(np.zeros(64, np.uint8))

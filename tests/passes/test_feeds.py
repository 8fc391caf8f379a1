"""Windows cut from files: token streams, samples, several inputs, and everything that can be wrong with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexc.isa.errors import FlexcError, UsageError
from flexc.passes.feeds import InputSpec, random_feed, random_feeds, windows

TOKENS = InputSpec("tokens", np.dtype(np.int64), (1, 8), vocabulary=100)
IMAGE = InputSpec("image", np.dtype(np.float32), (2, 3))
MASK = InputSpec("mask", np.dtype(np.bool_), (1, 8))


def save(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def test_a_flat_stream_is_cut_without_overlap_and_the_rest_left_out(tmp_path: Path) -> None:
    feeds = windows([TOKENS], save(tmp_path / "t.npy", np.arange(35, dtype=np.uint16)))
    assert len(feeds) == 4
    assert feeds[1]["tokens"].tolist() == [list(range(8, 16))]
    assert feeds[1]["tokens"].dtype == np.int64
    assert len(list(feeds.first(3))) == 3
    np.testing.assert_array_equal(feeds[-1]["tokens"], feeds[3]["tokens"])
    with pytest.raises(IndexError):
        feeds[4]


@pytest.mark.parametrize("shape", [(40,), (1, 40), (5, 8), (5, 1, 8)])
def test_layouts_of_one_stream_give_the_same_windows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    feeds = windows([TOKENS], save(tmp_path / "t.npy", np.arange(40).reshape(shape)))
    assert [feed["tokens"].ravel()[0] for feed in feeds] == [0, 8, 16, 24, 32]


@pytest.mark.parametrize(("shape", "count"), [((2, 3), 1), ((5, 2, 3), 5), ((6, 3), 3)])
def test_float_samples(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    feeds = windows([IMAGE], save(tmp_path / "x.npy", array))
    assert len(feeds) == count
    assert feeds[count - 1]["image"].dtype == np.float32
    assert feeds[count - 1]["image"].ravel()[-1] == array.ravel()[-1]


def test_several_inputs_from_an_archive_or_from_files(tmp_path: Path) -> None:
    tokens, mask = np.arange(24), np.ones((1, 8), np.bool_)
    np.savez(tmp_path / "all.npz", tokens=tokens, mask=mask)
    files = {"tokens": save(tmp_path / "t.npy", tokens), "mask": save(tmp_path / "m.npy", mask)}
    for source in (tmp_path / "all.npz", files):
        feeds = windows([TOKENS, MASK], source)
        assert len(feeds) == 3
        assert feeds[2]["mask"].all()  # the only window of the mask serves for all
        assert feeds[2]["tokens"][0, 0] == 16


def test_a_nameless_archive_serves_a_single_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", np.arange(8))
    assert len(windows([TOKENS], tmp_path / "t.npz")) == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(5), "5 values, one input 'tokens' (int64 [1, 8]) takes 8"),
        (np.zeros((3, 7), np.int64), "shape [3, 7] does not fit input 'tokens' (int64 [1, 8])"),
        (np.zeros(8), "dtype float64 does not fit input 'tokens' (int64 [1, 8])"),
        (np.array(3), "shape [] does not fit input 'tokens' (int64 [1, 8])"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    path = save(tmp_path / "t.npy", array)
    with pytest.raises(FlexcError) as caught:
        windows([TOKENS], path)
    assert str(caught.value).splitlines()[0] == f"{path}: {message}"


def test_values_are_checked_window_by_window(tmp_path: Path) -> None:
    stream = np.arange(16)
    stream[9] = 100
    feeds = windows([TOKENS], save(tmp_path / "t.npy", stream))
    assert feeds[0]["tokens"].shape == (1, 8)
    with pytest.raises(FlexcError, match="window 1: token 100 is outside the vocabulary of 100"):
        feeds[1]
    image = np.full((2, 3), np.nan)
    with pytest.raises(FlexcError, match="NaN or infinity"):
        windows([IMAGE], save(tmp_path / "x.npy", image))[0]
    small = InputSpec("small", np.dtype(np.int8), (2,))
    with pytest.raises(FlexcError, match="do not fit int8"):
        windows([small], save(tmp_path / "s.npy", np.array([1, 300])))[0]


def test_unreadable_files(tmp_path: Path) -> None:
    text = tmp_path / "text.npy"
    text.write_text("hello")
    cut = save(tmp_path / "cut.npy", np.arange(1000))
    cut.write_bytes(cut.read_bytes()[:500])
    pickled = tmp_path / "objects.npy"
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    empty = tmp_path / "empty.npy"
    empty.write_bytes(b"")
    zipped = tmp_path / "cut.npz"
    np.savez(zipped, tokens=np.arange(1000))
    zipped.write_bytes(zipped.read_bytes()[:500])
    for path in (text, cut, pickled, empty, zipped):
        with pytest.raises(FlexcError, match=r"not a readable \.npy or \.npz file"):
            windows([TOKENS], path)
    with pytest.raises(FlexcError, match="no such file"):
        windows([TOKENS], tmp_path / "missing.npy")
    with pytest.raises(FlexcError, match="cannot be read"):
        windows([TOKENS], tmp_path)


def test_names_are_checked(tmp_path: Path) -> None:
    path = save(tmp_path / "t.npy", np.arange(8))
    with pytest.raises(FlexcError) as caught:
        windows([TOKENS], {"token": path})
    assert "the model has no input 'token'\nhelp: did you mean 'tokens'?" in str(caught.value)
    assert "no data for input 'tokens' (int64 [1, 8])" in str(caught.value)
    with pytest.raises(UsageError, match="one array for 2 inputs"):
        windows([TOKENS, MASK], path)


def test_counts_must_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", tokens=np.arange(24), mask=np.ones(16, np.bool_))
    with pytest.raises(FlexcError, match=r"different numbers of windows \(tokens: 3, mask: 2\)"):
        windows([TOKENS, MASK], tmp_path / "x.npz")


def test_random_feeds_are_repeatable_and_fit() -> None:
    feed = random_feed([TOKENS, IMAGE, MASK], 7)
    again = random_feed([TOKENS, IMAGE, MASK], 7)
    for name, array in feed.items():
        np.testing.assert_array_equal(array, again[name])
    assert feed["tokens"].shape == (1, 8)
    assert feed["tokens"].max() < 100
    assert feed["mask"].dtype == np.bool_


def test_a_part_of_the_windows_is_taken_from_every_input(tmp_path: Path) -> None:
    tokens = save(tmp_path / "t.npy", np.arange(40))
    mask = save(tmp_path / "m.npy", np.ones((1, 8), np.bool_))  # one for all
    part = windows([TOKENS, MASK], {"tokens": tokens, "mask": mask}).between(2, 4)
    assert [feed["tokens"].ravel()[0] for feed in part] == [16, 24]
    assert all(feed["mask"].all() for feed in part)
    assert len(windows([TOKENS], tokens).between(4, 9)) == 1
    assert len(windows([TOKENS], tokens).between(7, 9)) == 0


def test_many_random_windows_differ_and_are_repeatable() -> None:
    feeds = random_feeds([TOKENS, IMAGE], 5, seed=3)
    assert len(feeds) == 5
    assert len({feed["tokens"].tobytes() for feed in feeds}) == 5
    again = random_feeds([TOKENS, IMAGE], 5, seed=3)
    assert all(np.array_equal(ours["image"], theirs["image"]) for ours, theirs in zip(feeds, again, strict=True))
    assert all(feed["tokens"].max() < 100 for feed in feeds)

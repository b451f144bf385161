"""Snippets to seconds, and the order of detections: by hand, and the twin on generated inputs."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import times as twin

from refineloc._ext.times import best_first, seconds

#                   stride, before, fps, duration
GRIDS = np.array([[8.0, 4.0, 16.0, np.inf], [16.0, 0.0, 32.0, 1.25], [16.0, -4.0, 8.0, np.inf]])


def by_video(*arguments: npt.NDArray[Any]) -> list[list[tuple[float, float, float, int]]]:
    """Rows of the result, video by video."""
    begins, *columns = best_first(*arguments)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert (begins[0], begins[-1]) == (0, len(rows))
    return [rows[begin:past] for begin, past in itertools.pairwise(begins.tolist())]


def test_by_hand() -> None:
    video, label = np.array([0, 0, 0, 1, 1, 1]), np.array([5, 4, 3, 2, 1, 0])
    first, last = np.array([0.0, 1, 2, 0, 2, 3]), np.array([0.0, 1.5, 2, 1, 2, 4])
    score = np.array([0.5, 0.75, 0.5, -1.0, 0.0, 9.0])
    # Of the second video (two snippets a second, 1.25 s) the last begins after its end; the one before is cut.
    assert by_video(video, label, first, last, score, GRIDS) == [
        [(0.75, 1.5, 0.75, 4), (0.25, 0.75, 0.5, 5), (1.25, 1.75, 0.5, 3)],
        [(1.0, 1.25, 0.0, 1), (0.0, 1.0, -1.0, 2)],
        [],
    ]
    assert [each.tolist() for each in seconds(np.array([0.0, 1]), np.array([0.0, 1]), GRIDS[2])] == [
        [0.0, 1.5],  # -0.5 s is before the video
        [1.5, 3.5],
    ]


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 6) | st.integers(0, 200), max_size=4),
    levels=st.sampled_from([0, 1, 4]),
    duration=st.sampled_from([0.5, 20.0, np.inf]),
)
@settings(max_examples=200, deadline=None)
def test_equals_its_twin_to_the_bit(seed: int, sizes: list[int], levels: int, duration: float) -> None:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    first = rng.integers(0, 60, n) * 1.0 if levels else rng.uniform(0, 60, n)
    last = first + (rng.integers(0, 9, n) if levels else rng.uniform(0, 9, n))
    score = rng.integers(-levels, levels + 1, n) / levels if levels else rng.standard_normal(n)
    stride = rng.integers(1, 33, len(sizes))
    frames = rng.integers(1, 33, len(sizes))
    fps = rng.uniform(1, 60, len(sizes))
    grids = np.stack([stride, (frames - stride) / 2, fps, np.full(len(sizes), duration)], axis=1)
    video, label = np.repeat(np.arange(len(sizes)), sizes), rng.integers(0, 20, n)
    assert by_video(video, label, first, last, score, grids) == twin.best_first(video, label, first, last, score, grids)
    for grid in grids:
        for got, want in zip(seconds(first, last, grid), twin.seconds(first, last, grid), strict=True):
            assert got.tolist() == want.tolist()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"video": np.array([1, 0])}, ValueError, "video: expected 0 to 1, not falling; got 0 at 1"),
        ({"video": np.array([0, 2])}, ValueError, "video: expected 0 to 1, not falling; got 2 at 1"),
        ({"video": np.array([-1, 0])}, ValueError, "video: .* got -1 at 0"),
        ({"video": np.array([0.0, 1.0])}, TypeError, "video: expected int64"),
        ({"label": np.array([0, 1, 2])}, ValueError, "five arrays of one size"),
        ({"score": np.array([0.0, np.nan])}, ValueError, "score: holds NaN"),
        ({"grids": np.ones((2, 3))}, ValueError, "grids: expected 4 columns"),
        ({"grids": np.ones((0, 4))}, ValueError, "video: expected 0 to -1"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "video": np.array([0, 1]),
        "label": np.array([0, 0]),
        "first": np.zeros(2),
        "last": np.zeros(2),
        "score": np.zeros(2),
        "grids": np.ones((2, 4)),
    }
    with pytest.raises(error, match=message):
        best_first(**arguments | changes)


def test_seconds_of_wrong_sizes_are_refused() -> None:
    for first, last, grid in ((np.zeros(2), np.zeros(1), np.ones(4)), (np.zeros(1), np.zeros(1), np.ones(3))):
        with pytest.raises(ValueError, match="two arrays of one size and a grid"):
            seconds(first, last, grid)

"""The segments that a model finds itself: by hand, and the twin on generated inputs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import points as twin

from refineloc._ext.points import detect_points


def test_by_hand() -> None:
    """Two videos of 3 and 1 snippets, two levels: points at 0 1 2 | 0 and at 0 2 | 0."""
    scores = np.float32([[0.5, 0], [0, 0], [0, 0.4], [1, 0], [0, 0], [0.25, 0], [0, 0]])
    distances = np.float32([[9, 1], [1, 1], [0.25, 0], [0.5, 2], [1, 1], [2, 9], [0, 0]])
    video_scores = np.float32([[0.5, 0.25], [0.1, -np.inf]])
    video, label, first, last, score = detect_points(
        scores, *distances.T, video_scores, np.array([3, 1]), levels=2, top_k=2, least=0.1
    )
    assert video.tolist() == [0, 0, 0, 1]
    assert label.tolist() == [0, 0, 1, 0]
    # Of 0.5 - 9 to 0.5 + 1; of level 1, 2.5 - 2 to the end; of 2.5 - 0.25 to 2.5; of the whole second video.
    assert first.tolist() == [0, 0.5, 2.25, 0]
    assert (last + 1).tolist() == [1.5, 3, 2.5, 1]
    assert score.tolist() == [0.5, 0.25, np.float64(np.float32(0.4)) / 2, 1]


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 5) | st.integers(0, 60), max_size=4),
    classes=st.integers(1, 4),
    levels=st.integers(1, 7),
    top_k=st.integers(1, 5),
    least=st.sampled_from([1e-6, 0.3, 0.9]),
    class_threshold=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_equals_its_twin_to_the_bit(
    seed: int, lengths: list[int], classes: int, levels: int, top_k: int, least: float, class_threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    packed = np.array(lengths, np.int64)
    points = sum(int((-(-packed // 2**level)).sum()) for level in range(levels))
    scores = rng.random((points, classes), np.float32)
    distances = np.float32(rng.exponential(4, (points, 2)) * (rng.random((points, 2)) < 0.8))
    video_scores = np.float32(rng.integers(0, 4, (len(lengths), classes)) / 3)
    video_scores[rng.random(video_scores.shape) < 0.2] = -np.inf
    arguments: dict[str, Any] = {"levels": levels, "top_k": top_k, "least": least, "class_threshold": class_threshold}
    ours = detect_points(scores, *distances.T, video_scores, packed, **arguments)
    theirs = twin.detect_points(scores, *distances.T, video_scores, packed, **arguments)
    assert [column.tolist() for column in ours] == [column.tolist() for column in theirs]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scores": np.zeros((5, 2))}, TypeError, "scores: expected float32"),
        ({"to_start": np.zeros(4, np.float32)}, ValueError, "to_start: expected 5 points as in scores, got 4"),
        ({"to_end": np.zeros((5, 1), np.float32)}, ValueError, "to_end: expected 1 dimensions"),
        ({"video_scores": np.zeros((2, 2), np.float32)}, ValueError, "video_scores: expected shape"),
        ({"video_scores": np.full((1, 2), np.nan, np.float32)}, ValueError, "video_scores: holds NaN"),
        ({"scores": np.full((5, 2), np.nan, np.float32)}, ValueError, "not finite"),
        ({"to_start": np.full(5, np.inf, np.float32)}, ValueError, "not finite"),
        ({"to_end": np.full(5, np.nan, np.float32)}, ValueError, "not finite"),
        ({"lengths": np.array([4])}, ValueError, "lengths: expected those of 5 points at 2 levels"),
        ({"lengths": np.array([2])}, ValueError, "lengths"),
        ({"lengths": np.array([-1])}, ValueError, "lengths"),
        ({"lengths": np.array([2**62])}, ValueError, "lengths"),
        ({"levels": 0}, ValueError, "levels"),
        ({"levels": 61}, ValueError, "levels"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"least": 0.0}, ValueError, "least"),
        ({"least": float("nan")}, ValueError, "least"),
        ({"class_threshold": -0.5}, ValueError, "class_threshold"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "scores": np.ones((5, 2), np.float32),
        "to_start": np.ones(5, np.float32),
        "to_end": np.ones(5, np.float32),
        "video_scores": np.ones((1, 2), np.float32),
        "lengths": np.array([3]),
        "levels": 2,
        "top_k": 1,
        "least": 0.5,
    }
    with pytest.raises(error, match=message):
        detect_points(**arguments | changes)

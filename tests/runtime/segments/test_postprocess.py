"""Settings of post-processing, and the profile of many thresholds: what it gives, and what is refused."""

from typing import Any

import numpy as np
import pytest
from twins import proposals as twin

from refineloc._ext.nms import hard_nms
from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.postprocess import MAX_THRESHOLDS, PostProcess, segments
from refineloc.runtime.segments.values import Scores, Segments

LENGTHS = np.array([40, 0, 25], dtype=np.int64)


@pytest.fixture
def scores() -> Scores:
    """Class activations that rise and fall slowly, of two videos and an empty one; three classes."""
    rng = np.random.default_rng(5)
    time = np.arange(LENGTHS.sum())[:, None]
    waves = np.sin(time / rng.uniform(2, 6, 3) + rng.uniform(0, 6, 3)) + 0.3 * rng.standard_normal((len(time), 3))
    share = np.exp(waves) / np.exp(waves).sum(axis=1, keepdims=True)
    unused = np.full(len(time), np.nan, np.float32)  # this profile looks at neither foreground nor attention
    return Scores(share.astype(np.float32), unused, unused, rng.random((3, 3), dtype=np.float32))


def test_the_default_thresholds_are_those_of_bas_net() -> None:
    assert PostProcess().thresholds == tuple(np.arange(0, 0.25, 0.025).round(3).tolist())


@pytest.mark.parametrize("scoring", ["contrast", "peak"])
def test_many_thresholds_give_what_the_twin_gives(scores: Scores, scoring: Any) -> None:
    settings = PostProcess("multi-threshold", scoring=scoring, outer=0.5, video_weight=0.3, max_gap=1, widen=1)
    found = segments(scores, LENGTHS, settings)
    expected = twin.detect_proposals(
        scores.class_scores,
        scores.video_scores,
        LENGTHS,
        thresholds=settings.thresholds,
        top_k=2,
        scoring=scoring,
        outer=0.5,
        video_weight=0.3,
        max_gap=1,
        widen=1,
    )
    assert len(expected) > 20, "a test on nothing"
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [tuple(one) for one in expected]


def test_overlaps_are_suppressed_within_a_video_and_class(scores: Scores) -> None:
    settings = PostProcess("multi-threshold", max_gap=0, widen=0)
    every = segments(scores, LENGTHS, settings)
    kept = segments(scores, LENGTHS, PostProcess("multi-threshold", max_gap=0, widen=0, nms=0.5))
    expected: list[Any] = []
    for video in range(3):
        for label in dict.fromkeys(every.label[every.video == video].tolist()):
            own = every.take(np.flatnonzero((every.video == video) & (every.label == label)))
            bounds = own.first.astype(float), own.last + 1.0
            survivors = hard_nms(*bounds, own.score, np.zeros(len(own.first), np.int64), tiou_threshold=0.5)
            expected += rows(own.take(np.sort(survivors)))
    assert rows(kept) == expected
    assert 0 < len(kept.first) < len(every.first)


def rows(found: Segments) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in found), strict=True))


def test_the_other_profiles_do_not_look_at_the_settings_of_many_thresholds(scores: Scores) -> None:
    ones = np.ones(len(scores.foreground), np.float32)
    known = scores._replace(foreground=ones, attention=ones)
    one = segments(known, LENGTHS, PostProcess("paper", alpha_c=0.3))
    other = segments(known, LENGTHS, PostProcess("paper", alpha_c=0.3, thresholds=(0.9,), scoring="peak", outer=3))
    assert rows(one) == rows(other) != []


@pytest.mark.parametrize("thresholds", [[0.1, 0.2], np.array([0.1, 0.2]), (0.1, 0.2)])
def test_thresholds_become_a_tuple_of_numbers(thresholds: Any) -> None:
    settings = PostProcess(thresholds=thresholds)
    assert settings.thresholds == (0.1, 0.2)
    assert all(type(one) is float for one in settings.thresholds)
    assert hash(settings) == hash(PostProcess(thresholds=(0.1, 0.2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "many"}, "profile: expected 'paper' or 'release' or 'multi-threshold', got 'many'"),
        ({"scoring": "mean"}, "scoring: expected 'contrast' or 'peak', got 'mean'"),
        ({"thresholds": ()}, "thresholds: expected 1 to 1,000 numbers, got 0"),
        ({"thresholds": [0.5] * (MAX_THRESHOLDS + 1)}, "thresholds: expected 1 to 1,000 numbers, got 1,001"),
        ({"thresholds": 0.5}, "thresholds: expected a list of numbers, got 0.5"),
        ({"thresholds": "0.5"}, "thresholds: expected a list"),
        ({"thresholds": ["0.5"]}, "thresholds: expected numbers from 0 to 1, got '0.5'"),
        ({"thresholds": [0.1, 1.1]}, "thresholds: expected numbers from 0 to 1, got 1.1"),
        ({"thresholds": [float("nan")]}, "thresholds"),
        ({"outer": -0.5}, "outer: expected a finite number of at least 0"),
        ({"outer": float("nan")}, "outer"),
        ({"video_weight": float("inf")}, "video_weight: expected a finite number"),
        ({"max_gap": -1}, "max_gap: expected a whole number of at least 0, got -1"),
        ({"top_k": "a"}, "top_k: expected a whole number of at least 1, got 'a'"),
        ({"widen": 2.0}, "widen: expected a whole number of at least 0, got 2.0"),
        ({"top_k": True}, "top_k"),
        ({"alpha_a": "0.5"}, "alpha_a: expected a number from 0 to 1, got '0.5'"),
        ({"alpha_c": None}, "alpha_c: expected a number from 0 to 1, got None"),
        ({"nms": "none"}, "nms: expected a tIoU from 0 to 1, got 'none'"),
        ({"nms": True}, "nms"),
        ({"video_weight": "1"}, "video_weight"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PostProcess(**change)

"""Post-processing with many thresholds, and the suppression of overlaps."""

from typing import Any

import numpy as np
import pytest
from twins import proposals as twin

from refineloc._ext.nms import hard_nms
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import ManyThresholds
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


@pytest.mark.parametrize("scoring", ["contrast", "peak"])
def test_many_thresholds_give_what_the_twin_gives(scores: Scores, scoring: Any) -> None:
    settings = ManyThresholds(scoring=scoring, outer=0.5, video_weight=0.3, max_gap=1, widen=1)
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
    settings = ManyThresholds(max_gap=0, widen=0)
    every = segments(scores, LENGTHS, settings)
    kept = segments(scores, LENGTHS, ManyThresholds(max_gap=0, widen=0, nms=0.5))
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

"""Post-processing with many thresholds, and the suppression of overlaps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from twins import nms, video_scores
from twins import proposals as twin

from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold, Rules
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
        scores.foreground,
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


def test_settings_of_the_curves_reach_the_kernel(scores: Scores) -> None:
    foreground = np.random.default_rng(8).random(LENGTHS.sum(), np.float32)
    scores = scores._replace(foreground=foreground)
    settings = ManyThresholds(
        thresholds=(0.2, 0.6), curve="both", scored_on="product", video_term="multiply", video_share=0.3
    )
    expected = twin.detect_proposals(
        scores.class_scores,
        foreground,
        video_scores.best_snippet_scores(scores.class_scores, foreground, LENGTHS, share=0.3),
        LENGTHS,
        thresholds=(0.2, 0.6),
        top_k=2,
        scoring="contrast",
        curve="both",
        scored_on="product",
        video_term="multiply",
        max_gap=1,
        widen=2,
    )
    assert rows(segments(scores, LENGTHS, settings)) == [tuple(one) for one in expected]
    other = replace(settings, video_share=0.0)
    assert rows(segments(scores, LENGTHS, other)) != [tuple(one) for one in expected]


def test_classes_far_below_the_best_are_left_out(scores: Scores) -> None:
    y = np.array([[0.8, 0.4, 0.1], [0.0, 0.0, 0.0], [0.5, 0.5, 0.49]], np.float32)
    scores = scores._replace(video_scores=y)
    for share, expected in (
        (0.0, {(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)}),
        (0.25, {(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)}),
        (0.5, {(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)}),  # at the share
        (np.nextafter(np.float32(0.5), np.float32(1)), {(0, 0), (2, 0), (2, 1), (2, 2)}),
        (1.0, {(0, 0), (2, 0), (2, 1)}),
    ):
        detected = segments(scores, LENGTHS, ManyThresholds(top_k=3, class_threshold=share))
        assert set(zip(detected.video.tolist(), detected.label.tolist(), strict=True)) == expected
    with pytest.raises(ValueError, match="video_scores: holds NaN"):
        segments(scores._replace(video_scores=y * np.nan), LENGTHS, ManyThresholds(class_threshold=0.5))


@pytest.mark.parametrize("suppression", ["hard", "vote", "fuse", "soft", "soft-vote"])
@pytest.mark.parametrize(
    "rules", [ManyThresholds(max_gap=0, widen=0), OneThreshold(alpha_a=0.9, alpha_c=0.3, max_gap=0, widen=4)]
)
def test_overlaps_are_suppressed_within_a_video_and_class(scores: Scores, rules: Rules, suppression: Any) -> None:
    half = np.full(LENGTHS.sum(), 0.5, np.float32)
    scores = scores._replace(foreground=half, attention=half)
    every = segments(scores, LENGTHS, rules)
    kept = segments(
        scores, LENGTHS, replace(rules, suppression=suppression, tiou=0.2, soft_sigma=0.4, fuse_temperature=0.3)
    )
    expected: list[Any] = []
    for video in range(3):
        for label in dict.fromkeys(every.label[every.video == video].tolist()):
            own = every.take(np.flatnonzero((every.video == video) & (every.label == label)))
            if suppression.startswith("soft"):
                own = own.take(np.flatnonzero(own.score >= 0))
            expected += rows(survivors(suppression, own))
    assert rows(kept) == expected
    assert suppression.startswith("soft") or 0 < len(kept.first) < len(every.first)
    assert (kept.first.dtype, kept.last.dtype) == (np.float64, np.float64)


def survivors(suppression: str, own: Segments) -> Segments:
    """Of the segments of one class of one video, by the twins."""
    table = own.first.copy(), own.last + 1, own.score.copy(), np.zeros(len(own.first), np.int64)
    start, end, score, _ = table
    if suppression == "soft":
        kept, score[kept] = nms.soft_nms(*table, method="gaussian", sigma=0.4, tiou_threshold=0.5, min_score=0.0)
    elif suppression == "fuse":
        kept, start[kept], end[kept], _ = nms.fuse_nms(*table, tiou_threshold=0.2, temperature=0.3)
    elif suppression == "soft-vote":
        kept, start[kept], end[kept], score[kept] = nms.fuse_nms(*table, tiou_threshold=0.2, temperature=0.3)
        own = Segments(own.video, own.label, start, end - 1, score).take(np.array(kept, np.int64))
        return survivors("soft", own)
    else:
        kept, votes = nms.vote_nms(*table, tiou_threshold=0.2)
        if suppression == "vote":
            score[kept] = votes
    return Segments(own.video, own.label, start, end - 1, score).take(np.sort(kept))


def test_fused_bounds_are_fractions_of_snippets() -> None:
    """Two runs, of 4 and 2 snippets; the inner one has the better contrast."""
    c = np.float32([[0, 0.5, 1, 1, 0.5, 0, 0, 0]]).T.copy()
    scores = Scores(c, c[:, 0], c[:, 0], np.zeros((1, 1), np.float32))
    rules = ManyThresholds(
        thresholds=(0.2, 0.7), max_gap=0, widen=0, suppression="fuse", tiou=0.3, fuse_temperature=1.0
    )
    detected = segments(scores, np.array([8]), rules)
    weight = np.exp(0.75 - 0.5)  # contrasts: 0.75 - 0 of the four, 1 - 0.5 of the two
    assert detected.first.tolist() == pytest.approx([(1 * weight + 2) / (weight + 1)])
    assert (detected.last + 1).tolist() == pytest.approx([(5 * weight + 4) / (weight + 1)])
    assert detected.score.tolist() == [0.75]
    times = SnippetGrid(8.0, 16).seconds(detected.first, detected.last)
    assert [float(each[0]) for each in times] == pytest.approx([2 * detected.first[0], 2 * (detected.last[0] + 1)])


@pytest.mark.parametrize("suppression", ["none", "hard", "vote", "fuse", "soft"])
def test_the_least_score_and_the_most_detections(scores: Scores, suppression: Any) -> None:
    rules = ManyThresholds(max_gap=0, widen=0, suppression=suppression, tiou=0.3)
    every = segments(scores, LENGTHS, rules)
    least = float(np.sort(every.score)[len(every.score) // 2])
    high = segments(scores, LENGTHS, replace(rules, min_score=least))
    assert rows(high) == [row for row in rows(every) if row[4] >= least]
    assert 0 < len(high.score) < len(every.score)
    for most in (1, 3, 10_000):
        expected: list[Any] = []
        for video in range(3):
            own = [row for row in rows(every) if row[0] == video]
            best = sorted(range(len(own)), key=lambda index: (-own[index][4], index))[:most]
            expected += [own[index] for index in sorted(best)]
        assert rows(segments(scores, LENGTHS, replace(rules, max_detections=most))) == expected


@pytest.mark.parametrize("suppression", ["none", "hard", "vote", "fuse", "soft"])
def test_nothing_comes_of_nothing(suppression: Any) -> None:
    none = np.zeros(0, np.float32)
    for videos in (0, 2):
        scores = Scores(np.zeros((0, 3), np.float32), none, none, np.zeros((videos, 3), np.float32))
        for kind in (OneThreshold, ManyThresholds):
            rules = kind(suppression=suppression, min_score=0.1, max_detections=3)
            assert len(segments(scores, np.zeros(videos, np.int64), rules).score) == 0


def rows(found: Segments) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in found), strict=True))

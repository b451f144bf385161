"""What is judged without times: by hand, and against plain NumPy."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from refineloc.runtime.segments.values import Scores, Segments
from refineloc.training.criterion import agreement, attention_order, contrast, video_loss, whole_video_share


def scores_of(foreground: npt.ArrayLike, class_scores: npt.ArrayLike, videos: int = 1) -> Scores:
    fg = np.asarray(foreground, dtype=np.float32)
    scores = np.asarray(class_scores, dtype=np.float32)
    return Scores(scores, fg, np.full_like(fg, 1 / len(fg)), np.full((videos, scores.shape[1]), 0.25, np.float32))


def segments_of(*rows: tuple[float, ...]) -> Segments:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    video, label = columns[:2].astype(np.int64)
    return Segments(video, label, columns[2], columns[3], columns[4])


def test_the_order_by_hand() -> None:
    """Four snippets: the lower half says 0.5 and 0.1 of the true class, the highest one 0.9; 4 // 10 is at least 1."""
    scores = scores_of([0.1, 0.9, 0.2, 0.8], [[0.5, 0.5], [0.9, 0.1], [0.1, 0.9], [0.7, 0.3]])
    lengths, targets = np.array([4]), np.array([[1.0, 0.0]], np.float32)
    assert attention_order(scores, lengths, targets) == pytest.approx(-math.log(0.3) + math.log(0.9), abs=1e-6)
    # Inverted: the highest says 0.1, the lower half 0.9 and 0.7.
    scores = scores_of([0.3, 0.1, 0.9, 0.2], scores.class_scores)
    assert attention_order(scores, lengths, targets) == pytest.approx(-math.log(0.8) + math.log(0.1), abs=1e-6)
    # Scores that sum to less than 1 mean the same as their shares.
    halved = scores._replace(class_scores=scores.class_scores * np.float32(0.5))
    assert attention_order(halved, lengths, targets) == pytest.approx(attention_order(scores, lengths, targets))


def test_a_foreground_that_is_the_same_everywhere_has_no_order() -> None:
    varied = [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]
    targets = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    scores = scores_of([1.0] * 6, varied + varied, videos=2)
    assert attention_order(scores, np.array([3, 3]), targets) == 0
    # A mean over the videos, one of which adds nothing; one snippet and none add nothing either.
    half = scores_of([1.0] * 3 + [0.9, 0.1, 0.5], varied + varied, videos=2)
    alone = attention_order(scores_of([0.9, 0.1, 0.5], varied), np.array([3]), targets[:1])
    assert alone > 1
    assert attention_order(half, np.array([3, 3]), targets) == pytest.approx(alone / 2)
    assert attention_order(scores_of([0.5], varied[:1], videos=2), np.array([0, 1]), targets) == 0


def test_the_order_equals_plain_numpy(rng: np.random.Generator) -> None:
    lengths = np.array([1, 2, 3, 9, 19, 20, 21, 57])
    foreground = rng.random(lengths.sum()).astype(np.float32)
    class_scores = rng.dirichlet(np.ones(4), lengths.sum()).astype(np.float32)
    targets = rng.dirichlet(np.ones(4), len(lengths)).astype(np.float32)
    expected, first = [], 0
    for length, target in zip(lengths.tolist(), targets, strict=True):
        order = sorted(range(length), key=lambda t: foreground[first + t])
        low, high = order[: max(length // 2, 1)], order[length - max(length // 10, 1) :]
        losses = [
            -sum(y * math.log(np.mean([class_scores[first + t, n] for t in part])) for n, y in enumerate(target))
            for part in (low, high)
        ]
        expected.append(losses[0] - losses[1] if length > 1 else 0.0)
        first += length
    got = attention_order(scores_of(foreground, class_scores, len(lengths)), lengths, targets)
    assert got == pytest.approx(np.mean(expected), abs=1e-5)
    assert np.std(expected) > 0.1


def test_the_video_loss_is_the_cross_entropy_of_the_video_scores() -> None:
    scores = scores_of([0.5], [[0.5, 0.5]], videos=1)._replace(video_scores=np.array([[0.2, 0.8]], np.float32))
    assert video_loss(scores, np.array([[0.5, 0.5]], np.float32)) == pytest.approx(-0.5 * math.log(0.2 * 0.8))


def test_the_contrast_by_hand() -> None:
    """Snippets 2 to 5 of ten, ringed by one at each side; then the first two, which have a ring at one side."""
    foreground = [0.0, 0.25, 1.0, 1.0, 0.5, 0.5, 0.75, 0.0, 0.0, 0.0]
    scores, lengths = scores_of(foreground, [[1.0]] * 10), np.array([10])
    assert contrast(scores, lengths, segments_of((0, 0, 2, 5, 1))) == pytest.approx(0.75 - 0.5)
    assert contrast(scores, lengths, segments_of((0, 0, 0, 1, 1))) == pytest.approx(0.125 - 1.0)
    both = segments_of((0, 0, 2, 5, 1), (0, 0, 0, 1, 1))
    assert contrast(scores, lengths, both) == pytest.approx((0.25 - 0.875) / 2)
    assert contrast(scores, lengths, segments_of((0, 0, 0, 9, 1))) == pytest.approx(0.4)
    # Fused segments end within snippets, which are inside where their centres are.
    assert contrast(scores, lengths, segments_of((0, 0, 1.6, 5.4, 1))) == pytest.approx(0.25)
    assert contrast(scores, lengths, segments_of()) == 0


def test_the_agreement_by_hand() -> None:
    """Best tIoU of each with those of the same video and class: 0.5, none of its class, 1."""
    ours = segments_of((0, 0, 0, 3, 1), (0, 1, 0, 3, 1), (1, 0, 5, 9, 1))
    others = segments_of((0, 0, 2, 3, 1), (0, 0, 3, 9, 1), (1, 0, 5, 9, 1), (1, 1, 0, 3, 1))
    assert agreement(ours, others) == pytest.approx((0.5 + 0 + 1) / 3)
    assert agreement(ours, segments_of()) == 0
    assert agreement(segments_of(), others) == 0


def test_whole_videos() -> None:
    lengths = np.array([10, 20])
    assert whole_video_share(segments_of((0, 0, 0, 9, 1), (0, 0, 0, 8, 1), (1, 0, 1, 19, 1)), lengths) == 2 / 3
    assert whole_video_share(segments_of(), lengths) == 0

"""How good a model is, judged without times: by the labels of videos, and by its own detections.

The attention can fail in two ways that the losses do not show: it can be the same everywhere (saturated), or high where
no action is (inverted). `attention_order` is above 1 for a good attention, 0 to 1 for a saturated one and about -1 for
an inverted one (18 runs on speech in noise). The other figures are candidates for choosing an iteration.
"""

import numpy as np
import numpy.typing as npt

from refineloc.runtime.segments.values import WHOLE_VIDEO, Scores, Segments

__all__ = ["agreement", "attention_order", "contrast", "video_loss", "whole_video_share"]

Lengths = npt.NDArray[np.int64]
_RING = 0.25  # of a segment's length, at each side


def attention_order(scores: Scores, lengths: Lengths, targets: npt.NDArray[np.float32]) -> float:
    """Do snippets of high foreground name a video's classes better than those of low foreground?

    The cross-entropy of the labels with the mean C̄ of the half of a video's snippets with the lowest foreground, less
    that of the tenth with the highest; at least one snippet each, rounded down; of equal foreground the earlier snippet
    is the lower. The mean over the videos that have a label; one whose foreground is the same everywhere adds 0.

    Args:
        scores: of S snippets. The mean C̄ is divided by its sum, as the C̄ of some base models sum to less than 1.
        lengths: int64 [V].
        targets: labels [V, N], each row sums to 1, or to 0 where a video has none.
    """
    ends = np.cumsum(lengths)
    total = 0.0
    for target, first, end in zip(targets, (ends - lengths).tolist(), ends.tolist(), strict=True):
        foreground = scores.foreground[first:end]
        if not target.any() or not len(foreground) or foreground.min() == foreground.max():
            continue
        ranked = scores.class_scores[first:end][np.argsort(foreground, kind="stable")].astype(np.float64)
        low, high = ranked[: max(len(ranked) // 2, 1)], ranked[-max(len(ranked) // 10, 1) :]
        total += _cross_entropy(low.mean(axis=0), target) - _cross_entropy(high.mean(axis=0), target)
    return total / max(int(targets.any(axis=1).sum()), 1)


def video_loss(scores: Scores, targets: npt.NDArray[np.float32]) -> float:
    """Cross-entropy of the videos' labels [V, N] with ŷ, a mean over the videos that have a label."""
    pairs = zip(scores.video_scores, targets, strict=True)
    return float(np.mean([_cross_entropy(row, target) for row, target in pairs if target.any()]))


def contrast(scores: Scores, lengths: Lengths, segments: Segments) -> float:
    """The mean foreground inside a segment less that beside it, a mean over all segments; 0 without any.

    Beside is a quarter of the segment's length at each side, rounded up, as far as the video has it; a segment that is
    the whole video has 0 beside.
    """
    if not len(segments.first):
        return 0.0
    # A snippet is inside where its centre is: fused segments end within snippets.
    inner_first, inner_last = (np.ceil(part - 0.5).astype(np.int64) for part in (segments.first, segments.last))
    starts = (np.cumsum(lengths) - lengths)[segments.video]
    sums = np.concatenate([[0.0], np.cumsum(scores.foreground, dtype=np.float64)])
    size = np.maximum(inner_last + 1 - inner_first, 1)
    ring = np.ceil(_RING * size).astype(np.int64)
    first, end = np.maximum(inner_first - ring, 0), np.minimum(inner_first + size + ring, lengths[segments.video])
    inside = sums[starts + inner_first + size] - sums[starts + inner_first]
    beside = sums[starts + end] - sums[starts + first] - inside
    return float(np.mean(inside / size - beside / np.maximum(end - first - size, 1)))


def agreement(segments: Segments, others: Segments) -> float:
    """The mean over segments of the best tIoU with another model's of the same video and class; 0 without any."""
    if not len(segments.first):
        return 0.0
    classes = 1 + max(int(part.label.max(initial=0)) for part in (segments, others))
    groups, of_others = (part.video * classes + part.label for part in (segments, others))
    total = 0.0
    for group in np.unique(groups):
        own, rivals = segments.take(np.flatnonzero(groups == group)), others.take(np.flatnonzero(of_others == group))
        shared = np.minimum.outer(own.last, rivals.last) + 1 - np.maximum.outer(own.first, rivals.first)
        united = np.maximum.outer(own.last, rivals.last) + 1 - np.minimum.outer(own.first, rivals.first)
        total += float(np.max(np.maximum(shared, 0) / united, axis=1, initial=0.0).sum())
    return total / len(segments.first)


def whole_video_share(segments: Segments, lengths: Lengths) -> float:
    """The share of the segments that cover more than 90 % of their video; 0 without any."""
    covered = (segments.last + 1 - segments.first) > WHOLE_VIDEO * lengths[segments.video]
    return float(covered.mean()) if len(covered) else 0.0


def _cross_entropy(scores: npt.NDArray[np.floating], target: npt.NDArray[np.float32]) -> float:
    """Of a label with scores of classes, which are divided by their sum."""
    shares = np.asarray(scores, dtype=np.float64) / max(float(scores.sum()), 1e-30)
    return -float(np.sum(target * np.log(np.maximum(shares, 1e-30))))

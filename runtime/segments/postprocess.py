"""From scores to segments: thresholds, grouping, scoring, widening and suppression (docs/explanation/method.md).

Training uses this too: segment-based pseudo labels are detections.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.proposals import detect_proposals
from refineloc._ext.segments import detect_segments
from refineloc.runtime.segments.rules import Boundaries, ManyThresholds, OneThreshold, Rules
from refineloc.runtime.segments.values import Scores, Segments

__all__ = ["segments"]


def segments(
    scores: Scores, lengths: npt.NDArray[np.int64], rules: Rules, known: npt.NDArray[np.bool_] | None = None
) -> Segments:
    """Detect the segments of a packed batch.

    Args:
        scores: of S snippets.
        lengths: snippets of each video, int64 [V], which sum to S.
        rules: the settings of detection; their type is the kind of rule.
        known: the classes of each video, bool [V, N], where they are known: these are taken, whatever ŷ, `top_k` and
            `class_threshold` say. ŷ stays in the score. None: ŷ chooses.

    Raises:
        ValueError: shapes or dtypes that do not fit together, no points where the rules take the model's own segments,
            or NaN (a defect of the caller, not of a user's file).
    """
    video_scores = _video_scores(scores, lengths, rules)
    chosen: dict[str, Any] = {"top_k": rules.top_k}
    if known is not None:
        video_scores = np.where(known, video_scores, np.float32(-np.inf))
        chosen = {"top_k": max(known.shape[1], 1)}
    elif not isinstance(rules, OneThreshold):
        chosen["class_threshold"] = rules.class_threshold
    if isinstance(rules, Boundaries):
        columns = _of_points(scores, video_scores, lengths, rules, chosen)
    elif isinstance(rules, ManyThresholds):
        columns = detect_proposals(
            scores.class_scores,
            scores.foreground,
            video_scores,
            lengths,
            thresholds=rules.thresholds,
            **chosen,
            curve=rules.curve,
            scoring=rules.scoring,
            scored_on=rules.scored_on,
            outer=rules.outer,
            length_power=rules.length_power,
            video_term=rules.video_term,
            video_weight=rules.video_weight,
            max_gap=rules.max_gap,
            widen=rules.widen,
        )
    else:
        columns = detect_segments(
            scores.class_scores,
            scores.foreground,
            scores.attention,
            video_scores,
            lengths,
            profile=rules.profile,
            alpha_a=rules.alpha_a,
            alpha_c=rules.alpha_c,
            **chosen,
            max_gap=rules.max_gap,
            widen=rules.widen,
        )
    return _limited(_suppressed(Segments(*columns), rules), rules)


def _of_points(
    scores: Scores,
    video_scores: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.int64],
    rules: Boundaries,
    chosen: dict[str, Any],
) -> tuple[npt.NDArray[Any], ...]:
    """The segments that the model finds itself, before suppression, as columns."""
    from refineloc._ext.points import detect_points

    if scores.points is None:
        raise ValueError("scores: the profile 'boundaries' needs points")
    points = scores.points
    return detect_points(
        points.scores,
        points.distances[:, 0],
        points.distances[:, 1],
        video_scores,
        lengths,
        **chosen,
        least=rules.point_score,
        levels=max(points.levels(lengths), 1),  # of videos without snippets there are no points
    )


def _video_scores(scores: Scores, lengths: npt.NDArray[np.int64], rules: Rules) -> npt.NDArray[np.float32]:
    """ŷ of the rules."""
    if not isinstance(rules, ManyThresholds) or not rules.video_share:
        return scores.video_scores
    from refineloc._ext.video_scores import best_snippet_scores

    return best_snippet_scores(scores.class_scores, scores.foreground, lengths, share=rules.video_share)


def _suppressed(detected: Segments, rules: Rules) -> Segments:
    """What is left where segments of a class of a video overlap, in the order of `detected`."""
    if rules.suppression == "none" or not len(detected.score):
        return detected
    from refineloc._ext import nms

    if rules.suppression.startswith("soft"):  # which cannot lower a negative score
        detected = detected.take(np.flatnonzero(detected.score >= 0))
    # Snippets first..last cover [first, last + 1).
    columns = detected.first, detected.last + 1, detected.score, nms.groups(detected.video, detected.label)
    if rules.suppression == "hard":
        return detected.take(nms.hard_nms(*columns, tiou_threshold=rules.tiou))
    if rules.suppression == "vote":
        kept, score = nms.vote_nms(*columns, tiou_threshold=rules.tiou)
        return detected.take(kept)._replace(score=score)
    if rules.suppression in ("fuse", "soft-vote"):
        kept, start, end, chance = nms.fuse_nms(*columns, tiou_threshold=rules.tiou, temperature=rules.fuse_temperature)
        detected = detected.take(kept)._replace(first=start, last=end - 1)
        if rules.suppression == "fuse":
            return detected
        detected = detected._replace(score=chance)
        columns = start, end, chance, columns[3][kept]
    least = max(rules.min_score or 0.0, 0.0)
    kept, score = nms.soft_nms(*columns, sigma=rules.soft_sigma, min_score=least)
    return detected.take(kept)._replace(score=score)


def _limited(detected: Segments, rules: Rules) -> Segments:
    """Those of the least score, and the best of each video."""
    if rules.min_score is not None:
        detected = detected.take(np.flatnonzero(detected.score >= rules.min_score))
    if rules.max_detections:
        order = np.lexsort((-detected.score, detected.video))  # stable: of equal scores the earlier
        begin = np.searchsorted(detected.video, detected.video)
        best = np.arange(len(order)) - begin[order] < rules.max_detections
        detected = detected.take(np.sort(order[best]))
    return detected

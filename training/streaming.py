"""A rule for running videos, frozen from what the offline rule finds in the training videos.

A rule of many thresholds needs the least and largest foreground of the whole video, and scores that compare with all
other segments. A running video has neither. The frozen rule has one threshold on the foreground and one on the class
activation instead (`OneThreshold`), which stay the same in every video. No times are used.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.model.metadata import SUMMED_BASE
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import Boundaries, ManyThresholds, OneThreshold, Rules
from refineloc.runtime.segments.values import Scores, Segments
from refineloc.training.criterion import Lengths, agreement
from refineloc.training.settings.config import Config

__all__ = ["frozen_rule", "needs_frozen_rule", "streaming_record"]

_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)  # of the foreground, from its least (0) to its largest (1) in a video
_SHARES = (0.1, 0.25, 0.5, 0.75)  # of the snippets inside all detections, those with a lower class activation
_MOST_CLASSES = 3  # the many-threshold rule drops unlikely classes of its top k later, which the frozen one cannot
_BEST = 0.5  # least score of the detections to be agreed with, as a share of the best of their video


def needs_frozen_rule(config: Config) -> bool:
    """Whether models of this run stream, but not by their own rule of detection."""
    return config.model.base == SUMMED_BASE and isinstance(config.detection, ManyThresholds)


def streaming_record(rules: Rules, scores: Scores, lengths: Lengths) -> dict[str, Any]:
    """What the record of an iteration has of it: `streaming`, the settings of the rule; nothing where there is none."""
    rule = frozen_rule(rules, scores, lengths)
    return {} if rule is None else {"streaming": asdict(rule)}


def frozen_rule(rules: Rules, scores: Scores, lengths: Lengths) -> OneThreshold | None:
    """The single thresholds that come nearest to a rule's best detections.

    α_A is one of five levels between the least and the largest foreground of a video, a mean over the videos. α_C is
    one of four quantiles of the class activation inside the detections. Of all pairs the one is taken that finds the
    best detections best: the mean of the best tIoU with one of the same class and video (`agreement`), the first of
    equals. Weak detections, of which there are many more, do not count: with them, α_C came out too low.

    Args:
        rules: the offline rule.
        scores: of the training videos, S snippets.
        lengths: int64 [V].

    Returns:
        A rule with the same `max_gap` and `widen`, and at most 3 classes a video; None where the offline rule finds
        nothing.
    """
    detected = segments(scores, lengths, rules)
    if not len(detected.first):
        return None
    best = _best(detected)
    assert not isinstance(rules, Boundaries)  # for the type checker: a student does not stream
    begins = (np.cumsum(lengths) - lengths)[lengths > 0]
    low, high = (part.reduceat(scores.foreground, begins).mean(dtype=np.float64) for part in (np.minimum, np.maximum))
    candidates = [
        OneThreshold(
            alpha_a=round(float(1 - low - level * (high - low)), 6),
            alpha_c=round(float(alpha_c), 6),
            top_k=min(rules.top_k, _MOST_CLASSES),
            max_gap=rules.max_gap,
            widen=rules.widen,
        )
        for level in _LEVELS
        for alpha_c in np.quantile(_inside(detected, scores, lengths), _SHARES)
    ]
    return max(candidates, key=lambda rule: agreement(best, segments(scores, lengths, rule)))


def _best(detected: Segments) -> Segments:
    """The detections with at least half the score of the best of their video."""
    videos = 1 + int(detected.video.max(initial=0))
    highest = np.full(videos, -np.inf)
    np.maximum.at(highest, detected.video, detected.score)
    # Scores may be negative: of a video whose best one is, the best alone is kept.
    least = np.where(highest > 0, _BEST * highest, highest)
    return detected.take(np.flatnonzero(detected.score >= least[detected.video]))


def _inside(detected: Segments, scores: Scores, lengths: Lengths) -> npt.NDArray[np.float32]:
    """The activation of the class of each detection in each of its snippets, all after one another."""
    begins = (np.cumsum(lengths) - lengths)[detected.video]
    first, last = (begins + np.rint(part).astype(np.int64) for part in (detected.first, detected.last))
    columns = zip(first.tolist(), last.tolist(), detected.label.tolist(), strict=True)
    return np.concatenate([scores.class_scores[begin : end + 1, label] for begin, end, label in columns])

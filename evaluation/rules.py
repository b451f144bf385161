"""Two rules of detection on the same scores: what one loses against the other, with or without known times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.average_precision import evaluate
from refineloc.evaluation.matching import DEFAULT_TIOUS, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import Rules
from refineloc.runtime.segments.values import Scores, Segments

__all__ = ["RuleComparison", "compare_rules", "detect"]


@dataclass(frozen=True, slots=True)
class RuleComparison:
    """How far a rule of detection is from another.

    Attributes:
        detections, other_detections: how many the first and the other rule find.
        agreement: of the first rule's detections, the mean of the best tIoU with one of the other's of the same class
            and video, 0 to 1; 1 where the first finds none.
        map, other_map: average mAP of the two, fractions of 1; None without known times.
    """

    detections: int
    other_detections: int
    agreement: float
    map: float | None = None
    other_map: float | None = None


def compare_rules(
    scores: Mapping[str, Scores],
    grids: Mapping[str, SnippetGrid],
    classes: tuple[str, ...],
    rules: Rules,
    other: Rules,
    annotations: Annotations | None = None,
    *,
    tious: Sequence[float] = DEFAULT_TIOUS,
) -> RuleComparison:
    """Detect by two rules and compare.

    Args:
        scores: of each video alone.
        grids: of the same videos.
        classes: names, in the order of the score columns.
        rules, other: such as the offline rule and the one for streaming.
        annotations: ground truth with times of these videos, None if not known.
        tious: of average mAP.
    """
    detections, others = (detect(scores, grids, classes, which) for which in (rules, other))
    best = [_best_tious(detections[name], others[name]) for name in scores]
    every = np.concatenate([*best, np.empty(0)])
    maps: list[float | None] = [None, None]
    if annotations is not None:
        maps = [evaluate(match_detections(each, annotations, tious)).average_mAP for each in (detections, others)]
    return RuleComparison(
        sum(map(len, detections.values())),
        sum(map(len, others.values())),
        float(every.mean()) if len(every) else 1.0,
        *maps,
    )


def detect(
    scores: Mapping[str, Scores], grids: Mapping[str, SnippetGrid], classes: tuple[str, ...], rules: Rules
) -> dict[str, Detections]:
    """The detections of a rule, of videos whose scores are known (see `compare_rules`)."""
    return {
        name: Detections.from_segments(grids[name], _segments(each, rules), classes) for name, each in scores.items()
    }


def _segments(scores: Scores, rules: Rules) -> Segments:
    return segments(scores, np.array([len(scores.foreground)], dtype=np.int64), rules)


def _best_tious(detections: Detections, others: Detections) -> npt.NDArray[np.float64]:
    """The best tIoU of each of n detections with any of m others of its class, [n]."""
    if not len(others):
        return np.zeros(len(detections))
    inside = np.minimum(detections.end[:, None], others.end) - np.maximum(detections.start[:, None], others.start)
    union = np.maximum(detections.end[:, None], others.end) - np.minimum(detections.start[:, None], others.start)
    same = detections.label_index[:, None] == others.label_index
    best: npt.NDArray[np.float64] = np.where(same & (inside > 0), inside / union, 0.0).max(axis=1)
    return best

"""From scores to segments: thresholds, grouping, scoring, widening and suppression (docs/method.md).

Training uses this too: segment-based pseudo labels are detections.
"""

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from refineloc._ext.proposals import detect_proposals
from refineloc._ext.segments import detect_segments
from refineloc.runtime.segments.rules import ManyThresholds, Rules
from refineloc.runtime.segments.values import Scores, Segments

__all__ = ["segments"]


def segments(scores: Scores, lengths: npt.NDArray[np.int64], rules: Rules) -> Segments:
    """Detect the segments of a packed batch.

    Args:
        scores: of S snippets.
        lengths: snippets of each video, int64 [V], which sum to S.
        rules: the settings of detection; their type is the kind of rule.

    Raises:
        ValueError: shapes or dtypes that do not fit together, or NaN (a defect of the caller, not of a user's file).
    """
    settings = asdict(rules)  # the kernels call them by the same names
    nms = settings.pop("nms")
    if isinstance(rules, ManyThresholds):
        del settings["profile"]
        columns = detect_proposals(scores.class_scores, scores.video_scores, lengths, **settings)
    else:
        columns = detect_segments(*scores, lengths, **settings)
    detected = Segments(*columns)
    return detected if nms is None else _suppressed(detected, nms)


def _suppressed(detected: Segments, tiou: float) -> Segments:
    from refineloc._ext.nms import hard_nms

    # Snippets first..last cover [first, last + 1); the order of the survivors stays that of `detected`.
    classes = int(detected.label.max(initial=0)) + 1
    group = detected.video * classes + detected.label
    kept = hard_nms(
        detected.first.astype(np.float64),
        (detected.last + 1).astype(np.float64),
        detected.score,
        group,
        tiou_threshold=tiou,
    )
    return detected.take(np.sort(kept))

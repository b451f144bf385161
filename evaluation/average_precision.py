"""Mean average precision, as ActivityNet's evaluation kit computes it (docs/explanation/evaluation.md)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import average_precision
from refineloc.evaluation.matching import Matching

__all__ = ["Evaluation", "evaluate", "video_scores"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Average precision by tIoU threshold and class.

    Attributes:
        tious: thresholds, float64 [K].
        classes: names, N of them: those that the ground truth has.
        ap: float64 [K, N], fractions of 1.
        instances: annotations of each class, int64 [N].
    """

    tious: npt.NDArray[np.float64]
    classes: tuple[str, ...]
    ap: npt.NDArray[np.float64]
    instances: npt.NDArray[np.int64]

    @property
    def mAP(self) -> npt.NDArray[np.float64]:
        """Mean over classes at each threshold, [K]."""
        means: npt.NDArray[np.float64] = self.ap.mean(axis=1)
        return means

    @property
    def average_mAP(self) -> float:
        """Mean over thresholds of the mAP."""
        return float(self.mAP.mean())

    def to_json(self) -> dict[str, Any]:
        """{"average_mAP", "mAP": {"0.50": ...}, "per_class": {label: {"average", "AP": {...}, "instances"}}}."""
        keys = [f"{tiou:.2f}" for tiou in self.tious]
        return {
            "average_mAP": self.average_mAP,
            "mAP": dict(zip(keys, self.mAP.tolist(), strict=True)),
            "per_class": {
                label: {
                    "average": float(self.ap[:, index].mean()),
                    "AP": dict(zip(keys, self.ap[:, index].tolist(), strict=True)),
                    "instances": int(self.instances[index]),
                }
                for index, label in enumerate(self.classes)
            },
        }


def evaluate(matching: Matching, *, interpolated: bool = True) -> Evaluation:
    """Average precision of matched detections.

    Args:
        matching: detections and ground truth, by `match_detections`.
        interpolated: as ActivityNet's kit and VOC 2011; False: the mean over annotations of the precision at each true
            positive. W-TALC's code takes that mean too, of other matches (docs/explanation/evaluation.md).
    """
    truth = matching.truth
    ap = average_precision(
        matching.hits, matching.class_bounds, truth.instances.astype(np.float64), interpolated=interpolated
    )
    return Evaluation(matching.tious, truth.classes, ap, truth.instances)


def video_scores(matching: Matching) -> npt.NDArray[np.float64]:
    """How well each video's annotations are found: AP within the video, mean over its classes and thresholds.

    Returns:
        float64 [videos of the annotations]; NaN for a video without annotations.
    """
    truth, videos = matching.truth, len(matching.annotations)
    group = np.where(matching.video >= 0, truth.group_of(matching.video, matching.label), -1)
    order = np.argsort(group, kind="stable")  # within a group still by falling score
    bounds = np.searchsorted(group[order], np.arange(len(truth.keys) + 1))
    ap = average_precision(matching.hits[:, order], bounds, np.diff(truth.bounds).astype(np.float64)).mean(axis=0)
    video = truth.keys // len(truth.classes)
    count = np.bincount(video, minlength=videos)
    total = np.bincount(video, weights=ap, minlength=videos)
    scores = np.full(videos, np.nan)
    np.divide(total, count, out=scores, where=count > 0)
    return scores

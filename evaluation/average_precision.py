"""Mean average precision of detections, as ActivityNet's evaluation kit computes it (docs/evaluation.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import average_precision
from refineloc.evaluation.matching import DEFAULT_TIOUS, Regions, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Average precision by tIoU threshold and class.

    Attributes:
        tious: thresholds, float64 [K].
        classes: names, N of them: those that the ground truth has.
        ap: float64 [K, N], fractions of 1.
        instances: annotations of each class, int64 [N].
        unknown_labels: detections whose class the ground truth does not have; they are left out, as the kit does.
        unknown_videos: videos of the detections that the ground truth does not have; theirs are false positives.
    """

    tious: npt.NDArray[np.float64]
    classes: tuple[str, ...]
    ap: npt.NDArray[np.float64]
    instances: npt.NDArray[np.int64]
    unknown_labels: int
    unknown_videos: int

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


def evaluate(
    detections: Mapping[str, Detections],
    annotations: Annotations,
    tious: Sequence[float] = DEFAULT_TIOUS,
    *,
    drop_repeated: bool = False,
    ambiguous: Regions | None = None,
    interpolated: bool = True,
) -> Evaluation:
    """Average precision of detections against ground truth.

    Annotations of length zero are dropped, as the field does. Detections of equal score keep the order that the kit's
    sort gives small classes: the later row first.

    Args:
        detections: by video.
        annotations: with times.
        tious: thresholds in (0, 1].
        drop_repeated: drop annotations that repeat an earlier one of their class within 0.001 s, as OpenTAD and
            ActionFormer do.
        ambiguous: regions by video, as of THUMOS14's Ambiguous list: a false positive that overlaps one counts neither
            way.
        interpolated: as ActivityNet's kit and VOC 2011; False: the mean precision at true positives, as W-TALC's.

    Raises:
        AnnotationError: no times in the ground truth.
        ConfigError: a threshold out of range.
    """
    matching = match_detections(detections, annotations, tious, drop_repeated=drop_repeated)
    truth = matching.truth
    hits = matching.hits(annotations, ambiguous or {})
    ap = average_precision(hits, matching.class_bounds, truth.instances.astype(np.float64), interpolated=interpolated)
    return Evaluation(
        matching.tious, truth.classes, ap, truth.instances, matching.unknown_labels, matching.unknown_videos
    )

"""What kinds of errors the false positives are, and what each kind costs (DETAD, section 4).

The kind of a detection that takes no annotation depends on the annotation of its video that it overlaps most, of any
class, and on their tIoU. Of equal overlaps, one of the detection's class goes first.

                       the same class       another class
    tIoU >= evaluated  double detection     wrong label
    tIoU >= 0.1        localization         confusion
    below                        background

G is the number of annotations of a class. The profile looks at the best G detections of each class (1G), the next G
(2G) and so on to 10G. Weaker detections are left out of this analysis.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.diagnosis.normalised_precision import normalised_average_precision
from refineloc.evaluation.matching import Matching

__all__ = ["ERROR_TYPES", "FalsePositives", "analyse_false_positives"]

ERROR_TYPES = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")
_TRUE, _DOUBLE, _WRONG, _LOCALIZATION, _CONFUSION, _BACKGROUND = range(6)

GROUPS = 10
LEAST_TIOU = 0.1
_PAIRS = 4_000_000  # detections times annotations whose overlaps are held at once


@dataclass(frozen=True, slots=True, eq=False)
class FalsePositives:
    """The profile of false positives, and the gain from removing each type.

    Attributes:
        share: of each of `ERROR_TYPES` among the detections of each group, mean over thresholds, float64 [10, 6]; NaN
            for a group that no class fills.
        predictions: detections in each group, int64 [10].
        average_mAP_N: of the detections in the ten groups, mean over thresholds and classes.
        gain: by which average mAP_N rises when the detections of a type are removed, for all but the first, [5].
    """

    share: npt.NDArray[np.float64]
    predictions: npt.NDArray[np.int64]
    average_mAP_N: float
    gain: npt.NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """{"predictions": [10], "share": {type: [10]}, "average_mAP_N", "gain": {type: x}}; null where NaN."""
        columns = [[None if np.isnan(value) else value for value in column] for column in self.share.T.tolist()]
        return {
            "predictions": self.predictions.tolist(),
            "share": dict(zip(ERROR_TYPES, columns, strict=True)),
            "average_mAP_N": self.average_mAP_N,
            "gain": dict(zip(ERROR_TYPES[1:], self.gain.tolist(), strict=True)),
        }


def analyse_false_positives(matching: Matching) -> FalsePositives:
    """The false-positive profile of matched detections."""
    truth = matching.truth
    counts = np.diff(matching.class_bounds)
    rank = np.arange(len(matching.score)) - np.repeat(matching.class_bounds[:-1], counts)
    group = rank // np.repeat(truth.instances, counts)
    kept = np.flatnonzero(group < GROUPS)  # true positives do not depend on what comes after them
    group = group[kept]
    errors = _error_types(matching, kept)

    predictions = np.bincount(group, minlength=GROUPS)
    share = np.full((GROUPS, len(ERROR_TYPES)), np.nan)
    for index in np.flatnonzero(predictions):
        members = errors[:, group == index]
        share[index] = np.bincount(members.ravel(), minlength=len(ERROR_TYPES)) / members.size

    class_bounds = np.append(0, np.cumsum(np.minimum(counts, GROUPS * truth.instances)))
    instances = float(truth.instances.mean())

    def average_mAP_N(counted: npt.NDArray[np.bool_]) -> float:
        true, false = errors == _TRUE, (errors != _TRUE) & counted
        return float(normalised_average_precision(true, false, class_bounds, truth.instances, instances).mean())

    base = average_mAP_N(np.ones(errors.shape, dtype=np.bool_))
    gain = np.array([average_mAP_N(errors != kind) - base for kind in range(1, len(ERROR_TYPES))])
    return FalsePositives(share, predictions, base, gain)


def _error_types(matching: Matching, kept: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Index into `ERROR_TYPES` of the kept detections at every threshold, [K, kept]."""
    tiou, same_class = _largest_overlap(matching, kept)
    above = tiou >= matching.tious[:, None]
    near = np.where(same_class, np.uint8(_LOCALIZATION), np.uint8(_CONFUSION))
    errors = np.where(tiou >= LEAST_TIOU, near, np.uint8(_BACKGROUND))
    errors = np.where(above, np.where(same_class, np.uint8(_DOUBLE), np.uint8(_WRONG)), errors)
    return np.where(matching.annotation[:, kept] >= 0, np.uint8(_TRUE), errors)


def _largest_overlap(
    matching: Matching, kept: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The largest tIoU of each kept detection with an annotation of its video, and whether its class reaches it."""
    truth, label = matching.truth, matching.label[kept]
    truth_video, truth_label = truth.video, truth.label
    first = np.searchsorted(truth_video, matching.video[kept], side="left")
    count = np.searchsorted(truth_video, matching.video[kept], side="right") - first

    largest, same_largest = np.zeros(len(kept)), np.zeros(len(kept))
    rows = np.flatnonzero(count)  # a detection in a video without annotations overlaps nothing
    for part in np.split(rows, np.flatnonzero(np.diff(np.cumsum(count[rows]) // _PAIRS)) + 1):
        if not len(part):
            continue
        bounds = np.append(0, np.cumsum(count[part]))
        row = np.repeat(part, count[part])
        index = np.arange(bounds[-1]) - np.repeat(bounds[:-1] - first[part], count[part])
        start, end = matching.start[kept[row]], matching.end[kept[row]]
        inside = np.maximum(np.minimum(end, truth.end[index]) - np.maximum(start, truth.start[index]), 0.0)
        union = (truth.end[index] - truth.start[index]) + (end - start) - inside
        tiou = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
        largest[part] = np.maximum.reduceat(tiou, bounds[:-1])
        same_largest[part] = np.maximum.reduceat(np.where(truth_label[index] == label[row], tiou, 0.0), bounds[:-1])
    return largest, same_largest >= largest

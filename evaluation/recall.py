"""Average recall of class-agnostic proposals: what share of the annotations do the best few of each video cover?"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.matching import DEFAULT_TIOUS
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import AnnotationError, ConfigError

__all__ = ["average_recall"]


def average_recall(
    detections: Mapping[str, Detections],
    annotations: Annotations,
    numbers: Sequence[int] = (1, 5, 10, 50, 100),
    tious: Sequence[float] = DEFAULT_TIOUS,
) -> npt.NDArray[np.float64]:
    """Average recall at AN proposals a video (AR@AN), mean over tIoU thresholds; labels are not looked at.

    An annotation is recalled at AN where one of the AN best detections of its video, of any class, has tIoU >=
    threshold with it; several annotations may share a detection. Annotations of length zero are dropped.

    Args:
        detections: by video.
        annotations: with times.
        numbers: the ANs, each at least 1.
        tious: thresholds.

    Returns:
        float64 [len(numbers)], fractions of 1.

    Raises:
        AnnotationError: no annotations with times.
        ConfigError: a number below 1.
    """
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"AN: expected numbers of at least 1, got {list(numbers)}")
    thresholds = np.asarray(tious, dtype=np.float64)
    recalled = np.zeros((len(numbers), len(thresholds)))
    total = 0
    for name, video in annotations.items():
        kept = video.end > video.start
        start, end = video.start[kept], video.end[kept]
        total += len(start)
        own = detections.get(name)
        if own is None or not len(own) or not len(start):
            continue
        best = np.argsort(-own.score, kind="stable")
        first, last = own.start[best, None], own.end[best, None]
        inside = np.maximum(np.minimum(last, end) - np.maximum(first, start), 0.0)
        # The largest tIoU of each annotation with the best 1, 2, 3, ... detections.
        reached = np.maximum.accumulate(inside / ((last - first) + (end - start) - inside), axis=0)
        for row, number in enumerate(numbers):
            recalled[row] += (reached[min(number, len(reached)) - 1][:, None] >= thresholds).sum(axis=0)
    if not total:
        raise AnnotationError(f"{annotations.path}: has no segments with times; recall needs them")
    recall: npt.NDArray[np.float64] = recalled.mean(axis=1) / total
    return recall

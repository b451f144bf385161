"""Average recall of class-agnostic proposals: what share of the annotations do the best few of each video cover?"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.matching import Matching
from refineloc.runtime.errors import ConfigError

__all__ = ["average_recall"]


def average_recall(matching: Matching, numbers: Sequence[int] = (1, 5, 10, 50, 100)) -> npt.NDArray[np.float64]:
    """Average recall at AN proposals a video (AR@AN), mean over tIoU thresholds; labels are not looked at.

    An annotation is recalled at AN where one of the AN best detections of its video, of any class, has tIoU >=
    threshold with it; several annotations may share a detection. All detections and annotations of the matching count,
    of unknown classes and repeated ones too; annotations whose end is not after their start do not.

    Args:
        matching: detections and ground truth, by `match_detections`.
        numbers: the ANs, each at least 1.

    Returns:
        float64 [len(numbers)], fractions of 1.

    Raises:
        ConfigError: a number below 1.
    """
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"AN: expected numbers of at least 1, got {list(numbers)}")
    recalled = np.zeros((len(numbers), len(matching.tious)))
    total = 0
    for name, video in matching.annotations.items():
        kept = video.end > video.start
        start, end = video.start[kept], video.end[kept]
        total += len(start)
        detections = matching.detections.get(name)
        if detections is None or not len(detections) or not len(start):
            continue
        best = np.argsort(-detections.score, kind="stable")
        first, last = detections.start[best, None], detections.end[best, None]
        inside = np.maximum(np.minimum(last, end) - np.maximum(first, start), 0.0)
        # The largest tIoU of each annotation with the best 1, 2, 3, ... detections.
        union = (last - first) + (end - start) - inside  # 0 or less with a detection that ends before it starts
        tiou = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
        reached = np.maximum.accumulate(tiou, axis=0)
        for row, number in enumerate(numbers):
            recalled[row] += (reached[min(number, len(reached)) - 1][:, None] >= matching.tious).sum(axis=0)
    recall: npt.NDArray[np.float64] = recalled.mean(axis=1) / total
    return recall

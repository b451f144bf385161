"""Plain NumPy twin of `refineloc.evaluation.average_precision`: ActivityNet's protocol, detection by detection."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Row = tuple[str, float, float, str, float]  # video, start, end, class, score


def tiou(
    start: float, end: float, starts: npt.NDArray[np.float64], ends: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Of one segment with many."""
    inside = np.maximum(np.minimum(end, ends) - np.maximum(start, starts), 0.0)
    return inside / ((ends - starts) + (end - start) - inside)


def average_precision(detections: list[Row], truth: list[tuple[str, float, float]], threshold: float) -> float:
    """Interpolated AP of one class: greedy matching by falling score (later row first), VOC 2011 interpolation."""
    if not truth:
        return 0.0
    order = sorted(range(len(detections)), key=lambda i: (-detections[i][4], -i))
    taken = [False] * len(truth)
    hits = []
    for i in order:
        video, start, end, _, _ = detections[i]
        own = [j for j, annotation in enumerate(truth) if annotation[0] == video]
        overlap = tiou(start, end, np.array([truth[j][1] for j in own]), np.array([truth[j][2] for j in own]))
        free = [(overlap[k], j) for k, j in enumerate(own) if overlap[k] >= threshold and not taken[j]]
        if free:
            taken[max(free)[1]] = True
        hits.append(bool(free))
    true = np.cumsum(hits)
    precision = np.concatenate([[0.0], true / np.arange(1, len(hits) + 1), [0.0]])
    recall = np.concatenate([[0.0], true / len(truth), [1.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(np.diff(recall)) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def mean_average_precision(
    detections: list[Row], truth: list[tuple[str, float, float, str]], thresholds: Sequence[float]
) -> list[float]:
    """mAP at each threshold over the classes of the ground truth, segments of length zero dropped."""
    truth = [row for row in truth if row[2] > row[1]]
    classes = sorted({row[3] for row in truth})
    return [
        float(
            np.mean(
                [
                    average_precision(
                        [row for row in detections if row[3] == label],
                        [row[:3] for row in truth if row[3] == label],
                        threshold,
                    )
                    for label in classes
                ]
            )
        )
        for threshold in thresholds
    ]

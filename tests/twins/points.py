"""Plain NumPy twin of `refineloc._ext.points`."""

import numpy as np
import numpy.typing as npt
from twins.proposals import chosen

Floats = npt.NDArray[np.float32]


def detect_points(
    scores: Floats,
    to_start: Floats,
    to_end: Floats,
    video_scores: Floats,
    lengths: npt.NDArray[np.int64],
    *,
    top_k: int,
    least: float,
    class_threshold: float = 0.0,
    levels: int = 1,
) -> tuple[npt.NDArray[np.generic], ...]:
    """Class by class: all points of a video with their snippets, then what is high enough and has a length."""
    begins, end = [], 0
    for level in range(levels):
        counts = -(-lengths // 2**level)
        begins.append(end + np.cumsum(counts) - counts)
        end += int(counts.sum())
    found: list[tuple[int, int, float, float, float]] = []
    for video, length in enumerate(lengths.tolist()):
        places = [(level, place) for level in range(levels) for place in range(-(-length // 2**level))]
        rows = np.array([begins[level][video] + place for level, place in places], np.int64)
        middles = np.array([place * 2.0**level + 0.5 for level, place in places])
        ranked = chosen(video_scores[video], top_k, class_threshold)
        for label in ranked:
            best = np.float64(video_scores[video, ranked[0]])
            share = np.float64(video_scores[video, label]) / best if best > 0 else np.float64(0)
            score = scores[rows, label].astype(np.float64) * share
            start = np.maximum(middles - to_start[rows].astype(np.float64), 0.0)
            stop = np.minimum(middles + to_end[rows].astype(np.float64), length)
            for index in np.flatnonzero((score >= least) & (start < stop)):
                found.append((video, int(label), start[index], stop[index] - 1, score[index]))
    columns = list(zip(*found, strict=True)) or [()] * 5
    kinds = (np.int64, np.int64, np.float64, np.float64, np.float64)
    return tuple(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True))

"""Plain NumPy twin of `refineloc._ext.times`, video by video."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def seconds(first: Floats, last: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """The times of first..last, not before 0 and not past the duration."""
    stride, offset, fps, duration = grid.tolist()
    start = np.maximum((first * stride + offset) / fps, 0.0)
    end = ((last + 1) * stride + offset) / fps
    return np.minimum(start, duration), np.minimum(end, duration)


def best_first(
    video: Ints, label: Ints, first: Floats, last: Floats, score: Floats, grids: Floats
) -> list[list[tuple[float, float, float, int]]]:
    """Start, end, score and label of the segments of each video."""
    videos = []
    for index, grid in enumerate(grids):
        own = np.flatnonzero(video == index)
        start, end = seconds(first[own], last[own], grid)
        order = np.argsort(-score[own], kind="stable")
        order = order[(start < end)[order]]
        columns = start[order], end[order], score[own][order], label[own][order]
        videos.append(list(zip(*(column.tolist() for column in columns), strict=True)))
    return videos

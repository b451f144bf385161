"""Plain NumPy twin of `refineloc._ext.segments`: one column of the table in docs/explanation/method.md a function."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Found(NamedTuple):
    """One segment: video, class, first and last snippet, score."""

    video: int
    label: int
    first: int
    last: int
    score: float


def paper(
    class_scores: Floats,
    foreground: Floats,
    attention: Floats,
    video_score: Floats,
    n: int,
    alpha_a: float,
    alpha_c: float,
    max_gap: int,
    widen: int,
) -> list[tuple[int, int, float]]:
    """The segments of class n in one video: keep, join over gaps, score, widen."""
    snippets = len(foreground)
    kept = np.flatnonzero((foreground >= np.float32(1.0 - alpha_a)) & (class_scores[:, n] >= np.float32(alpha_c)))
    found = []
    # A new segment begins where more than max_gap removed snippets lie between two kept ones.
    for run in np.split(kept, np.flatnonzero(np.diff(kept) - 1 > max_gap) + 1):
        if len(run):
            t1, t2 = int(run[0]), int(run[-1])
            score = mean(class_scores[t1 : t2 + 1, n]) + mean(attention[t1 : t2 + 1]) + np.float64(video_score[n])
            found.append((max(t1 - widen, 0), min(t2 + widen, snippets - 1), score))
    return found


def release(
    class_scores: Floats, foreground: Floats, video_score: Floats, n: int, alpha_a: float, alpha_c: float, widen: int
) -> list[tuple[int, int, float]]:
    """The released code's: strictly above, dilate by one at both sides, connected runs, score over them, widen."""
    snippets = len(foreground)
    kept = (foreground > np.float32(1.0 - alpha_a)) & (class_scores[:, n] > np.float32(alpha_c))
    padded = np.pad(kept, 1)
    dilated = np.flatnonzero(padded[:-2] | padded[1:-1] | padded[2:])
    found = []
    for run in np.split(dilated, np.flatnonzero(np.diff(dilated) > 1) + 1):
        if len(run):
            score = mean(class_scores[run, n]) + mean(foreground[run]) + np.float64(video_score[n])
            found.append((max(int(run[0]) - widen, 0), min(int(run[-1]) + widen, snippets - 1), score))
    return found


def mean(values: Floats) -> float:
    """Summed in float64 from left to right, as the kernel does; np.mean adds in pairs, and differs in the last bit."""
    return float(np.cumsum(values, dtype=np.float64)[-1]) / len(values)


def detect_segments(
    class_scores: Floats,
    foreground: Floats,
    attention: Floats,
    video_scores: Floats,
    lengths: npt.NDArray[np.int64],
    *,
    profile: str,
    alpha_a: float,
    alpha_c: float,
    top_k: int,
    max_gap: int = 1,
    widen: int = 2,
) -> list[Found]:
    """All segments of a packed batch, by video, then by rank of the class, then by time."""
    found = []
    start = 0
    for video, length in enumerate(lengths.tolist()):
        part = slice(start, start + length)
        start += length
        c, f, a, y = class_scores[part], foreground[part], attention[part], video_scores[video]
        for n in np.argsort(-y, kind="stable")[:top_k].tolist():
            if profile == "paper":
                segments = paper(c, f, a, y, n, alpha_a, alpha_c, max_gap, widen)
            else:
                segments = release(c, f, y, n, alpha_a, alpha_c, widen)
            found += [Found(video, n, *segment) for segment in segments]
    return found

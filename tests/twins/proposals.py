"""Plain NumPy twin of `refineloc._ext.proposals`: one curve and threshold after another, and each run once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from twins.segments import Found

Floats = npt.NDArray[np.float32]


def normalised(column: Floats) -> Floats:
    """Min-max over one video, in float32; zeros where all are equal."""
    span = column.max() - column.min()
    return (column - column.min()) / span if span > 0 else np.zeros_like(column)


def runs(x: Floats, thresholds: Sequence[float], max_gap: int) -> list[tuple[int, int]]:
    """First and last snippet of each run at any threshold, sorted, each once."""
    found = set()
    for threshold in thresholds:
        kept = np.flatnonzero(x > np.float32(threshold))
        # A new run begins where more than max_gap removed snippets lie between two kept ones.
        for run in np.split(kept, np.flatnonzero(np.diff(kept) - 1 > max_gap) + 1):
            if len(run):
                found.add((int(run[0]), int(run[-1])))
    return sorted(found)


def contrast(x: Floats, first: int, last: int, outer: float) -> float:
    """Mean of a curve inside, less its mean in the ring outside.

    Differences of sums from the video's first snippet on, as in the kernel: adding each run alone would differ in the
    last bit (`test_contrast_is_a_difference_of_means` has that form).
    """
    sums = np.concatenate([[0.0], np.cumsum(x, dtype=np.float64)])
    size = last - first + 1
    ring = int(min(np.ceil(outer * size), len(x)))
    left, right = max(first - ring, 0), min(last + ring, len(x) - 1)
    inside = (sums[last + 1] - sums[first]) / size
    around = right - left + 1 - size
    if not around:
        return float(inside)
    outside = (sums[first] - sums[left]) + (sums[right + 1] - sums[last + 1])
    return float(inside - outside / around)


def chosen(video_scores: Floats, top_k: int, class_threshold: float) -> list[int]:
    """The classes of a video by falling ŷ, of equal ones the lower index first; none of -inf."""
    ranked = np.argsort(-video_scores, kind="stable")[:top_k].tolist()
    least = np.float32(class_threshold) * video_scores.max() if class_threshold else -np.inf
    return [n for n in ranked if video_scores[n] != -np.inf and video_scores[n] >= least]


def detect_proposals(
    class_scores: Floats,
    foreground: Floats,
    video_scores: Floats,
    lengths: npt.NDArray[np.int64],
    *,
    thresholds: Sequence[float],
    top_k: int,
    scoring: str,
    class_threshold: float = 0.0,
    curve: str = "class",
    scored_on: str = "class",
    outer: float = 0.25,
    length_power: float = 0.0,
    video_term: str = "add",
    video_weight: float = 0.2,
    max_gap: int = 0,
    widen: int = 0,
) -> list[Found]:
    """All proposals of a packed batch, by video, rank of the class, and first and last snippet before widening."""
    found = []
    ends = np.cumsum(lengths)
    for video, (begin, end) in enumerate(zip((ends - lengths).tolist(), ends.tolist(), strict=True)):
        if begin == end:
            continue
        f = foreground[begin:end]
        for n in chosen(video_scores[video], top_k, class_threshold):
            c = class_scores[begin:end, n]
            both = set()
            if curve in ("class", "both"):
                both |= set(runs(normalised(c), thresholds, max_gap))
            if curve in ("foreground", "both"):
                both |= set(runs(normalised(f), thresholds, max_gap))
            for first, last in sorted(both):
                if scoring == "contrast":
                    own = contrast(f * c if scored_on == "product" else normalised(c), first, last, outer)
                else:
                    own = float((f * c if scored_on == "product" else c)[first : last + 1].max())
                own *= float(last - first + 1) ** length_power
                y = float(video_scores[video, n])
                score = max(own, 0.0) * y if video_term == "multiply" else own + video_weight * y
                found.append(Found(video, n, max(first - widen, 0), min(last + widen, end - begin - 1), score))
    return found

"""Plain NumPy twins of `refineloc._ext.nms`: every segment against every other, group by group; in input order."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def inside_and_union(start: Floats, end: Floats, one: int, others: Ints) -> tuple[Floats, Floats]:
    """Intersection (negative where there is none) and union of one segment with others."""
    inside = np.minimum(end[one], end[others]) - np.maximum(start[one], start[others])
    return inside, (end[one] - start[one]) + (end[others] - start[others]) - inside


def falling(score: Floats, members: Ints) -> Ints:
    """Members by falling score; of equal ones the earlier first."""
    return members[np.argsort(-score[members], kind="stable")]


def rising(kept: list[int], *columns: list[float]) -> Any:
    """The kept in input order, with what belongs to them."""
    order = sorted(range(len(kept)), key=kept.__getitem__)
    return tuple([column[index] for index in order] for column in (kept, *columns))


def vote_nms(
    start: Floats, end: Floats, score: Floats, group: Ints, *, tiou_threshold: float
) -> tuple[list[int], list[float]]:
    """Greedy, group by group; a kept segment's new score is its own plus those of the segments that it drops."""
    kept: list[int] = []
    new_scores: list[float] = []
    for one in np.unique(group):
        remaining = falling(score, np.flatnonzero(group == one))
        while len(remaining):
            best, remaining = int(remaining[0]), remaining[1:]
            inside, union = inside_and_union(start, end, best, remaining)
            dropped = inside > tiou_threshold * union
            kept.append(best)
            new_scores.append(sum(score[np.sort(remaining[dropped])].tolist(), start=float(score[best])))
            remaining = remaining[~dropped]
    return rising(kept, new_scores)


def hard_nms(start: Floats, end: Floats, score: Floats, group: Ints, *, tiou_threshold: float) -> list[int]:
    """Greedy, group by group."""
    return vote_nms(start, end, score, group, tiou_threshold=tiou_threshold)[0]


def fuse_nms(
    start: Floats, end: Floats, score: Floats, group: Ints, *, tiou_threshold: float, temperature: float
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Greedy, group by group; a kept segment moves by the weighted mean distance of itself and those that it drops."""
    kept: list[int] = []
    moved: dict[str, list[float]] = {"start": [], "end": []}
    chances: list[float] = []
    for one in np.unique(group):
        remaining = falling(score, np.flatnonzero(group == one))
        while len(remaining):
            best, remaining = int(remaining[0]), remaining[1:]
            inside, union = inside_and_union(start, end, best, remaining)
            dropped = inside > tiou_threshold * union
            joined = np.sort(np.append(remaining[dropped], best)).tolist()
            weights = [math.exp((float(score[i]) - float(score[best])) / temperature) for i in joined]
            kept.append(best)
            right, *others = np.clip(score[[best, *np.sort(remaining[dropped])]], 0, 1).tolist()
            for other in others:
                right += other * (1 - right)
            chances.append(right)
            for name, bounds in (("start", start), ("end", end)):
                # Running sums, as np.sum adds in another order.
                shift = np.cumsum(np.array(weights) * (bounds[joined] - bounds[best]))[-1]
                moved[name].append(float(bounds[best] + shift / np.cumsum(weights)[-1]))
            remaining = remaining[~dropped]
    return rising(kept, moved["start"], moved["end"], chances)


def soft_nms(
    start: Floats,
    end: Floats,
    score: Floats,
    group: Ints,
    *,
    method: str,
    sigma: float,
    tiou_threshold: float,
    min_score: float,
) -> tuple[list[int], list[float]]:
    """Group by group: take the best, lower the scores of the rest, drop those below the least."""
    kept: list[int] = []
    new_scores: list[float] = []
    for one in np.unique(group):
        remaining = np.flatnonzero(group == one)
        lowered = score.copy()
        remaining = remaining[lowered[remaining] >= min_score]
        while len(remaining):
            best = int(remaining[np.argmax(lowered[remaining])])
            kept.append(best)
            new_scores.append(float(lowered[best]))
            remaining = remaining[remaining != best]
            inside, union = inside_and_union(start, end, best, remaining)
            overlapping = inside > 0
            tiou = np.divide(inside, union, out=np.zeros(len(remaining)), where=overlapping)
            if method == "gaussian":  # the C library's exp, as the kernel; NumPy's differs in the last bit
                lowered[remaining] *= [math.exp(-(value * value) / sigma) for value in tiou.tolist()]
            else:
                lowered[remaining] *= np.where(tiou > tiou_threshold, 1.0 - tiou, 1.0)
            remaining = remaining[lowered[remaining] >= min_score]
    return rising(kept, new_scores)

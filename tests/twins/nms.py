"""Plain NumPy twin of `refineloc._ext.nms`."""

import numpy as np
import numpy.typing as npt
from twins.evaluation import tiou

Floats = npt.NDArray[np.float64]


def hard_nms(
    start: Floats, end: Floats, score: Floats, group: npt.NDArray[np.int64], *, tiou_threshold: float
) -> list[int]:
    """Greedy, group by group, by falling score (earlier first where equal)."""
    kept: list[int] = []
    for one in np.unique(group):
        members = np.flatnonzero(group == one)
        remaining = members[np.lexsort((members, -score[members]))].tolist()
        while remaining:
            best = remaining.pop(0)
            kept.append(best)
            with np.errstate(invalid="ignore"):  # two segments of length zero: 0/0, which no threshold is below
                overlap = tiou(start[best], end[best], start[remaining], end[remaining])
            remaining = [i for i, value in zip(remaining, overlap, strict=True) if not value > tiou_threshold]
    return kept

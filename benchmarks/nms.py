"""Suppression of 20 to 200,000 segments that overlap little or much."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from twins import nms as twin

from benchmarks import compiled
from benchmarks.timing import Row, duration, race
from refineloc._ext.nms import hard_nms, soft_nms, vote_nms

Floats = npt.NDArray[np.float64]
AIMS = {("spread", 200): "2", ("spread", 20_000): "30"}


def segments(size: int, density: str) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64]]:
    """`spread`: 5 to 60 s long, one every 20 s; `crowded`: one a second; `dense`: all overlap by nine tenths."""
    rng = np.random.default_rng(0)
    if density == "dense":
        start, length = rng.uniform(0, 5, size), rng.uniform(95, 105, size)
    else:
        span = size * (20.0 if density == "spread" else 1.0)
        start, length = rng.uniform(0, span, size), rng.uniform(5, 60, size)
    return start, start + length, rng.random(size), np.zeros(size, np.int64)


def by_torch(start: Floats, end: Floats, score: Floats, threshold: float) -> npt.NDArray[np.int64]:
    """As in torch detectors: sorted by score, the tIoU of each kept segment with all that remain."""
    first, last = torch.from_numpy(start), torch.from_numpy(end)
    remaining = torch.argsort(torch.from_numpy(score), descending=True, stable=True)
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(int(best))
        inside = (torch.minimum(last[best], last[remaining]) - torch.maximum(first[best], first[remaining])).clamp(
            min=0
        )
        union = (last[best] - first[best]) + (last[remaining] - first[remaining]) - inside
        remaining = remaining[inside <= threshold * union]
    return np.array(kept)


def rows() -> list[Row]:
    """Against compiled loops over all pairs, and up to 2,000 segments against the twin and torch."""
    peer = compiled.load("quadratic_nms")
    out = []
    for density in ("spread", "crowded", "dense"):
        for size in (20, 200, 2_000, 20_000, 200_000):
            table = segments(size, density)
            start, end, score, _ = table
            subject = f"hard NMS, {size:,} {density}"

            def ours() -> object:
                return hard_nms(*table, tiou_threshold=0.5)  # noqa: B023 (called within this round)

            def quadratic() -> Any:
                return peer.hard_nms(start, end, score, 0.5)  # noqa: B023

            if size <= 20_000 or density == "dense":
                assert np.array_equal(ours(), np.sort(quadratic()))
                ours_s, theirs_s = race(ours, quadratic)
                aim = AIMS.get((density, size), "1")
                out.append(Row(subject, "compiled, all pairs", ours_s, theirs_s, f"at least {aim}"))
            else:
                # All pairs would take a minute. A tenth of the segments takes a hundredth of the time.
                tenth = segments(size // 10, density)
                ours_s, theirs_s = race(ours, lambda: peer.hard_nms(*tenth[:3], 0.5))  # noqa: B023
                out.append(Row(subject, "all pairs, from 20,000 x 100", ours_s, 100 * theirs_s, "at least 1"))
            if density == "spread" and size <= 2_000:
                ours_s, theirs_s = race(ours, lambda: twin.hard_nms(*table, tiou_threshold=0.5))  # noqa: B023
                out.append(Row(subject, "NumPy twin", ours_s, theirs_s))
                assert np.array_equal(ours(), np.sort(by_torch(start, end, score, 0.5)))
                ours_s, theirs_s = race(ours, lambda: by_torch(start, end, score, 0.5))  # noqa: B023
                out.append(Row(subject, "torch", ours_s, theirs_s))
    for density in ("spread", "crowded", "dense"):
        for size in (200, 2_000, 20_000):
            table = segments(size, density)
            ours_s, theirs_s = race(
                lambda: soft_nms(*table),  # noqa: B023
                lambda: peer.soft_nms(*table[:3], 0.5, 0.001),  # noqa: B023
            )
            aim = "at least 10" if (density, size) == ("spread", 20_000) else ""
            out.append(Row(f"soft-NMS, {size:,} {density}", "compiled, all pairs", ours_s, theirs_s, aim))
    table = segments(200_000, "spread")
    hard_s, soft_s, vote_s = race(
        lambda: hard_nms(*table, tiou_threshold=0.5),
        lambda: soft_nms(*table),
        lambda: vote_nms(*table, tiou_threshold=0.5),
    )
    print(f"200,000 spread: hard {duration(hard_s)}, vote {duration(vote_s)}, soft {duration(soft_s)}")
    return out


def batched() -> list[Row]:
    """2,000 groups of 18 segments, as of a data set, in one call or in a call for each group."""
    rng = np.random.default_rng(0)
    groups, group_size = 2_000, 18
    start = rng.uniform(0, 120, groups * group_size)
    end = start + rng.uniform(5, 60, groups * group_size)
    score, group = rng.random(groups * group_size), np.repeat(np.arange(groups), group_size)
    peer = compiled.load("quadratic_nms")
    parts = [slice(begin, begin + group_size) for begin in range(0, groups * group_size, group_size)]
    ours_s, theirs_s = race(
        lambda: hard_nms(start, end, score, group, tiou_threshold=0.5),
        lambda: [peer.hard_nms(start[part], end[part], score[part], 0.5) for part in parts],
    )
    return [Row("hard NMS, 2,000 groups of 18", "compiled, a call a group", ours_s, theirs_s, "at least 1")]

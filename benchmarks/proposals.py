"""Proposals at many thresholds, against one threshold at a time as in BaS-Net's code, and against the NumPy twin.

And the whole way from scores to detections by the rule of the preset auto, against RefineLoc's single threshold.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from twins import proposals as twin

from benchmarks.segments import scores
from benchmarks.timing import Row, race
from refineloc._ext.proposals import detect_proposals
from refineloc.runtime.detections import Detections
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import OneThreshold, Rules, changed
from refineloc.runtime.segments.values import Scores
from refineloc.training.settings.presets import AUTO_DETECTION

F32 = npt.NDArray[np.float32]
THRESHOLDS = tuple(step / 40 for step in range(10))
SETTINGS: dict[str, Any] = {"thresholds": THRESHOLDS, "top_k": 2, "scoring": "contrast"}


def threshold_at_a_time(c: F32, y: F32) -> dict[tuple[int, int, int], float]:
    """As usual in the field: for each class and threshold, split the kept snippets into runs, and take their means."""
    proposals = {}
    for n in np.argsort(-y, kind="stable")[: SETTINGS["top_k"]].tolist():
        x = (c[:, n] - c[:, n].min()) / (c[:, n].max() - c[:, n].min())
        for threshold in THRESHOLDS:
            kept = np.where(x > np.float32(threshold))[0]
            for run in np.split(kept, np.where(np.diff(kept) != 1)[0] + 1):
                if not len(run):
                    continue
                first, last = int(run[0]), int(run[-1])
                ring = int(np.ceil(0.25 * len(run)))
                outside = np.concatenate([x[max(first - ring, 0) : first], x[last + 1 : last + 1 + ring]])
                inner, outer = np.mean(x[first : last + 1]), np.mean(outside) if len(outside) else 0.0
                proposals[n, first, last] = float(inner - outer + 0.2 * y[n])
    return proposals


def rows(bandwidth: float) -> list[Row]:
    """Three lengths, and a batch of short videos."""
    out = []
    for snippets in (200, 2_000, 20_000):
        c, f, _, y = scores(snippets, 20)
        lengths = np.array([snippets])

        def ours() -> tuple[npt.NDArray[np.generic], ...]:
            return detect_proposals(c, f, y, lengths, **SETTINGS)  # noqa: B023

        def theirs() -> dict[tuple[int, int, int], float]:
            return threshold_at_a_time(c, y[0])  # noqa: B023

        def plain() -> object:
            return twin.detect_proposals(c, f, y, lengths, **SETTINGS)  # noqa: B023

        proposals, expected = ours(), theirs()
        keys = list(zip(*(column.tolist() for column in proposals[1:4]), strict=True))
        assert set(keys) == expected.keys()
        assert np.allclose([expected[key] for key in keys], proposals[4], atol=1e-4)
        subject = f"proposals, T {snippets:,}, N 20 ({len(keys)} found)"
        ours_s, theirs_s, plain_s = race(ours, theirs, plain)
        touched = c.nbytes + sum(column.nbytes for column in proposals)
        out.append(Row(subject, "a threshold at a time", ours_s, theirs_s, "at least 100"))
        out.append(Row(subject, "NumPy twin", ours_s, plain_s))
        out.append(Row(subject, "limit: bytes / bandwidth", ours_s, touched / bandwidth))
    return [*out, batch(), *post_processing()]


def batch() -> Row:
    """100 videos of 200 snippets in one call, as the detector and the training loop call it."""
    c, f, _, _ = scores(20_000, 20)
    y = np.repeat(c.mean(axis=0)[None], 100, axis=0)
    lengths = np.full(100, 200)
    ours_s, theirs_s = race(
        lambda: detect_proposals(c, f, y, lengths, **SETTINGS),
        lambda: [threshold_at_a_time(c[begin : begin + 200], y[0]) for begin in range(0, 20_000, 200)],
    )
    return Row("proposals, 100 videos of T 200, N 20", "a threshold at a time", ours_s, theirs_s, "at least 100")


def post_processing() -> list[Row]:
    """Scores to detections in seconds, as the detector does it: one threshold, and many with fusion."""
    one = OneThreshold()
    many = changed(one, AUTO_DETECTION)
    grid, classes = SnippetGrid(25.0, 16), tuple(map(str, range(20)))
    out = []
    for videos, snippets in ((1, 200), (10, 200), (1, 2_000)):
        c, f, a, y = scores(videos * snippets, 20)
        batch = Scores(c, f, a, np.repeat(y, videos, axis=0))
        lengths = np.full(videos, snippets)

        def detections(rules: Rules) -> list[Detections]:
            return Detections.from_batch([grid] * videos, segments(batch, lengths, rules), classes)  # noqa: B023

        counts = [sum(map(len, detections(rules))) for rules in (many, one)]
        many_s, one_s = race(lambda: detections(many), lambda: detections(one))
        subject = f"scores to detections, {videos} x T {snippets:,} ({counts[0]} found)"
        out.append(Row(subject, f"a single threshold ({counts[1]} found)", many_s, one_s, "at least 0.5"))
    return out

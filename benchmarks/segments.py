"""Scores to segments, against labelled connected components and the NumPy twin."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from twins import segments as twin

from benchmarks.timing import Row, race
from refineloc._ext.segments import detect_segments

F32 = npt.NDArray[np.float32]
SETTINGS = {"alpha_a": 0.5, "alpha_c": 0.1, "top_k": 2}


def scores(snippets: int, classes: int) -> tuple[F32, F32, F32, F32]:
    """Scores like those of a trained model: actions of 5 to 40 snippets in which one of two classes is high."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 0.5, (snippets, classes))
    attention = rng.normal(-1, 1, snippets)
    t = 0
    while t < snippets:
        length = int(rng.integers(5, 40))
        logits[t : t + length, rng.integers(0, 2)] += 5
        attention[t : t + length] += 2
        t += length + int(rng.integers(5, 60))
    class_scores = np.exp(logits)
    class_scores /= class_scores.sum(axis=1, keepdims=True)
    foreground = 1 / (1 + np.exp(-attention))
    weight = np.exp(foreground) / np.exp(foreground).sum()
    return (
        class_scores.astype(np.float32),
        foreground.astype(np.float32),
        weight.astype(np.float32),
        (weight @ class_scores).astype(np.float32)[None],
    )


def labelled_components(c: F32, f: F32, y: F32) -> list[tuple[int, int, int, float]]:
    """The release profile as usual in the field: threshold, dilate, label the components, and visit each."""
    rows = []
    for n in np.argsort(-y, kind="stable")[: SETTINGS["top_k"]]:
        kept = (f > np.float32(1 - SETTINGS["alpha_a"])) & (c[:, n] > np.float32(SETTINGS["alpha_c"]))
        labels, count = ndimage.label(ndimage.binary_dilation(kept))
        for label in range(1, count + 1):
            where = np.where(labels == label)[0]
            score = c[where, n].mean() + f[where].mean() + y[n]
            rows.append((int(n), max(int(where[0]) - 2, 0), min(int(where[-1]) + 2, len(f) - 1), float(score)))
    return rows


def rows(bandwidth: float) -> list[Row]:
    """Three lengths, two numbers of classes."""
    out = []
    for snippets in (200, 2_000, 20_000):
        for classes in (20, 100):
            c, f, a, y = scores(snippets, classes)
            lengths = np.array([snippets])

            def ours(profile: str = "release") -> tuple[npt.NDArray[np.generic], ...]:
                return detect_segments(c, f, a, y, lengths, profile=profile, **SETTINGS)  # noqa: B023

            def theirs() -> list[tuple[int, int, int, float]]:
                return labelled_components(c, f, y[0])  # noqa: B023

            def plain() -> object:
                return twin.detect_segments(c, f, a, y, lengths, profile="release", **SETTINGS)  # noqa: B023

            segments, expected = ours(), theirs()
            assert [row[:3] for row in expected] == list(
                zip(*(column.tolist() for column in segments[1:4]), strict=True)
            )
            assert np.allclose([row[3] for row in expected], segments[4], atol=1e-4)
            subject = f"segments, T {snippets:,}, N {classes} ({len(expected)} found)"
            ours_s, theirs_s, plain_s = race(ours, theirs, plain)
            out.append(Row(subject, "labelled components", ours_s, theirs_s, "at least 100"))
            out.append(Row(subject, "NumPy twin", ours_s, plain_s))
            touched = c.nbytes + f.nbytes + a.nbytes + sum(column.nbytes for column in segments)
            out.append(Row(subject, "limit: bytes / bandwidth", ours_s, touched / bandwidth))
    out.append(batch())
    return out


def batch() -> Row:
    """100 videos of 200 snippets in one call, as the detector and the training loop call it."""
    c, f, a, _ = scores(20_000, 20)
    y = np.repeat(c.mean(axis=0)[None], 100, axis=0)
    lengths = np.full(100, 200)
    ours_s, theirs_s = race(
        lambda: detect_segments(c, f, a, y, lengths, profile="release", **SETTINGS),
        lambda: [
            labelled_components(c[begin : begin + 200], f[begin : begin + 200], y[0]) for begin in range(0, 20_000, 200)
        ],
    )
    return Row("segments, 100 videos of T 200, N 20", "labelled components", ours_s, theirs_s, "at least 100")

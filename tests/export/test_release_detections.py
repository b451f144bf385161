"""The authors' checkpoint, from their file to detections: equal, to the last bit, to the release rules in plain NumPy.

The transcription below is written from the release column of method.md and shares nothing with the kernel:

    keep       Ā^bf_fg > 1 - α_A  and  C̄_n > α_C          (strictly), for the top-k classes of ŷ
    join       dilate by one snippet at each side, then take connected runs
    score      mean C̄_n + mean foreground + ŷ_n            over the dilated run
    widen      by 2 snippets at each side, after the dilation, clipped to the video
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from refineloc.export.parity import generated_sample
from refineloc.export.sources import Trained, from_checkpoint
from refineloc.export.write import write_model
from refineloc.runtime.detector import Detector
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.runtime.segments.values import Scores

FPS, SNIPPET_FRAMES = 30.0, 15
ALPHA_A, ALPHA_C, TOP_K, WIDEN = 0.5, 0.02, 2, 2  # of the checkpoint's own config
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 13, 50, 280, 281, 999, 2000, 5000]

Row = tuple[float, float, str, float]


def transcription(scores: Scores, classes: tuple[str, ...]) -> list[Row]:
    """The detections of one video, best first: start_s, end_s, label, score."""
    snippets = len(scores.foreground)
    foreground_kept = scores.foreground > np.float32(1.0 - ALPHA_A)
    rows: list[Row] = []
    for n in np.argsort(-scores.video_scores[0], kind="stable")[:TOP_K]:
        kept = np.zeros(snippets + 2, dtype=bool)
        kept[1:-1] = foreground_kept & (scores.class_scores[:, n] > np.float32(ALPHA_C))
        dilated = kept[:-2] | kept[1:-1] | kept[2:]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], dilated, [False]]).astype(int)))
        for first, end in edges.reshape(-1, 2):
            class_mean = mean(scores.class_scores[first:end, n])
            score = class_mean + mean(scores.foreground[first:end]) + float(scores.video_scores[0, n])
            start_s = max(first - WIDEN, 0) * SNIPPET_FRAMES / FPS
            end_s = (min(end - 1 + WIDEN, snippets - 1) + 1) * SNIPPET_FRAMES / FPS
            rows.append((start_s, end_s, classes[n], score))
    return sorted(rows, key=lambda row: -row[3])  # stable: equal scores keep their order


def mean(values: npt.NDArray[np.float32]) -> float:
    """In float64, added from left to right (np.sum adds pairwise)."""
    return float(np.cumsum(values, dtype=np.float64)[-1] / len(values))


@pytest.fixture(scope="module")
def trained(shared_data: Path) -> Trained:
    released = shared_data / "refineloc-release"
    checkpoint = released / "thumos14_tsn_best_refinement_state.ckpt"
    if not checkpoint.exists():
        pytest.skip(f"not here: {checkpoint}")
    return from_checkpoint(checkpoint, released / "thumos14_test_groundtruth.csv")


@pytest.fixture(scope="module")
def model_file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "released.onnx"
    write_model(path, trained.model, trained.metadata, generated_sample(trained.model, trained.metadata))
    return path


def features_of(trained: Trained, snippets: int, seed: int) -> npt.NDArray[np.float32]:
    """Features that move one class's logit and the foreground's through their whole range, in runs of all lengths."""
    generator = np.random.default_rng(seed)
    noise = np.maximum(generator.standard_normal((snippets, 1024)), 0.0)
    weights = {name: value.detach().numpy().astype(float) for name, value in trained.model.named_parameters()}
    wanted = weights["attention.0.weight"][0] + weights["classifier.0.weight"][seed % 20]
    # Holds a level for 1 to 6 snippets: runs, gaps of every length, and single snippets.
    levels = np.repeat(generator.uniform(-12.0, 14.0, snippets), generator.integers(1, 7, snippets))[:snippets]
    return (noise + levels[:, None] * wanted / (wanted @ wanted)).astype(np.float32)


@pytest.mark.parametrize("snippets", LENGTHS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_detections_equal_the_transcription_exactly(
    trained: Trained, model_file: Path, snippets: int, seed: int
) -> None:
    detector = Detector(model_file, provider="cpu")
    assert detector.settings.profile == "release"
    features = features_of(trained, snippets, seed)
    scores = detector.scores(features)
    expected = transcription(scores, detector.classes)
    got = [tuple(detection) for detection in detector.detect(features, fps=FPS)]
    assert got == expected
    if snippets >= 280:
        assert len(got) > snippets / 100  # there is something to compare
        # Both sides of both thresholds occur, and runs longer than a snippet.
        assert 0.02 < (scores.foreground > 0.5).mean() < 0.98
        assert len({end - start for start, end, _, _ in got}) > 3


def test_thresholds_just_past_the_boundary() -> None:
    """Exactly at a threshold is removed, one float32 further is kept."""
    above = np.nextafter(np.float32(0.5), np.float32(1.0))
    rules = OneThreshold(profile="release", alpha_a=ALPHA_A, alpha_c=ALPHA_C, top_k=1, widen=0)
    for foreground, kept in ((np.float32(0.5), 0), (above, 1)):
        scores = Scores(
            np.full((1, 1), 1.0, np.float32),
            np.array([foreground]),
            np.ones(1, np.float32),
            np.ones((1, 1), np.float32),
        )
        assert len(segments(scores, np.array([1]), rules).score) == kept
        assert len(transcription(scores, ("a",))) == kept


def test_the_transcription_by_hand() -> None:
    """Snippets  0 1 2 3 4 5 6 7 8 9
    kept         . . x . . x . . . .     a gap of two is joined: the dilated run is 1..6
    detected     x x x x x x x x x .     widened by two: -1 is clipped to 0, and 6 + 2 = 8
    """
    foreground = np.array([0.1, 0.2, 0.9, 0.3, 0.4, 0.8, 0.1, 0.1, 0.1, 0.1], np.float32)
    scores = Scores(
        np.full((10, 1), 0.25, np.float32), foreground, np.full(10, 0.1, np.float32), np.ones((1, 1), np.float32)
    )
    rows = transcription(scores, ("a",))
    assert [row[:3] for row in rows] == [(0.0, 4.5, "a")]
    assert rows[0][3] == pytest.approx(0.25 + (0.2 + 0.9 + 0.3 + 0.4 + 0.8 + 0.1) / 6 + 1.0)

"""Average precision: hand-computed time lines, the plain twin, and the figures that others published."""

from pathlib import Path

import numpy as np
import pytest
from by_hand import Row, Span, annotations_of, detections_of
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import evaluation as twin

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
from refineloc.runtime.detections import read_detections
from refineloc.runtime.errors import AnnotationError, ConfigError


def test_a_hand_computed_time_line() -> None:
    #            0    5    10   15   20
    # truth      [====]    [====]
    # 0.9        [====]                   tIoU 1: hit
    # 0.8        [====]                   a second for the same annotation: miss
    # 0.7                  [==]           tIoU 0.6: hit at 0.5, miss at 0.7
    truth = annotations_of([("v", 0, 5, "x"), ("v", 10, 15, "x")])
    detections = detections_of([("v", 0, 5, "x", 0.9), ("v", 0, 5, "x", 0.8), ("v", 10, 13, "x", 0.7)])
    result = evaluate(match_detections(detections, truth, [0.5, 0.7]))
    # At 0.5: recall steps at precision 1 and max(2/3). At 0.7: only the first.
    assert result.mAP.tolist() == pytest.approx([0.5 * 1 + 0.5 * 2 / 3, 0.5])
    assert result.average_mAP == pytest.approx((0.5 + 1 / 3 + 0.5) / 2)


def test_the_threshold_itself_counts() -> None:
    truth = annotations_of([("v", 0, 4, "x")])
    detections = detections_of([("v", 0, 2, "x", 1.0)])
    assert evaluate(match_detections(detections, truth, [0.5, np.nextafter(0.5, 1)])).mAP.tolist() == [1.0, 0.0]


def test_what_is_left_out_and_what_counts_as_false() -> None:
    truth = annotations_of([("v", 0, 5, "x"), ("v", 3, 3, "x"), ("v", 3, 3, "zero")], videos=("empty",))
    detections = detections_of(
        [("v", 0, 5, "x", 0.5), ("v", 0, 5, "other", 0.9), ("empty", 0, 5, "x", 0.9), ("absent", 0, 5, "x", 0.8)]
    )
    matching = match_detections(detections, truth, [0.5])
    result = evaluate(matching)
    assert result.classes == ("x",)  # all of "zero" has length zero
    assert result.instances.tolist() == [1]
    assert result.mAP.tolist() == pytest.approx([1 / 3])  # two false positives stand before the hit
    assert (matching.unknown_labels, matching.unknown_videos) == (1, 1)


def test_no_detections_at_all() -> None:
    assert evaluate(match_detections({}, annotations_of([("v", 0, 5, "x")]), [0.5])).average_mAP == 0.0


bound = st.integers(0, 12).map(lambda tenth: tenth / 2)
span = st.tuples(st.sampled_from("uvw"), bound, st.integers(0, 8).map(float), st.sampled_from("xyz"))


@given(
    truth=st.lists(span, min_size=1, max_size=12),
    detections=st.lists(st.tuples(span, st.integers(0, 6)), max_size=20),
    thresholds=st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_equals_its_twin(
    truth: list[tuple[str, float, float, str]],
    detections: list[tuple[tuple[str, float, float, str], int]],
    thresholds: list[float],
) -> None:
    truth_rows = [(video, start, start + length, label) for video, start, length, label in truth]
    # Grouped by video, as the files are, so that "the later row" means the same in both.
    rows = sorted(
        ((video, start, start + length + 0.5, label, score / 6) for (video, start, length, label), score in detections),
        key=lambda row: row[0],
    )
    if not any(end > start for _, start, end, _ in truth_rows):
        return
    result = evaluate(match_detections(detections_of(rows), annotations_of(truth_rows), thresholds))
    # Annotations of one video in their order; the twin takes the later of equal tIoU, as the kernel does.
    expected = twin.mean_average_precision(rows, truth_rows, thresholds)
    assert result.mAP.tolist() == pytest.approx(expected, abs=1e-12)


def test_order_of_videos_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    truth: list[Span] = []
    for video in "abcdefgh":
        for _ in range(10):
            start = float(rng.uniform(0, 50))
            truth.append((video, start, start + 5, str(rng.choice(["x", "y"]))))
            rows.append((video, start + rng.normal(0, 2), start + 5, str(rng.choice(["x", "y"])), float(rng.random())))
    detections = detections_of(rows)
    backwards = dict(reversed(list(detections.items())))
    first = evaluate(match_detections(detections, annotations_of(truth))).ap
    assert 0 < first.mean() < 1
    assert np.array_equal(first, evaluate(match_detections(backwards, annotations_of(truth[::-1]))).ap)


def test_bad_arguments() -> None:
    truth = annotations_of([("v", 0, 5, "x")])
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        match_detections({}, truth, [0.0])
    with pytest.raises(AnnotationError, match="no segments with times"):
        match_detections({}, Annotations({"v": VideoAnnotation("v", ("x",))}))
    with pytest.raises(AnnotationError, match="ends after its start"):
        match_detections({}, annotations_of([("v", 3, 3, "x")]))


@pytest.fixture
def release(shared_data: Path) -> Path:
    return shared_data / "refineloc-release"


@pytest.fixture
def truth(release: Path) -> Annotations:
    return read_annotations(release / "activitynet_v1-2_valid_groundtruth.csv")


@pytest.mark.parametrize(
    ("iteration", "average", "at_half"), [(0, 0.09660329742554, 0.1923125349), (1, 0.19137091591854, 0.3414578925)]
)
def test_the_authors_predictions(
    release: Path, truth: Annotations, iteration: int, average: float, at_half: float
) -> None:
    detections = read_detections(release / f"valid_predictions_iteration_{iteration:04}.json")
    result = evaluate(match_detections(detections, truth))
    assert result.average_mAP == pytest.approx(average, abs=1e-9)
    assert result.mAP[0] == pytest.approx(at_half, abs=1e-9)


def test_the_authors_predictions_against_the_plain_twin(release: Path, truth: Annotations) -> None:
    detections = read_detections(release / "valid_predictions_iteration_0000.json")
    result = evaluate(match_detections(detections, truth, [0.5, 0.95]))
    rows = [(name, *detection) for name, video in detections.items() for detection in video]
    truth_rows = [
        (name, start, end, label)
        for name, video in truth.items()
        for start, end, label in zip(video.start, video.end, video.segment_labels, strict=True)
    ]
    expected = twin.mean_average_precision(rows, truth_rows, [0.5, 0.95])
    assert result.mAP.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_kit_keeps_an_annotation_of_no_length(release: Path, truth: Annotations) -> None:
    detections = read_detections(release / "valid_predictions_iteration_0001.json")
    kept = evaluate(match_detections(detections, truth, keep_empty=True))
    assert kept.instances.sum() == 3459
    assert round(100 * kept.average_mAP, 2) == 19.13


def test_published_conventions(release: Path, truth: Annotations, shared_data: Path) -> None:
    detections = read_detections(release / "valid_predictions_iteration_0000.json")
    without_repeated = match_detections(detections, truth, drop_repeated=True)
    assert round(100 * evaluate(without_repeated).average_mAP, 4) == 9.6788
    kit = shared_data / "activitynet-sample" / "activity_net.v1-2.min-missing-removed.json"
    of_the_kit = match_detections(detections, read_annotations(kit, subset="validation"))
    assert round(100 * evaluate(of_the_kit).average_mAP, 2) == 9.19

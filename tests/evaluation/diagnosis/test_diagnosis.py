"""DETAD's analyses: hand-computed time lines, the plain twin, and the paper's Figure 3 on the authors' files."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import Row, Span, annotations_of, detections_of
from hypothesis import given, settings
from hypothesis import strategies as st
from twins.diagnosis import Twin

from refineloc.evaluation import Matching, match_detections
from refineloc.evaluation.diagnosis import ERROR_TYPES, Diagnosis, diagnose
from refineloc.evaluation.diagnosis.characteristics import characteristics_of, choose_bins
from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
from refineloc.runtime.detections import read_detections


def truth_of(rows: list[Span]) -> Annotations:
    return annotations_of(rows, duration_s=100.0)


def diagnosed(rows: list[Row], truth: list[Span], tious: list[float], bins: Any = None) -> Diagnosis:
    return diagnose(match_detections(detections_of(rows), truth_of(truth), tious), bins=bins)


def kinds(diagnosis: Diagnosis, group: int = 0) -> dict[str, float]:
    return dict(zip(ERROR_TYPES, diagnosis.false_positives.share[group].tolist(), strict=True))


def test_each_type_on_a_hand_made_time_line() -> None:
    #             0    10   20   30   40   50   60   70   80
    # x           [====]
    # y                               [====]
    # x   0.9     [====]                            tIoU 1: true positive
    # x   0.8     [====]                            taken already: double detection
    # x   0.7                         [====]        tIoU 1 with y: wrong label
    # x   0.6     [=========]                       tIoU 0.5 with x, below 0.7: localization
    # x   0.5                         [=========]   tIoU 0.5 with y: confusion
    # x   0.4                    [=]                touches nothing: background
    # x   0.3                    [=] in a video without annotations: background
    truth: list[Span] = [("v", 0, 10, "x"), ("v", 40, 50, "y")] + [("w", 10 * k, 10 * k + 9, "x") for k in range(6)]
    rows: list[Row] = [
        ("v", 0, 10, "x", 0.9),
        ("v", 0, 10, "x", 0.8),
        ("v", 40, 50, "x", 0.7),
        ("v", 0, 20, "x", 0.6),
        ("v", 40, 60, "x", 0.5),
        ("v", 30, 34, "x", 0.4),
        ("empty", 30, 34, "x", 0.3),
    ]
    result = diagnosed(rows, truth, [0.7])
    assert result.false_positives.predictions.tolist() == [7, *[0] * 9]  # G is 7 for x
    assert kinds(result) == pytest.approx({**dict.fromkeys(ERROR_TYPES, 1 / 7), "background": 2 / 7})
    assert np.isnan(result.false_positives.share[1:]).all()


@pytest.mark.parametrize(
    ("start", "end", "kind"),
    [
        (0, 1, "localization"),  # tIoU exactly 0.1
        (0, 0.999, "background"),
        (50, 55, "wrong label"),  # tIoU exactly 0.5
        (50, 54.999, "confusion"),
    ],
)
def test_the_bounds_themselves_count(start: float, end: float, kind: str) -> None:
    truth: list[Span] = [("v", 0, 10, "x"), ("v", 50, 60, "y")]
    assert kinds(diagnosed([("v", start, end, "x", 1.0)], truth, [0.5]))[kind] == 1


def test_of_equal_overlaps_its_own_class_counts_whatever_the_order() -> None:
    # THUMOS14 annotates each cliff dive twice: as CliffDiving and as Diving.
    truth: list[Span] = [("v", 0, 10, "CliffDiving"), ("v", 0, 10, "Diving")]
    for label in ("CliffDiving", "Diving"):
        rows: list[Row] = [("v", 0, 4, label, 1.0)]
        assert kinds(diagnosed(rows, truth, [0.5]))["localization"] == 1


def test_groups_are_g_detections_of_each_class() -> None:
    # x has G = 1, y has G = 2: 1G holds the best of x and the two best of y.
    truth: list[Span] = [("v", 0, 10, "x"), ("v", 0, 10, "y"), ("v", 50, 60, "y")]
    rows: list[Row] = [("v", 80, 90, "x", 0.9), ("v", 0, 10, "x", 0.1)]
    rows += [("v", 0, 10, "y", 0.9), ("v", 50, 60, "y", 0.8), ("v", 80, 90, "y", 0.7)]
    result = diagnosed(rows, truth, [0.5])
    assert result.false_positives.predictions.tolist() == [3, 2, *[0] * 8]
    assert kinds(result)["true positive"] == pytest.approx(2 / 3)
    assert kinds(result, 1) == pytest.approx(
        {**dict.fromkeys(ERROR_TYPES, 0.0), "true positive": 0.5, "background": 0.5}
    )


def test_gain_of_removing_a_type_by_hand() -> None:
    # One class, G = N = 2: a background error stands before the two hits; precision_N 1/2, 2/3: interpolated 2/3 twice.
    truth: list[Span] = [("v", 0, 10, "x"), ("v", 50, 60, "x")]
    rows: list[Row] = [("v", 80, 90, "x", 0.9), ("v", 0, 10, "x", 0.8), ("v", 50, 60, "x", 0.7)]
    result = diagnosed(rows, truth, [0.5]).false_positives
    assert result.average_mAP_N == pytest.approx(2 / 3)
    assert dict(zip(ERROR_TYPES[1:], result.gain, strict=True)) == pytest.approx(
        {"double detection": 0, "wrong label": 0, "localization": 0, "confusion": 0, "background": 1 / 3}
    )


def test_detections_beyond_ten_groups_do_not_count_in_the_profile() -> None:
    truth: list[Span] = [("v", 0, 10, "x")]
    rows: list[Row] = [("v", 50, 60, "x", 1 - k / 100) for k in range(10)]
    hit: Row = ("v", 0, 10, "x", 0.5)
    # The 11th of one: outside. As the 10th of ten: inside, at precision_N 1/10.
    outside = diagnosed([*rows, hit], truth, [0.5])
    inside = diagnosed([*rows[:9], hit], truth, [0.5])
    assert outside.false_positives.average_mAP_N == 0
    assert inside.false_positives.average_mAP_N == pytest.approx(0.1)
    assert outside.sensitivity.average_mAP_N == pytest.approx(1 / 11)  # the other analyses take all detections


# Short (5 s): found at rank 1 of 2 annotations; long (50 s): found at rank 3, after one false positive. N = 4.
TRUTH: list[Span] = [("v", 0, 5, "x"), ("v", 10, 15, "x"), ("w", 0, 50, "x"), ("w", 50, 99, "x")]
ROWS: list[Row] = [("v", 0, 5, "x", 0.9), ("v", 80, 90, "x", 0.8), ("w", 0, 50, "x", 0.7)]


def test_sensitivity_and_false_negatives_by_hand() -> None:
    result = diagnosed(ROWS, TRUTH, [0.5], bins="activitynet")
    assert result.characteristics[1].name == "length"
    short, middle, long, *_ = result.sensitivity.by_group["length"].tolist()
    assert short == pytest.approx(1 / 2)  # recall 1/2 at precision 1; the long one's detection is left out
    # 49 and 50 s are "S" (30 to 60): found at recall 1/2 after one false positive: (1/2 * 4) / (1/2 * 4 + 1).
    assert middle == pytest.approx(1 / 2 * 2 / 3)
    assert math.isnan(long)
    assert result.false_negatives.by_group["length"][:2].tolist() == [0.5, 0.5]
    assert result.false_negatives.rate == 0.5


def test_relative_change_by_hand() -> None:
    # As above: short 1/2 and middle 1/3, all: recall 1/4 at precision 1 and 1/2 at 2/3 (N = 4): 1/4 + 1/4 * 2/3.
    result = diagnosed(ROWS, TRUTH, [0.5], bins="activitynet").sensitivity
    assert result.average_mAP_N == pytest.approx(5 / 12)
    assert result.relative_change()["length"] == pytest.approx((1 / 3 / (5 / 12) - 1, 1 / 2 / (5 / 12) - 1))
    assert result.to_json()["relative_change"]["length"] == list(result.relative_change()["length"])
    nothing = diagnosed([], TRUTH, [0.5], bins="activitynet").sensitivity
    assert nothing.to_json()["relative_change"] == {kind: [None] * 2 for kind in ("coverage", "length", "instances")}


def test_a_find_at_a_hopeless_precision_is_a_false_negative() -> None:
    truth: list[Span] = [("v", 0, 10, "x")]
    for wrong, missed in ((18, 0.0), (19, 1.0)):  # precision_N 1/19 and, exactly the bound, 1/20
        rows: list[Row] = [("v", 50, 60, "x", 1 - k / 100) for k in range(wrong)]
        result = diagnosed([*rows, ("v", 0, 10, "x", 0.5)], truth, [0.5])
        assert result.false_negatives.rate == missed


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        ("activitynet", {"coverage": [2, 1, 0, 0, 2], "length": [3, 0, 1, 0, 1], "instances": [1, 4, 0, 0]}),
        ("thumos14", {"coverage": [0, 0, 0, 0, 5], "length": [0, 0, 0, 0, 5], "instances": [1, 4, 0, 0]}),
    ],
)
def test_groups_of_the_tool(bins: Any, expected: dict[str, list[int]]) -> None:
    # 20 s of 100 s: coverage exactly 0.2, which belongs to the lower group; 250 s of 100 s counts as 1.
    truth: list[Span] = [
        ("v", 0, 20, "x"),
        ("v", 20, 40, "x"),
        ("v", 0, 30, "x"),
        ("v", 0, 100, "x"),
        ("w", 0, 250, "y"),
    ]
    groups = diagnosed([], truth, [0.5], bins=bins).characteristics
    assert {kind.name: [entry["annotations"] for entry in kind.to_json()] for kind in groups} == expected
    if bins == "activitynet":
        assert groups[0].ranges == ("≤ 20", "20–40", "40–60", "60–80", "> 80")
        assert groups[0].to_json()[0]["range"] == "≤ 20 %"
        assert groups[2].ranges == ("1", "2–4", "5–8", "≥ 9")


def test_quantile_groups_are_about_equal_and_bounds_differ() -> None:
    rng = np.random.default_rng(1)
    truth: list[Span] = [(f"v{k}", 0, float(length), "x") for k, length in enumerate(rng.exponential(8, 1000) + 0.1)]
    coverage, length, instances = characteristics_of(
        match_detections({}, truth_of(truth), [0.5]).truth, truth_of(truth), "quantile"
    )
    for kind in (coverage, length):
        sizes = np.bincount(kind.group, minlength=5)
        assert len(sizes) == 5
        assert sizes.min() > 150
    assert instances.sizes == ("all",)  # every video has one: nothing to part
    assert instances.ranges == ("all",)


def test_data_sets_are_known_by_their_videos() -> None:
    def named(names: list[str], classes: int) -> Annotations:
        return Annotations({name: VideoAnnotation(name, (f"c{k % classes}",)) for k, name in enumerate(names)})

    assert choose_bins(named([f"video_test_{k:07d}" for k in range(40)], 20)) == "thumos14"
    assert choose_bins(named([f"v_{k:011d}" for k in range(400)], 200)) == "activitynet"
    assert choose_bins(named([f"{k:011d}" for k in range(400)], 100)) == "activitynet"
    assert choose_bins(named([f"{k:011d}" for k in range(400)], 20)) == "quantile"
    assert choose_bins(named(["clip"], 1)) == "quantile"


def test_bounds_are_told_with_few_digits_that_keep_them_apart() -> None:
    def ranges(*lengths: float) -> list[tuple[str, ...]]:
        truth = truth_of([("v", 10.0 * k, 10 * k + length, "x") for k, length in enumerate(lengths)])
        groups = characteristics_of(match_detections({}, truth, [0.5]).truth, truth, "quantile")
        assert [kind.title for kind in groups] == ["coverage (%)", "length (s)", "instances in the video"]
        return [kind.ranges for kind in groups[:2]]

    # Of a video of 100 s, so that seconds are percent.
    assert ranges(0.1, 0.5222, 0.9123, 1.44, 2.78, 5) == [("≤ 0.52", "0.52–0.91", "0.91–1.4", "1.4–2.8", "> 2.8")] * 2
    assert ranges(0.9, 1.01, 1.02, 1.03, 1.04, 9) == [("≤ 1.01", "1.01–1.02", "1.02–1.03", "1.03–1.04", "> 1.04")] * 2
    assert ranges(0.9, 5, 12.34, 99.7, 123.4, 900)[1] == ("≤ 5", "5–12", "12–100", "100–123", "> 123")


def test_without_durations_coverage_is_left_out() -> None:
    truth: list[Span] = [("v", 0, 20, "x")]
    result = diagnose(match_detections({}, annotations_of(truth), [0.5]))
    assert [kind.name for kind in result.characteristics] == ["length", "instances"]
    assert result.false_negatives.rate == 1
    assert result.false_positives.average_mAP_N == 0


span = st.tuples(
    st.sampled_from("uvw"), st.integers(0, 12).map(float), st.integers(1, 8).map(float), st.sampled_from("xyz")
)


@given(
    truth=st.lists(span, min_size=1, max_size=10),
    detections=st.lists(st.tuples(span, st.integers(0, 6)), max_size=40),
    thresholds=st.sampled_from([[0.5], [0.25, 0.5, 0.75]]),
)
@settings(max_examples=150, deadline=None)
def test_equals_its_twin(
    truth: list[tuple[str, float, float, str]],
    detections: list[tuple[tuple[str, float, float, str], int]],
    thresholds: list[float],
) -> None:
    spans: list[Span] = [(video, start, start + length, label) for video, start, length, label in truth]
    rows: list[Row] = [
        (video, start, start + size, label, score / 6) for (video, start, size, label), score in detections
    ]
    rows.sort(key=lambda row: row[0])
    annotations = truth_of(spans)
    # The order of the compiled table: by video as given, then by class.
    order = list(annotations)
    spans.sort(key=lambda row: (order.index(row[0]), row[3]))
    result = diagnose(match_detections(detections_of(rows), annotations, thresholds), bins="thumos14")
    twin = Twin(rows, spans, thresholds)

    share, base, gain = twin.false_positives()
    np.testing.assert_allclose(result.false_positives.share, share, atol=1e-12)
    assert result.false_positives.average_mAP_N == pytest.approx(base, abs=1e-12)
    assert result.false_positives.gain.tolist() == pytest.approx(gain, abs=1e-12)
    everything = set(range(len(spans)))
    assert result.sensitivity.average_mAP_N == pytest.approx(twin.sensitivity(everything), abs=1e-12)
    assert result.false_negatives.rate == pytest.approx(twin.false_negative_rate(everything), abs=1e-12)
    for kind in result.characteristics:
        for group in range(len(kind.sizes)):
            wanted = set(np.flatnonzero(kind.group == group).tolist())
            expected = twin.sensitivity(wanted) if wanted else math.nan
            assert result.sensitivity.by_group[kind.name][group] == pytest.approx(expected, abs=1e-12, nan_ok=True)
            expected = twin.false_negative_rate(wanted) if wanted else math.nan
            assert result.false_negatives.by_group[kind.name][group] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.fixture(scope="module")
def authors(shared_data: Path) -> list[Matching]:
    """The authors' detections before and after refinement."""
    release = shared_data / "refineloc-release"
    truth = read_annotations(release / "activitynet_v1-2_valid_groundtruth.csv")
    files = (release / f"valid_predictions_iteration_000{index}.json" for index in (0, 1))
    return [match_detections(read_detections(path), truth) for path in files]


def test_the_figures_of_the_documentation(authors: list[Matching]) -> None:
    """docs/explanation/diagnosis.md, to four digits: true positives, wrong labels, ... of the best G; mAP_N; missed.

    They show what the paper's Figure 3 shows: more true positives, fewer of localization and background, fewer missed.
    """
    diagnoses = [diagnose(matching) for matching in authors]
    shares = (
        [0.1376, 0.0, 0.0060, 0.5394, 0.0287, 0.2883],
        [0.2416, 0.0, 0.0295, 0.4649, 0.0668, 0.1972],
    )
    for diagnosis, share, average, missed, coverage in zip(
        diagnoses, shares, (0.09823, 0.19474), (0.8114, 0.7076), ((0.0387, 0.2050), (0.0361, 0.4842)), strict=True
    ):
        assert diagnosis.bins == "activitynet"
        assert diagnosis.false_positives.share[0].tolist() == pytest.approx(share, abs=5e-5)
        np.testing.assert_allclose(diagnosis.false_positives.share.sum(axis=1), 1)
        assert diagnosis.sensitivity.average_mAP_N == pytest.approx(average, abs=5e-6)
        assert diagnosis.false_negatives.rate == pytest.approx(missed, abs=5e-5)
        groups = diagnosis.sensitivity.by_group["coverage"]
        assert (groups[0], groups[4]) == pytest.approx(coverage, abs=5e-5)
    gain = dict(zip(ERROR_TYPES[1:], diagnoses[1].false_positives.gain, strict=True))
    assert (gain["localization"], gain["background"]) == pytest.approx((0.0553, 0.0119), abs=5e-5)
    assert diagnoses[1].false_positives.average_mAP_N == pytest.approx(0.19474, abs=5e-6)
    assert diagnoses[1].sensitivity.relative_change()["coverage"] == pytest.approx((-0.8147, 1.4863), abs=5e-5)


def test_the_tools_figures_without_annotations_longer_than_their_video(authors: list[Matching]) -> None:
    """docs/explanation/diagnosis.md, where it differs from DETAD's tool: what its rule of dropping them comes to."""
    kept, excess = {}, []
    for name, video in authors[1].annotations.items():
        length = video.end - video.start
        inside = (length <= video.duration_s) & (length > 0)
        excess += (length[length > video.duration_s] / video.duration_s - 1).tolist()
        labels = tuple(label for label, good in zip(video.segment_labels, inside, strict=True) if good)
        kept[name] = replace(video, start=video.start[inside], end=video.end[inside], segment_labels=labels)
    assert len(excess) == 118
    assert np.median(excess) == pytest.approx(0.0007, abs=5e-5)
    dropped = diagnose(match_detections(authors[1].detections, Annotations(kept)))
    assert dropped.sensitivity.average_mAP_N == pytest.approx(0.177, abs=5e-4)
    assert kinds(dropped)["true positive"] == pytest.approx(0.226, abs=5e-4)

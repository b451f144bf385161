"""Measures beside the kit's mAP: by hand, against plain transcriptions, and on the authors' predictions."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from by_hand import annotations_of, detections_of
from hypothesis import given, settings
from hypothesis import strategies as st

from refineloc._ext.matching import average_precision
from refineloc.evaluation import average_recall, bootstrap, compare, evaluate, match_detections
from refineloc.evaluation.cli.evaluate import main
from refineloc.runtime.annotations import Annotations, read_annotations, read_regions
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import AnnotationError, ConfigError

Times = list[tuple[float, float]]
Scored = list[tuple[float, float, float]]


def truth_of(videos: Mapping[str, Times]) -> Annotations:
    """Segments of one class."""
    return annotations_of([(name, *times, "x") for name, spans in videos.items() for times in spans], tuple(videos))


def scored(videos: Mapping[str, Scored]) -> dict[str, Detections]:
    """Detections of one class, from (start, end, score)."""
    return detections_of(
        [(name, start, end, "x", score) for name, rows in videos.items() for start, end, score in rows]
    )


def test_without_interpolation() -> None:
    truth = truth_of({"v": [(0, 5), (10, 15)]})
    # hit, miss, miss, hit: precision at the hits is 1 and 2/4.
    detections = scored({"v": [(0, 5, 0.9), (30, 35, 0.8), (40, 45, 0.7), (10, 15, 0.6)]})
    assert evaluate(match_detections(detections, truth, [0.5]), interpolated=False).mAP.tolist() == [0.75]
    # miss, hit, hit: interpolation lifts the first hit's 1/2 to 2/3.
    detections = scored({"v": [(30, 35, 0.9), (0, 5, 0.8), (10, 15, 0.6)]})
    assert evaluate(match_detections(detections, truth, [0.5]), interpolated=False).mAP.tolist() == pytest.approx(
        [(1 / 2 + 2 / 3) / 2]
    )
    assert evaluate(match_detections(detections, truth, [0.5])).mAP.tolist() == pytest.approx([2 / 3])


def test_ambiguous_regions_ignore_false_positives_only() -> None:
    truth = truth_of({"v": [(0, 5)], "w": [(0, 5)]})
    detections = scored({"v": [(20, 25, 0.9), (0, 5, 0.8), (30, 35, 0.7)], "w": [(20, 25, 0.6), (0, 5, 0.5)]})
    assert evaluate(match_detections(detections, truth, [0.5])).mAP.tolist() == pytest.approx([(1 / 2 + 2 / 5) / 2])
    # v's first false positive overlaps a region, and so does its hit, which stays; w's is another video's.
    regions = {"v": [(24.0, 40.0), (0.0, 1.0)], "absent": [(0.0, 99.0)]}
    ignored = evaluate(match_detections(detections, truth, [0.5], ambiguous=regions))
    assert ignored.mAP.tolist() == pytest.approx([(1 + 2 / 3) / 2])
    # Regions that only touch do not overlap.
    touching = match_detections(detections, truth, [0.5], ambiguous={"v": [(25.0, 30.0)]})
    assert evaluate(touching).mAP.tolist() == pytest.approx([9 / 20])


def test_ambiguous_regions_can_drop_right_detections_too() -> None:
    # v: truth    [====]    [====]              0-5, 10-15
    #    region        [==]                     4-7
    #    0.9      [====]                        overlaps it: gone, so that
    #    0.8      [==]                          0-3, tIoU 0.6, takes the annotation
    #    0.7           [=]                      5-6 overlaps it: gone
    #    0.6                [====]              hit
    #    0.5                     [====]         15-20: a false positive
    truth = truth_of({"v": [(0, 5), (10, 15)], "w": [(0, 5)]})
    rows = [(0, 5, 0.9), (0, 3, 0.8), (5, 6, 0.7), (10, 15, 0.6), (15, 20, 0.5)]
    detections = scored({"v": rows, "w": [(0, 5, 0.4)]})  # w's lie in no region of w
    matching = match_detections(detections, truth, [0.5], ambiguous={"v": [(4.0, 7.0)]}, ambiguous_rule="drop")
    assert matching.score.tolist() == [0.8, 0.6, 0.5, 0.4]
    assert matching.hits.tolist() == [[1, 1, 0, 1]]
    assert evaluate(matching).mAP.tolist() == pytest.approx([(1 + 1 + 3 / 4) / 3])
    assert average_recall(matching, [1]).tolist() == pytest.approx([2 / 3])
    assert [len(video) for video in matching.detections.values()] == [3, 1]
    # Spared: the first hit stays, the second detection of its annotation becomes a false positive outside the region.
    spared = match_detections(detections, truth, [0.5], ambiguous={"v": [(4.0, 7.0)]})
    assert spared.hits.tolist() == [[1, 0, -1, 1, 0, 1]]
    with pytest.raises(ConfigError, match="expected 'spare' or 'drop', got 'all'"):
        match_detections(detections, truth, [0.5], ambiguous={}, ambiguous_rule="all")  # type: ignore[arg-type]


def test_the_rule_of_ambiguous_regions_is_an_option(
    tmp_path: Path, call_program: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "truth.csv").write_text("video-name,t-start,t-end,label\nv,0,5,x\nv,10,15,x\n")
    (tmp_path / "found.csv").write_text("video-name,t-start,t-end,label,score\nv,0,5,x,0.9\nv,10,15,x,0.8\n")
    (tmp_path / "regions.txt").write_text("v 4.0 7.0\n")
    files = ("found.csv", "truth.csv", "--tiou", "0.5", "--json", "out.json")
    for options, expected in [
        (("--ambiguous", "regions.txt"), 1.0),
        (("--ambiguous", "regions.txt", "--ambiguous-rule", "spare"), 1.0),
        (("--ambiguous", "regions.txt", "--ambiguous-rule", "drop"), 0.5),
    ]:
        assert call_program(main, *files, *options).returncode == 0
        assert json.loads((tmp_path / "out.json").read_text())["average_mAP"] == expected
    done = call_program(main, *files, "--ambiguous-rule", "drop")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--ambiguous-rule: goes with --ambiguous FILE" in done.stderr


@given(
    hits=st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 3)), max_size=25),
    interpolated=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_weights_are_copies(hits: list[tuple[int, int]], interpolated: bool) -> None:
    """Interpolated AP with whole weights is that of as many copies; without weights it equals a plain transcription."""
    kinds = np.array([[kind for kind, _ in hits]], dtype=np.int8).reshape(1, -1)
    weights = np.array([weight for _, weight in hits], dtype=np.float64)
    total = np.array([30.0])

    def plain(sequence: list[int]) -> float:
        seen = [kind for kind in sequence if kind >= 0]
        precision = np.cumsum(seen) / np.arange(1, len(seen) + 1)
        if interpolated and len(seen):
            precision = np.maximum.accumulate(precision[::-1])[::-1]
        return float(sum(p for p, kind in zip(precision, seen, strict=True) if kind == 1)) / 30.0

    bounds = np.array([0, len(hits)])
    alone = average_precision(kinds, bounds, total, interpolated=interpolated)
    assert alone[0, 0] == pytest.approx(plain([kind for kind, _ in hits]), abs=1e-12)
    if interpolated:
        weighted = average_precision(kinds, bounds, total, weights=weights)
        assert weighted[0, 0] == pytest.approx(plain([kind for kind, weight in hits for _ in range(weight)]), abs=1e-12)


def many(rng: np.random.Generator, videos: int) -> tuple[dict[str, Detections], Annotations]:
    truth, detections = {}, {}
    for index in range(videos):
        starts = rng.uniform(0, 100, 4)
        truth[f"v{index}"] = [(float(s), float(s) + 5) for s in starts]
        near = np.concatenate([starts + rng.normal(0, 2, 4), rng.uniform(0, 100, 4)])
        scores = rng.random(8)
        detections[f"v{index}"] = [
            (float(s), float(s) + 5, float(score)) for s, score in zip(near, scores, strict=True)
        ]
    return scored(detections), truth_of(truth)


def test_bootstrap_is_seeded_and_narrows_with_more_videos() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for videos in (20, 320):
        matching = match_detections(*many(rng, videos), [0.5])
        first, same, other = (bootstrap(matching, resamples=300, seed=seed).average_mAP for seed in (1, 1, 2))
        assert first == same != other
        low, high = first
        assert low < evaluate(matching).average_mAP < high
        widths.append(high - low)
    # The standard error falls with the root of the number of videos: 4 times here.
    assert 2.5 < widths[0] / widths[1] < 6


def test_bootstrap_covers_what_it_says() -> None:
    """Of the mAP of many samples of videos, about as many lie in the interval of one as its level says."""
    rng = np.random.default_rng(3)
    interval = bootstrap(match_detections(*many(rng, 100), [0.5]), resamples=500, level=0.8)
    low, high = interval.average_mAP
    others = [evaluate(match_detections(*many(rng, 100), [0.5])).average_mAP for _ in range(150)]
    # Another sample differs from this one by the error of both: a normal's 80 % interval then holds about 64 %.
    assert 0.4 < np.mean([low <= value <= high for value in others]) < 0.9


def test_intervals_stay_within_0_and_1() -> None:
    # Few videos, one of which is detections almost rightly: the resamples' scores lie far apart.
    detections, truth = many(np.random.default_rng(1), 3)
    for seed in range(5):
        weak = match_detections(detections, truth, [0.5, 0.8, 0.95])
        perfect = {
            name: Detections(v.start, v.end, np.ones(4), np.zeros(4, np.int64), ("x",)) for name, v in truth.items()
        }
        strong = match_detections({**perfect, "v0": detections["v0"]}, truth, [0.5, 0.8])
        for matching in (weak, strong):
            intervals = bootstrap(matching, resamples=100, level=0.99, seed=seed)
            for values in (intervals.mAP, intervals.classes, np.array(intervals.average_mAP)):
                assert values.min() >= 0
                assert values.max() <= 1


def test_bootstrap_refuses_nonsense() -> None:
    matching = match_detections(*many(np.random.default_rng(0), 2))
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap(matching, resamples=0)
    with pytest.raises(ConfigError, match="level"):
        bootstrap(matching, level=1.0)


def worse(detections: dict[str, Detections], shift: float) -> dict[str, Detections]:
    return {name: dataclasses.replace(v, start=v.start + shift, end=v.end + shift) for name, v in detections.items()}


def test_a_difference_is_that_of_the_figures_and_its_interval_is_paired() -> None:
    """Detections a little later are a little worse in every video: what videos differ in does not hide that."""
    detections, truth = many(np.random.default_rng(0), 40)
    matching, other = (match_detections(each, truth, [0.3, 0.5]) for each in (detections, worse(detections, 0.2)))
    first, second = evaluate(matching), evaluate(other)
    difference = compare(matching, other, resamples=300, seed=1)
    assert difference.average_mAP == pytest.approx(first.average_mAP - second.average_mAP)
    np.testing.assert_allclose(difference.mAP, first.mAP - second.mAP)
    low, high = difference.average_mAP_interval
    assert low < difference.average_mAP < high
    own = bootstrap(matching, resamples=300, seed=1).average_mAP
    assert high - low < 0.6 * (own[1] - own[0])
    assert (difference.mAP_interval[0] < difference.mAP).all()
    assert (difference.mAP < difference.mAP_interval[1]).all()
    assert compare(matching, other, resamples=300, seed=1).average_mAP_interval == (low, high)
    assert compare(matching, matching, resamples=20).average_mAP_interval == (0.0, 0.0)
    reverse = compare(other, matching, resamples=300, seed=1)
    assert reverse.average_mAP_interval == pytest.approx((-high, -low))
    document = difference.to_json(first)
    assert document["average_mAP"] == [difference.average_mAP, low, high]
    assert list(document["mAP"]) == ["0.30", "0.50"]


def test_only_what_is_matched_alike_is_compared() -> None:
    detections, truth = many(np.random.default_rng(0), 2)
    matching = match_detections(detections, truth, [0.5])
    for other in (
        match_detections(detections, truth, [0.6]),
        match_detections(detections, truth_of({"v": [(0, 1)]}), [0.5]),
    ):
        with pytest.raises(ConfigError, match="the same annotations and thresholds"):
            compare(matching, other)
    with pytest.raises(ConfigError, match="resamples"):
        compare(matching, matching, resamples=0)


def test_average_recall_by_hand() -> None:
    truth = truth_of({"v": [(0, 10), (20, 30)], "w": [(0, 10)], "zero": [(3, 3)]})
    detections = scored({"v": [(0, 6, 0.5), (20, 30, 0.9), (0, 10, 0.1)], "w": []})
    # Best 1 of v: one of three annotations. Best 2: (0, 6) covers (0, 10) with tIoU 0.6, enough at 0.5 only.
    # Best 3: two of three.
    matching = match_detections(detections, truth, [0.5, 0.75])
    got = average_recall(matching, [1, 2, 3, 99])
    assert got.tolist() == pytest.approx([1 / 3, (2 / 3 + 1 / 3) / 2, 2 / 3, 2 / 3])
    with pytest.raises(ConfigError, match="at least 1"):
        average_recall(matching, [0])


def test_region_files(tmp_path: Path, shared_data: Path) -> None:
    regions = read_regions(shared_data / "wtalc-thumos14reduced" / "Ambiguous_test.txt")
    assert regions["video_test_0000278"] == [(0.0, 1.4), (95.7, 97.2)]
    (tmp_path / "bad.txt").write_text("v 1.0\n")
    with pytest.raises(AnnotationError, match="line 1: expected VIDEO START END"):
        read_regions(tmp_path / "bad.txt")
    with pytest.raises(AnnotationError, match="no such file"):
        read_regions(tmp_path / "absent.txt")


def test_the_program_on_the_authors_predictions(
    shared_data: Path, tmp_path: Path, call_program: Callable[..., CompletedProcess[str]]
) -> None:
    folder = shared_data / "refineloc-release"
    truth = folder / "activitynet_v1-2_valid_groundtruth.csv"
    detections = folder / "valid_predictions_iteration_0001.json"
    done = call_program(main, detections, truth, "--bootstrap", "100", "--recall", "1,100", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    out = json.loads((tmp_path / "out.json").read_text())
    low, high = out["intervals"]["average_mAP"]
    assert low < out["average_mAP"] < high
    assert 0.01 < high - low < 0.04
    assert out["intervals"]["shift"] > 0  # 100 classes, few videos each: plain percentiles would leave the figure out
    assert 0 < out["average_recall"]["1"] < out["average_recall"]["100"] < 1
    plain = evaluate(match_detections(read_detections(detections), read_annotations(truth)), interpolated=False)
    assert 0.9 * out["average_mAP"] < plain.average_mAP < out["average_mAP"]

"""What is odd in a ground truth and in detections: counted and named, or an error where the figure would be wrong."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from by_hand import Row, Span, annotations_of, detections_of

from refineloc.evaluation import average_recall, bootstrap, check_plausible, diagnose, evaluate, match_detections
from refineloc.evaluation.cli.evaluate import main
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import AnnotationError, DetectionError
from refineloc.runtime.segments.odd import odd_segments

TRUTH: list[Span] = [("a", 10, 20, "run"), ("a", 30, 40, "jump"), ("b", 5, 15, "run")]
FOUND: list[Row] = [("a", 10, 20, "run", 0.9), ("a", 30, 40, "jump", 0.8), ("b", 5, 15, "run", 0.7)]


def truth_of(rows: list[Span], duration_s: float | None = 60.0, fps: float | None = 25.0) -> Annotations:
    annotations = annotations_of(rows, duration_s=duration_s)
    return Annotations({name: replace(video, fps=fps) for name, video in annotations.items()}, "truth.json")


def scaled(factor: float) -> list[Row]:
    return [(name, start * factor, end * factor, label, score) for name, start, end, label, score in FOUND]


def lines(rows: list[Row], truth: Annotations, keep_empty: bool = False) -> list[str]:
    return [doubt.text for doubt in check_plausible(detections_of(rows), truth, name="found", keep_empty=keep_empty)]


def test_nothing_is_said_of_what_is_right() -> None:
    assert lines(FOUND, truth_of(TRUTH)) == []
    # A duration may be rounded, and a segment may end with the last frame after it.
    assert lines([*FOUND, ("a", 50, 60.9, "run", 0.5)], truth_of(TRUTH)) == []


def test_each_segment_is_odd_in_one_way_and_the_first_is_named() -> None:
    rows: list[Row] = [
        ("a", 20, 10, "x", 1),
        ("a", 5, -1, "x", 1),
        ("a", 7, 7, "x", 1),
        ("b", -3, 4, "x", 1),
        ("b", -3, 100, "x", 1),
        ("b", 0, 62, "x", 1),
        ("c", 70, 80, "x", 1),
    ]
    odd = odd_segments(detections_of(rows), {"a": 60.0, "b": 60.0, "c": None})
    assert [tuple(kind) for kind in odd] == [
        ("reversed", 2, "a", 20, 10),
        ("empty", 1, "a", 7, 7),
        ("negative", 2, "b", -3, 4),
        ("beyond", 1, "b", 0, 62),
    ]
    assert odd[0].line("detection", 7, "left out") == (
        "2 of 7 detections end before their start, the first in video 'a' (20 to 10 s); left out"
    )


def test_odd_annotations_and_detections_are_counted_and_named() -> None:
    odd = truth_of([*TRUTH, ("b", 20, 10, "run"), ("b", 30, 90, "run")])
    assert lines(FOUND, odd) == [
        "truth.json: 1 of 5 annotations ends before its start, the first in video 'b' (20 to 10 s); left out",
        "truth.json: 1 of 5 annotations ends past its video's end, the first in video 'b' (30 to 90 s); kept as in the "
        "file",
    ]
    assert "kept, and found by no detection" in lines(FOUND, odd, keep_empty=True)[0]
    (line,) = lines([*FOUND, ("b", 9, 9, "run", 0.5)], truth_of(TRUTH))
    assert line.startswith("found: 1 of 4 detections has length 0, the first in video 'b' (9 to 9 s); false positives")


def test_no_measure_stumbles_over_odd_segments() -> None:
    spans: list[tuple[float, float]] = [(20, 10), (7, 7), (-5, 5), (-9, -2), (500, 900), (10, 20), (10, -1)]
    truth = truth_of([("a", *span, "x") for span in spans])
    rows: list[Row] = [("a", *span, "x", score) for score, span in enumerate([*spans, (15, 5), (20, 0)])]
    plain = [row for row in rows if row[2] > row[1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for keep_empty in (False, True):
            matching = match_detections(detections_of(rows), truth, [0.3, 0.7], keep_empty=keep_empty)
            results = [evaluate(matching).ap, bootstrap(matching, resamples=5).mAP, average_recall(matching, [1, 100])]
            assert all(np.isfinite(result).all() for result in results)
            assert results[2][1] == pytest.approx(1.0)  # all that can be found is among the detections
            # The diagnosis is that of the detections without the odd ones.
            without = match_detections(detections_of(plain), truth, [0.3, 0.7], keep_empty=keep_empty)
            assert diagnose(matching).to_json() == diagnose(without).to_json()


def test_kept_annotations_of_no_length_count_as_missed() -> None:
    truth = truth_of([*TRUTH, ("b", 7, 7, "run"), ("b", 20, 10, "jump")])
    kept = evaluate(match_detections(detections_of(FOUND), truth, [0.5], keep_empty=True))
    assert dict(zip(kept.classes, kept.instances.tolist(), strict=True)) == {"jump": 2, "run": 3}
    assert kept.ap.ravel().tolist() == pytest.approx([1 / 2, 2 / 3])
    assert evaluate(match_detections(detections_of(FOUND), truth, [0.5])).ap.ravel().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("factor", "fps", "unit"),
    [
        (25, 25, "frames"),
        (29.97, 29.97, "frames"),
        (25, None, "frames"),
        (60, None, "frames"),
        (1000, 25, "milliseconds"),
    ],
)
def test_frames_and_milliseconds_are_errors(factor: float, fps: float | None, unit: str) -> None:
    wrong = scaled(factor)
    with pytest.raises(DetectionError, match=f"found: the detections seem to be in {unit}: .* in video 'a'; give sec"):
        lines(wrong, truth_of(TRUTH, fps=fps))
    with pytest.raises(AnnotationError, match=f"truth.json: the annotations seem to be in {unit}"):
        lines(FOUND, truth_of([row[:4] for row in wrong], fps=fps))


def test_percent_is_an_error_where_most_end_after_their_video() -> None:
    rows: list[Row] = [("a", 10 * k, 10 * k + 9, "run", 0.5) for k in range(10)]
    truth = truth_of([("a", 1, 5, "run")], 20.0)
    with pytest.raises(DetectionError, match="found: the detections seem to be in percent of their video: most end"):
        lines(rows, truth)
    # As many frames as a video of three seconds has, and a file that states a duration too short.
    with pytest.raises(DetectionError, match="seem to be in frames"):
        lines(rows, truth_of([("a", 1, 2, "run")], 3.0))
    (doubt,) = lines(rows[:5], truth)
    assert "end past their video" in doubt


def test_shares_are_errors() -> None:
    wrong = scaled(1 / 60)
    for duration_s in (60.0, None):
        with pytest.raises(DetectionError, match=r"seem to be in shares of their video"):
            lines(wrong, truth_of(TRUTH, duration_s))
        with pytest.raises(AnnotationError, match=r"seem to be in shares of their video"):
            lines(FOUND, truth_of([row[:4] for row in wrong], duration_s))


@pytest.mark.parametrize(
    ("rows", "duration_s"),
    [
        ([("a", 0, 0.64, "run", 0.9), ("b", 0, 0.64, "run", 0.8), ("a", 0, 0.64, "jump", 0.7)], 60.0),  # first snippets
        ([("a", 0.2, 0.9, "run", 0.9), ("b", 0.3, 0.5, "run", 0.8)], 60.0),  # too few to tell
        ([("a", 0.2, 0.9, "run", 0.9)] * 5, 2.0),  # short videos
        ([("a", 70, 80, "run", 0.9)] * 5, 60.0),  # past the end, but in no other unit
        ([("a", 0, 10_000, "run", 0.9)] * 5, None),  # nobody knows how long the video is
    ],
)
def test_what_may_be_meant_is_no_error(rows: list[Row], duration_s: float | None) -> None:
    truth = truth_of(TRUTH if duration_s != 2 else [("a", 0.2, 0.9, "run")], duration_s)
    lines([*rows], truth)


def test_most_of_them_reversed_is_an_error() -> None:
    lengths: list[Row] = [(name, start, 4, label, score) for name, start, _, label, score in FOUND]
    message = (
        r"found: the detections have their ends before their starts, such as 10 to 4 s in video 'a'; are they start"
    )
    with pytest.raises(DetectionError, match=message):
        lines([*lengths, ("b", 7, 6, "run", 0.5)], truth_of(TRUTH))


def test_minutes_are_a_doubt() -> None:
    truth = truth_of(TRUTH, 600.0)
    assert lines(scaled(10 / 60), truth) == [
        "found: the detections end within the first 1.1 % of their videos; are they in minutes?"
    ]
    assert lines(scaled(0.5), truth) == []


def test_missing_videos_and_no_detections_are_told() -> None:
    (line,) = lines(FOUND[:2], truth_of(TRUTH))
    assert line.startswith(
        "found: lacks 1 of 2 annotated videos, the first is 'b'; all that is in them counts as missed"
    )
    # Nothing was found there, and the file says so.
    empty = detections_of([("b", 0, 1, "run", 1)])["b"]
    empty = replace(empty, start=empty.start[:0], end=empty.end[:0], score=empty.score[:0])
    assert check_plausible({**detections_of(FOUND[:2]), "b": empty}, truth_of(TRUTH)) == []
    third = truth_of([*TRUTH, ("c", 1, 9, "run")])
    assert lines(FOUND, third) == []  # one of three
    (line,) = lines([], truth_of(TRUTH))
    assert line.startswith("found: holds no detection, so every figure is 0")


def test_labels_without_segments_and_ambiguous_are_told() -> None:
    annotations = truth_of([*TRUTH, ("b", 1, 2, "Ambiguous")])
    (doubt,) = check_plausible(detections_of(FOUND), annotations)
    assert "'Ambiguous' is evaluated as a class" in doubt.text
    assert doubt.parameter == "ambiguous"
    weak = Annotations(
        {**truth_of(TRUTH), "c": replace(truth_of(TRUTH)["b"], name="c", labels=("jump", "run"))}, "truth"
    )
    (line,) = lines([*FOUND, ("c", 5, 15, "run", 0.5)], weak)
    assert "1 label of a video without a segment, the first is 'jump' of video 'c'" in line


def test_several_subsets(tmp_path: Path, call_program: Callable[..., CompletedProcess[str]]) -> None:
    def entry(subset: str, *segments: list[float]) -> dict[str, object]:
        return {
            "subset": subset,
            "duration": 60,
            "annotations": [{"label": "run", "segment": each} for each in segments],
        }

    database = {"a": entry("training", [1, 9]), "b": entry("validation", [1, 9]), "c": entry("testing")}
    (tmp_path / "truth.json").write_text(json.dumps({"database": database}))
    found = {name: [{"label": "run", "segment": [1, 9], "score": 1}] for name in ("a", "b")}
    (tmp_path / "b.json").write_text(json.dumps({"results": {"b": found["b"]}}))
    (tmp_path / "both.json").write_text(json.dumps({"results": found}))
    done = call_program(main, "b.json", "truth.json")
    assert done.returncode == 2
    assert "subsets: training (1 video), validation (1 video). b.json has videos of 'validation' alone" in done.stderr
    assert done.stderr.endswith("choose the subset (--subset)\n")
    done = call_program(main, "b.json", "truth.json", "--subset", "validation")
    assert (done.returncode, done.stderr) == (0, "")
    done = call_program(main, "both.json", "truth.json")
    assert done.returncode == 0
    assert done.stderr.startswith(
        "warning: truth.json: all subsets are evaluated together: training (1 video), validation (1 video); choose one"
    )


def test_the_program_says_it_once_and_keeps_the_kit_s_way(
    tmp_path: Path, call_program: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "truth.csv").write_text("video-name,t-start,t-end,label\nv,1,9,run\nv,9,1,run\nv,1,9,Ambiguous\n")
    (tmp_path / "found.csv").write_text("video-name,t-start,t-end,label,score\nv,1,9,run,1\n")
    done = call_program(main, "found.csv", "truth.csv")
    assert (
        "truth.csv: 1 of 3 annotations ends before its start, the first in video 'v' (9 to 1 s); left out"
        in done.stderr
    )
    assert "(--ambiguous FILE)" in done.stderr
    assert done.stderr.count("\n") == 2
    assert "all\t2\t" in done.stdout
    assert "all\t3\t" in call_program(main, "found.csv", "truth.csv", "--keep-empty").stdout

"""The figures of a diagnosis: what they show, and the files that they are written to."""

import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from by_hand import Row, Span, annotations_of, detections_of

from refineloc.evaluation import Diagnosis, diagnose, match_detections
from refineloc.evaluation.pictures.diagnosis import (
    draw_false_negatives,
    draw_false_positives,
    draw_sensitivity,
    write_diagnosis,
)
from refineloc.runtime.errors import MissingExtraError

pytest.importorskip("matplotlib", reason="pictures need refineloc[plot]")

TRUTH: list[Span] = [("v", 0, 5, "x"), ("v", 10, 15, "x"), ("w", 0, 50, "x"), ("w", 50, 99, "x")]
ROWS: list[Row] = [("v", 0, 5, "x", 0.9), ("v", 80, 90, "x", 0.8), ("w", 0, 50, "x", 0.7)]


def diagnosed(rows: list[Row], truth: list[Span], duration_s: float | None = 100.0) -> Diagnosis:
    matching = match_detections(detections_of(rows), annotations_of(truth, duration_s=duration_s), [0.5])
    return diagnose(matching, bins="activitynet")


def test_files(tmp_path: Path) -> None:
    diagnosis = diagnosed(ROWS, TRUTH)
    written = write_diagnosis(tmp_path / "made" / "here", diagnosis, title="<iteration> & 1")
    pictures = [
        f"{name}.{kind}" for name in ("false_positives", "sensitivity", "false_negatives") for kind in ("png", "svg")
    ]
    assert [path.name for path in written] == ["diagnosis.json", *pictures]
    document = json.loads(written[0].read_text())
    assert document == json.loads(json.dumps(diagnosis.to_json()))
    assert document["groups"]["length"][0] == {"size": "XS", "range": "≤ 30", "annotations": 2}
    for path in written[1:]:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_a_detector_that_finds_nothing(tmp_path: Path) -> None:
    assert len(write_diagnosis(tmp_path, diagnosed([], [("v", 0, 20, "x")], duration_s=None))) == 7
    document = json.loads((tmp_path / "diagnosis.json").read_text())
    assert document["false_positives"]["share"]["background"] == [None] * 10


def test_a_group_without_annotations_has_a_dash_and_no_bar() -> None:
    """0.0 % missed would read as perfect."""
    truth: list[Span] = [("v", 0, 5, "x"), ("w", 0, 50, "x")]
    rows: list[Row] = [("v", 0, 5, "x", 0.9)]
    diagnosis = diagnosed(rows, truth)
    for draw, values in (
        (draw_sensitivity, diagnosis.sensitivity.by_group),
        (draw_false_negatives, diagnosis.false_negatives.by_group),
    ):
        axes = draw(diagnosis).axes[1]
        assert axes.get_title(loc="left") == "length (s)"
        texts = [text.get_text() for text in axes.texts]
        assert texts == ["–" if math.isnan(value) else f"{100 * value:.1f}" for value in values["length"]]
        assert texts[2:] == ["–"] * 3
        assert [bar.get_height() for bar in axes.patches[2:]] == [0] * 3
    profile = draw_false_positives(diagnosis).axes[0]
    texts = [text.get_text() for text in profile.texts if text.get_text()]
    assert texts == ["100", *["–"] * 9]  # one detection in all, in 1G


def test_no_line_strikes_through_a_number() -> None:
    """A number just below the line for all annotations stands above it; others stand on their bars."""
    diagnosis = diagnosed(ROWS, TRUTH)
    for draw in (draw_sensitivity, draw_false_negatives):
        figure = draw(diagnosis)
        figure.draw_without_rendering()
        for axes in figure.axes[: len(diagnosis.characteristics)]:
            line = axes.transData.transform((0, axes.lines[0].get_ydata()[0]))[1]
            for text in axes.texts:
                box = text.get_window_extent()
                assert box.y0 > line or box.y1 < line, text


def test_a_group_of_all_annotations_has_one_name() -> None:
    matching = match_detections({}, annotations_of([("v", 0, 20, "x")]), [0.5])
    axes = draw_false_negatives(diagnose(matching, bins="quantile")).axes[-1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all\n(100 %)"]


def test_the_span_of_each_characteristic_is_drawn() -> None:
    diagnosis = diagnosed(ROWS, TRUTH)
    spans = draw_sensitivity(diagnosis).axes[-1]
    assert [label.get_text() for label in spans.get_xticklabels()] == ["coverage", "length", "instances"]
    for bar, (low, high) in zip(spans.patches, diagnosis.sensitivity.relative_change().values(), strict=True):
        assert (bar.get_y(), bar.get_y() + bar.get_height()) == pytest.approx((100 * low, 100 * high))
    assert {"-20", "+20"} <= {text.get_text() for text in spans.texts}  # length: 1/3 and 1/2 against 5/12
    assert spans.get_ylim()[0] < -20


def test_without_matplotlib_the_error_has_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'refineloc\[plot\]'"):
        write_diagnosis(tmp_path, diagnosed(ROWS, TRUTH))
    assert not list(tmp_path.iterdir())

"""Operating points and calibration: a time line by hand, and against brute force on generated inputs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import programs
import pytest
from by_hand import Row, Span, annotations_of, detections_of
from hypothesis import given
from hypothesis import strategies as st
from twins.evaluation import tiou as tiou_of

from refineloc.evaluation import Matching, at_precision, at_score, calibration, match_detections
from refineloc.evaluation.cli.evaluate import main
from refineloc.runtime.errors import ConfigError

# v, an hour:   truth  x 0-10, x 20-30, y 40-50
#   x: 0.9 0-10 right; 0.8 60-70 wrong; 0.8 20-30 right; 0.4 0-10 taken already: wrong
#   y: 0.7 70-80 wrong; 0.6 40-50 right; 0.5 in another video: wrong, but no alarm of a known hour
TRUTH: list[Span] = [("v", 0, 10, "x"), ("v", 20, 30, "x"), ("v", 40, 50, "y")]
ROWS: list[Row] = [
    ("v", 0, 10, "x", 0.9),
    ("v", 60, 70, "x", 0.8),
    ("v", 20, 30, "x", 0.8),
    ("v", 0, 10, "x", 0.4),
    ("v", 70, 80, "y", 0.7),
    ("v", 40, 50, "y", 0.6),
    ("elsewhere", 0, 10, "y", 0.5),
]


def matched(duration_s: float | None = 3600.0) -> Matching:
    return match_detections(detections_of(ROWS), annotations_of(TRUTH, duration_s=duration_s), [0.5, 0.8])


def test_a_score_by_hand() -> None:
    points = at_score(matched(), 0.6)
    total = points.total
    assert (points.tiou, points.wanted, total.min_score) == (0.5, None, 0.6)
    assert (total.true_positives, total.false_positives, total.instances) == (3, 2, 3)
    assert (total.precision, total.recall, total.f1) == (0.6, 1.0, 0.75)
    assert total.false_alarms_an_hour == 2.0
    x = points.by_class["x"]
    assert (x.precision, x.recall, x.f1) == (2 / 3, 1.0, 0.8)
    # Of all, the one in another video is wrong; no hour of it is known.
    everything = at_score(matched(), 0.0).total
    assert (everything.false_positives, everything.false_alarms_an_hour) == (4, 3.0)
    none = at_score(matched(), 1.0).total
    assert (none.precision, none.recall, none.f1, none.false_alarms_an_hour) == (None, 0.0, 0.0, 0.0)
    assert at_score(matched(duration_s=None), 0.6).total.false_alarms_an_hour is None


def test_the_lowest_score_of_a_precision_by_hand() -> None:
    # By falling score: 1/1 at 0.9, 2/3 at 0.8 (both or none), 2/4 at 0.7, 3/5 at 0.6, 3/6 at 0.5, 3/7 at 0.4.
    for precision, score in ((1.0, 0.9), (0.67, 0.9), (2 / 3, 0.8), (0.6, 0.6), (0.5, 0.5), (0.4, 0.4)):
        point = at_precision(matched(), precision).total
        assert (point.min_score, point.is_reached) == (score, True), precision
    points = at_precision(matched(), 0.6).by_class
    assert (points["x"].min_score, points["x"].is_reached) == (0.8, True)
    # y: wrong, right, wrong: 1/2 at most.
    assert (points["y"].min_score, points["y"].is_reached, points["y"].precision) == (0.6, False, 0.5)
    document = at_precision(matched(), 0.6).to_json()
    assert document["min_score"] == 0.6
    assert document["per_class"]["y"]["min_score"] is None
    assert document["per_class"]["y"]["highest"]["precision"] == 0.5


def test_calibration_by_hand() -> None:
    bins = calibration(matched(), bins=5)
    assert bins.edges.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert bins.detections.tolist() == [0, 0, 2, 2, 3]  # an edge belongs to the bin above
    assert bins.score[2:].tolist() == pytest.approx([0.45, 0.65, 2.5 / 3])
    assert bins.precision[2:].tolist() == pytest.approx([0.0, 0.5, 2 / 3])
    assert bins.error == pytest.approx((2 * 0.45 + 2 * 0.15 + 3 * 0.5 / 3) / 7)
    assert bins.to_json()["bins"][0]["precision"] is None


def test_scores_beyond_1_have_bins_but_no_error() -> None:
    rows = [(*row[:4], 3 * row[4]) for row in ROWS]
    bins = calibration(match_detections(detections_of(rows), annotations_of(TRUTH), [0.5]), bins=3)
    assert (bins.edges[0], bins.edges[-1]) == pytest.approx((1.2, 2.7))
    assert bins.detections.sum() == len(ROWS)
    assert bins.error is None


def test_spared_false_positives_count_neither_way() -> None:
    regions = {"v": [(55.0, 75.0)]}
    spared = match_detections(detections_of(ROWS), annotations_of(TRUTH), [0.5], ambiguous=regions)
    total = at_score(spared, 0.6).total
    assert (total.true_positives, total.false_positives) == (3, 0)
    assert at_precision(spared, 0.75).total.min_score == 0.5
    assert calibration(spared).detections.sum() == 5


def test_values_out_of_range() -> None:
    for call in (
        lambda: at_precision(matched(), 0.0),
        lambda: at_precision(matched(), 1.1),
        lambda: at_score(matched(), 0.5, tiou=0.6),
        lambda: calibration(matched(), bins=0),
    ):
        with pytest.raises(ConfigError):
            call()
    assert at_score(matched(), 0.5, tiou=0.8).tiou == 0.8


def brute_force(rows: list[Row], truth: list[Span], tiou: float) -> list[tuple[float, bool]]:
    """The score of each detection and whether it is right: greedy, by falling score, the later row first."""
    classes = {span[3] for span in truth}
    taken: set[int] = set()
    right = []
    for i in sorted(range(len(rows)), key=lambda i: (-rows[i][4], -i)):
        video, start, end, label, score = rows[i]
        if label not in classes:
            continue
        best = -1, tiou
        for j, span in enumerate(truth):
            overlap = tiou_of(start, end, np.array([span[1]]), np.array([span[2]]))[0]
            if (span[0], span[3]) == (video, label) and j not in taken and overlap >= best[1] > 0:
                best = j, overlap if overlap > best[1] or best[0] < 0 else best[1]
        taken.add(best[0])
        right.append((score, best[0] >= 0))
    return right


times = st.tuples(st.integers(0, 12), st.integers(1, 6))
spans = st.tuples(st.sampled_from("vw"), times, st.sampled_from("xy"))


@given(
    truth=st.lists(spans, min_size=1, max_size=6, unique=True),
    rows=st.lists(st.tuples(spans, st.integers(0, 8)), max_size=14, unique_by=lambda row: row[0]),
    precision=st.sampled_from([0.2, 0.5, 2 / 3, 0.9, 1.0]),
)
def test_like_brute_force(truth: list, rows: list, precision: float) -> None:
    # Times far apart in tIoU have one best annotation; where two are equal, either may be taken, so drop those.
    spans_ = [(video, float(at), float(at + length), label) for video, (at, length), label in truth]
    found = [(video, float(at), float(at + length), label, score / 8) for (video, (at, length), label), score in rows]
    annotations = annotations_of(spans_, ("v", "w"), duration_s=1800.0)
    matching = match_detections(detections_of(found), annotations, [0.6])
    right = brute_force(
        [row for name in dict.fromkeys(r[0] for r in found) for row in found if row[0] == name], spans_, 0.6
    )
    scores = sorted({score for score, _ in right})

    def counts(least: float) -> tuple[int, int]:
        kept = [is_right for score, is_right in right if score >= least]
        return sum(kept), len(kept) - sum(kept)

    for least in scores:
        total = at_score(matching, least).total
        assert (total.true_positives, total.false_positives) == counts(least)
        assert total.false_alarms_an_hour == counts(least)[1]  # two videos of half an hour
    reaching = [least for least in scores if counts(least)[0] / sum(counts(least)) >= precision]
    point = at_precision(matching, precision).total
    assert point.is_reached == bool(reaching)
    if reaching:
        assert point.min_score == min(reaching)
    elif scores:
        assert point.precision == max(counts(least)[0] / sum(counts(least)) for least in scores)
    error = calibration(matching, bins=4).error
    if not right:
        assert error is None
        return
    total_error = 0.0
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = [pair for pair in right if low <= pair[0] < low + 0.25 or (low == 0.75 and pair[0] == 1.0)]
        total_error += abs(sum(score for score, _ in inside) - sum(is_right for _, is_right in inside))
    assert error is not None
    assert math.isclose(error, total_error / len(right), abs_tol=1e-12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    truth = "".join(f"{video},{start},{end},{label},3600\n" for video, start, end, label in TRUTH)
    (tmp_path / "truth.csv").write_text("video-name,t-start,t-end,label,video-duration\n" + truth)
    rows = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    (tmp_path / "found.csv").write_text("video-name,t-start,t-end,label,score\n" + rows)
    return tmp_path


def test_refineloc_eval_has_them(folder: Path, call_program: Callable[..., CompletedProcess[str]]) -> None:
    arguments = ("found.csv", "truth.csv", "--tiou", "0.5,0.8", "--json", "out.json")
    done = call_program(main, *arguments, "--precision", "0.6", "--calibration", "--per-class")
    assert done.returncode == 0
    assert "all\t0.6\t0.600000\t1.000000\t0.750000\t2.00\t3\t2\n" in done.stdout
    assert "x\t0.8\t0.666667\t1.000000\t0.800000\t1.00\t2\t1\n" in done.stdout
    assert "expected calibration error\t0." in done.stdout
    assert "precision 0.6 is not reached in 1 class (y)" in done.stderr
    document = json.loads((folder / "out.json").read_text())
    assert document["operating_point"]["min_score"] == 0.6
    assert document["operating_point"]["tiou"] == 0.5
    assert len(document["calibration"]["bins"]) == 10
    done = call_program(main, *arguments, "--min-score", "0.6")
    assert "all\t0.6\t0.600000" in done.stdout
    assert "calibration" not in json.loads((folder / "out.json").read_text())
    done = call_program(main, "found.csv", "truth.csv", "--min-score", "0.95")
    assert "all\t0.95\t-\t0.000000\t0.000000\t0.00\t0\t0\n" in done.stdout


def test_a_precision_that_is_not_reached_is_said(
    folder: Path, call_program: Callable[..., CompletedProcess[str]]
) -> None:
    lines = (folder / "found.csv").read_text().splitlines()
    (folder / "found.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")  # without the best one
    done = call_program(main, "found.csv", "truth.csv", "--precision", "0.9", "--json", "out.json")
    assert done.returncode == 0
    assert "precision 0.9 at tIoU 0.50 is not reached: the highest is 0.5, of scores from" in done.stderr
    assert json.loads((folder / "out.json").read_text())["operating_point"]["min_score"] is None
    for options in (("--precision", "1.5"), ("--precision", "0.9", "--min-score", "0.1")):
        done = call_program(main, "found.csv", "truth.csv", *options)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_table_fits_80_columns(folder: Path) -> None:
    code, text = programs.on_terminal(
        "refineloc-eval", "found.csv", "truth.csv", "--precision", "0.6", "--calibration", "--per-class",
        cwd=folder, COLUMNS="80", NO_COLOR="1",
    )  # fmt: skip
    assert code == 0
    assert "…" not in text
    for wanted in ("min score", "prec. %", "alarms/h", "60.0", "mean score"):
        assert wanted in text

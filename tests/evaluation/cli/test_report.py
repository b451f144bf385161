"""`refineloc-report`: the page, --diagnose, --timeline."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import h5py
import numpy as np
import pytest

from refineloc import __version__
from refineloc.evaluation import matching
from refineloc.evaluation.cli import report
from refineloc.evaluation.cli.report import main
from refineloc.runtime import Detector, open_features, read_annotations, read_detections, write_detections

pytest.importorskip("matplotlib", reason="pictures need refineloc[plot]")

TRUTH = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\n" + "".join(
    f"clip{k},{10 * n},{10 * n + 4 + k},{('jump', 'run')[k % 2]},60,25,1500\n" for k in range(4) for n in range(3)
)
BEFORE, AFTER = "iter_0/detections.csv", "iter_1/detections.csv"
Run = Callable[..., CompletedProcess[str]]


def page_data(path: Path) -> Any:
    return json.loads(path.read_text().split('id="data">')[1].split("</script>")[0])


def detections_csv(shift: float) -> str:
    rows = [
        f"clip{k},{10 * n + shift},{10 * n + 4 + k + shift},{('jump', 'run')[k % 2]},{1 / (1 + n)}"
        for k in range(4)
        for n in range(3)
    ]
    return "video-name,t-start,t-end,label,score\n" + "\n".join(rows) + "\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "truth.csv").write_text(TRUTH)
    for name, shift in (("iter_0", 3.0), ("iter_1", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "detections.csv").write_text(detections_csv(shift))
    return tmp_path


@pytest.fixture
def run(here: Path, call_program: Callable[..., CompletedProcess[str]]) -> Run:
    """The program, with the ground truth."""
    return lambda *arguments: call_program(main, *arguments, "--truth", "truth.csv")


def test_the_page_is_what_it_makes_unless_told_otherwise(here: Path, run: Run) -> None:
    done = run(AFTER, "--bootstrap", "0")
    assert (done.returncode, done.stderr) == (0, "report.html: report of 4 videos\n")
    assert page_data(here / "report.html")["title"] == "iter_1 on truth"


@pytest.fixture
def alone(here: Path, call_program: Callable[..., CompletedProcess[str]]) -> Run:
    """The program, without a ground truth."""
    return lambda *arguments: call_program(main, *arguments)


def test_without_ground_truth_the_page_shows_what_was_found(here: Path, alone: Run) -> None:
    done = alone(BEFORE, AFTER)
    assert (done.returncode, done.stderr) == (0, "report.html: report of 4 videos\n")
    data = page_data(here / "report.html")
    assert (data["ground_truth"], data["title"]) == (None, "iter_1: what was found")
    assert [(entry["detections"], entry["videos"], entry["best"]) for entry in data["sets"]] == [(12, 4, 1.0)] * 2
    assert data["sets"][0]["above"][0] == 3  # each video has three
    assert data["sets"][0]["above"][-1] == 1  # of which one has the highest score
    assert [(entry["name"], entry["detections"], entry["videos"]) for entry in data["classes"]] == [
        ("jump", [6, 6], 2),
        ("run", [6, 6], 2),
    ]
    (clip0,) = (row for row in data["videos"] if row["name"] == "clip0")
    assert (clip0["labels"], clip0["truth"], clip0["scores"]) == (["jump"], [], [1.0, 1.0])
    assert clip0["detections"][1][0] == [0.5, 4.5, "jump", 1.0]


def test_without_ground_truth_a_time_line_has_the_detections(here: Path, alone: Run) -> None:
    assert alone(AFTER, "--timeline", "clip1", "line.svg").stderr == "line.svg: time line of clip1\n"
    assert alone(AFTER, "--timeline", "absent", "line.svg").stderr == (
        f"error: --timeline: {AFTER} has no video 'absent'; the first is 'clip0'\n"
    )


@pytest.mark.parametrize(
    "option", [("--diagnose", "why"), ("--subset", "val"), ("--drop-repeated",), ("--bins", "quantile")]
)
def test_what_needs_ground_truth_says_so(alone: Run, option: tuple[str, ...]) -> None:
    done = alone(AFTER, *option)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option[0]}: needs the ground truth; give --truth LABELS")


def test_the_page_has_the_model_s_scores_and_the_length_of_the_features(
    here: Path, alone: Run, curves: tuple[str, ...]
) -> None:
    assert "give --fps X" in alone(AFTER, *curves).stderr
    assert alone(AFTER, *curves, "--fps", "25").returncode == 0
    rows = {row["name"]: row for row in page_data(here / "report.html")["videos"]}
    assert "curves" not in rows["clip0"]  # which has no features
    assert rows["clip0"]["duration"] is None
    assert rows["clip1"]["duration"] == pytest.approx(90 * 16 / 25)
    name, seconds, values = rows["clip1"]["curves"][0]
    assert (name, len(seconds), len(values)) == ("foreground", 90, 90)


def test_features_that_the_model_cannot_take_are_named(here: Path, alone: Run, curves: tuple[str, ...]) -> None:
    with h5py.File(here / "features.h5", "a") as file:
        file["clip2"] = np.zeros((9, 5), np.float32)
    done = alone(AFTER, *curves, "--fps", "25")
    assert done.returncode == 2
    assert "error: features.h5: video 'clip2': " in done.stderr
    assert not (here / "report.html").exists()


def test_the_footer_says_what_the_page_is_made_of(here: Path, run: Run) -> None:
    assert run(AFTER, "--bootstrap", "0").returncode == 0
    footer = dict(page_data(here / "report.html")["footer"])
    assert footer["made"].startswith(f"refineloc {__version__}, 20")
    assert footer["command"].endswith(f" {AFTER} --bootstrap 0 --truth truth.csv")
    assert (footer["detections"], footer["ground truth"], footer["folder"]) == (AFTER, "truth.csv", str(here))
    assert "model" not in footer


def test_films_of_which_none_belongs_to_a_video_are_warned_of(here: Path, alone: Run) -> None:
    (here / "films").mkdir()
    (here / "films" / "other.mp4").write_bytes(b"")
    warning = "warning: films: no film is called as a video is, such as clip0.mp4"
    assert alone(AFTER, "--films", "films").stderr.splitlines() == [
        "report.html: report of 4 videos, 0 with a film",
        warning,
    ]
    (here / "films" / "v_clip1.mp4").write_bytes(b"")
    why = "; 'clip1' is 'v_clip1' there (they differ in the prefix 'v_'): give both the same name"
    assert alone(AFTER, "--films", "films").stderr.splitlines()[1] == warning + why


def test_diagnose_one(here: Path, run: Run) -> None:
    assert run(rf"$\foo$={AFTER}", "--diagnose", "why").returncode == 0  # a name is no formula
    assert not (here / "report.html").exists()
    assert len(list((here / "why").glob("*.*"))) == 7
    assert json.loads((here / "why" / "diagnosis.json").read_text())["bins"] == "quantile"


def test_diagnose_each_of_several(here: Path, run: Run) -> None:
    assert run(f"before={BEFORE}", AFTER, "--diagnose", "why", "--bins", "thumos14").returncode == 0
    before, after = (json.loads((here / "why" / name / "diagnosis.json").read_text()) for name in ("before", "iter_1"))
    assert before["bins"] == "thumos14"
    assert before["false_negatives"]["rate"] > after["false_negatives"]["rate"]


def test_the_page_compares_and_links_films(here: Path, run: Run) -> None:
    (here / "films").mkdir()
    (here / "films" / "clip2.mp4").write_bytes(b"")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "clip1.mp4").write_bytes(b"")
    (here / "films" / "linked").symlink_to(here / "elsewhere")
    done = run(BEFORE, f"after={AFTER}", "-o", "page.html", "--films", "films", "--bootstrap", "20")
    assert (done.returncode, done.stderr) == (0, "page.html: report of 4 videos, 1 with a film\n")
    data = page_data(here / "page.html")
    assert [entry["name"] for entry in data["sets"]] == ["iter_0", "after"]
    assert data["resamples"] == 20
    assert {row["name"]: row.get("file") for row in data["videos"]}["clip2"] == "./films/clip2.mp4"


def test_the_pages_resamples_follow_the_seed(here: Path, run: Run) -> None:
    intervals = []
    for seed in ("1", "2", "1"):
        assert run(AFTER, "--bootstrap", "20", "--seed", seed).returncode == 0
        intervals.append(page_data(here / "report.html")["sets"][0]["interval"])
    assert intervals[0] == intervals[2] != intervals[1]


def test_timeline_shows_each_set(here: Path, run: Run) -> None:
    (here / "iter_0" / "detections.csv").write_text("video-name,t-start,t-end,label,score\nclip0,1,2,jump,0.5\n")
    done = run(BEFORE, AFTER, "--timeline", "clip1", "line.svg")
    assert (done.returncode, done.stderr) == (
        0,
        "line.svg: time line of clip1\n",
    )  # a set without the video has an empty row
    assert (here / "line.svg").read_text().startswith("<?xml")


@pytest.fixture
def curves(here: Path, model_path: Path, rng: np.random.Generator) -> tuple[str, ...]:
    """Options of a model, and of features of clip1: 90 snippets without attributes."""
    with h5py.File(here / "features.h5", "w") as file:
        file["clip1"] = rng.standard_normal((90, 24)).astype(np.float32)
    return "--model", str(model_path), "--features", "features.h5"


def test_curves_and_detections_have_one_frame_rate(
    here: Path, run: Run, model_path: Path, curves: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features' own attributes go before the labels' (25 frames a second, 29 s), for both."""
    (here / "truth.csv").write_text(TRUTH.replace(",60,25,", ",29,25,"))
    with h5py.File(here / "features.h5", "a") as file:
        file["clip1"].attrs.update(fps=50.0, duration=28.6)
    labels = read_annotations(here / "truth.csv")["clip1"]
    with open_features(here / "features.h5") as store:
        times = {"clip1": (labels.fps, labels.duration_s)}
        write_detections(here / "both.json", Detector(model_path, provider="cpu").detect_many(store, times=times))
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(report, "draw_timeline", lambda *_, **options: drawn.update(options))
    assert run("both.json", "--timeline", "clip1", "line.png", *curves).returncode == 0
    ends = read_detections(here / "both.json")["clip1"].end
    seconds, _ = drawn["curves"]["foreground"]
    assert 20 < ends.max() <= 28.6
    assert len(seconds) == 90
    assert seconds[-1] == pytest.approx((89 * 16 / 50 + 28.6) / 2)  # the last snippet ends with the video


def test_the_frame_rate_can_be_an_option(here: Path, run: Run, curves: tuple[str, ...]) -> None:
    (here / "truth.csv").write_text("video-name,t-start,t-end,label\nclip1,1,4,run\n")
    options = (AFTER, "--timeline", "clip1", "line.png", *curves)
    done = run(*options)
    assert done.returncode == 2
    assert done.stderr.count("its fps is in neither features.h5 nor the labels; give --fps X") == 1
    assert run(*options, "--fps", "25").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeline", "absent", "o.png"], "has no video 'absent'; the first is 'clip0'"),
        (["--timeline", "clip0", "o.jpg"], "expected an output name that ends in .png"),
        (["-o", "o.txt"], "expected an output name that ends in .html"),
        (["-o", "no/where.html"], "cannot be written"),
        (["--films", "absent"], "absent: no such folder of films"),
        (["--diagnose", "why", "--films", "iter_0"], "--films: only with the page"),
        (["--model", "m.onnx"], "--model and --features: both together"),
        (["--fps", "25"], "--fps: only with --features"),
        ([AFTER], "two are called 'iter_1'; give NAME=FILE"),
        (["absent.json"], "absent.json: no such file"),
        (["--diagnose", "truth.csv"], "truth.csv: cannot be made a folder"),
        (["--timeline", "clip0", "o.png", "--bins", "quantile"], "--bins: only with the page"),
        (["--timeline", "clip0", "o.png", "--model", "m.onnx", "--features", "f.h5"], "m.onnx: no such file"),
    ],
)
def test_what_a_user_can_get_wrong(
    here: Path, run: Run, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(here.rglob("*"))
    # It is told before the work, not after.
    monkeypatch.setattr("refineloc.evaluation.cli.report.match_detections", None)
    monkeypatch.setattr("refineloc.evaluation.cli.report.draw_timeline", None)
    done = run(AFTER, *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert sorted(here.rglob("*")) == before


def test_each_set_of_detections_is_matched_once(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel = matching.match
    monkeypatch.setattr(matching, "match", lambda *arguments: calls.append(1) or kernel(*arguments))
    assert run(BEFORE, AFTER, "-o", "r.html", "--diagnose", "why", "--bootstrap", "5").returncode == 0
    assert len(calls) == 2


def test_what_the_ground_truth_does_not_know_is_told(here: Path, run: Run) -> None:
    with (here / AFTER).open("a") as file:
        file.write("clip0,1,2,swim,0.5\nclip9,1,2,jump,0.5\n")
    done = run(AFTER, "--bootstrap", "0")
    assert "warning: iter_1: 1 detection has a class that truth.csv does not have; left out" in done.stderr
    assert "warning: iter_1: 1 video is not in truth.csv: false positives" in done.stderr

"""What `refineloc-eval` draws: --diagnose, --timeline, --report, --compare."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from refineloc.evaluation import matching
from refineloc.evaluation.cli.evaluate import main

pytest.importorskip("matplotlib", reason="pictures need refineloc[plot]")

TRUTH = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\n" + "".join(
    f"clip{k},{10 * n},{10 * n + 4 + k},{('jump', 'run')[k % 2]},60,25,1500\n" for k in range(4) for n in range(3)
)
Run = Callable[..., tuple[int, str]]


def found(shift: float) -> str:
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
        (tmp_path / name / "detections.csv").write_text(found(shift))
    return tmp_path


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program on the later detections, in this process; gives its exit code and stderr."""

    def run_it(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(here)
        monkeypatch.setattr(sys, "argv", ["refineloc-eval", "iter_1/detections.csv", "truth.csv", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run_it


def test_diagnose_one_run(here: Path, run: Run) -> None:
    assert run("--diagnose", "why", "--name", r"$\foo$")[0] == 0  # a name is no formula
    assert sorted(path.name for path in (here / "why").iterdir()) == [
        "diagnosis.json",
        "false_negatives.png",
        "false_negatives.svg",
        "false_positives.png",
        "false_positives.svg",
        "sensitivity.png",
        "sensitivity.svg",
    ]
    assert json.loads((here / "why" / "diagnosis.json").read_text())["bins"] == "quantile"


def test_diagnose_each_of_several_runs(here: Path, run: Run) -> None:
    code, _ = run("--diagnose", "why", "--compare", "before=iter_0/detections.csv", "--bins", "thumos14")
    assert code == 0
    before, after = (json.loads((here / "why" / name / "diagnosis.json").read_text()) for name in ("before", "iter_1"))
    assert before["bins"] == "thumos14"
    assert before["false_negatives"]["rate"] > after["false_negatives"]["rate"]


def test_report_compares_runs_and_links_videos(here: Path, run: Run) -> None:
    (here / "films").mkdir()
    (here / "films" / "clip2.mp4").write_bytes(b"")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "clip1.mp4").write_bytes(b"")
    (here / "films" / "linked").symlink_to(here / "elsewhere")
    code, told = run(
        "--report", "report.html", "--compare", "iter_0/detections.csv", "--name", "after", "--videos", "films",
        "--bootstrap", "20",
    )  # fmt: skip
    assert code == 0
    assert "report of 4 videos, 1 with a video file" in told
    text = (here / "report.html").read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [entry["name"] for entry in data["runs"]] == ["iter_0", "after"]
    assert data["resamples"] == 20
    assert {row["name"]: row.get("file") for row in data["videos"]}["clip2"] == "./films/clip2.mp4"


def test_the_reports_resamples_follow_the_seed(here: Path, run: Run) -> None:
    intervals = []
    for seed in ("1", "2", "1"):
        assert run("--report", "r.html", "--bootstrap", "20", "--seed", seed)[0] == 0
        data = json.loads((here / "r.html").read_text().split('id="data">')[1].split("</script>")[0])
        intervals.append(data["runs"][0]["interval"])
    assert intervals[0] == intervals[2] != intervals[1]


def test_timeline_shows_each_run(here: Path, run: Run) -> None:
    (here / "iter_0" / "detections.csv").write_text("video-name,t-start,t-end,label,score\nclip0,1,2,jump,0.5\n")
    code, _ = run("--timeline", "clip1", "line.svg", "--compare", "iter_0/detections.csv")
    assert code == 0  # a video in which one run finds nothing has an empty row
    assert (here / "line.svg").read_text().startswith("<?xml")


def test_timeline_with_curves_of_the_model(here: Path, run: Run, model_path: Path, rng: np.random.Generator) -> None:
    with h5py.File(here / "features.h5", "w") as file:
        file["clip1"] = rng.standard_normal((90, 24)).astype(np.float32)
    plain, _ = run("--timeline", "clip1", "plain.png")
    code, told = run("--timeline", "clip1", "line.png", "--model", str(model_path), "--features", "features.h5")
    assert (plain, code) == (0, 0), told
    import matplotlib.image

    heights = [matplotlib.image.imread(here / name).shape[0] for name in ("plain.png", "line.png")]
    # Two strips more (foreground, and the class "run" of the video), of 0.62 inches at 130 dots each.
    assert heights[1] - heights[0] == pytest.approx(2 * 0.62 * 130, abs=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeline", "absent", "o.png"], "has no video 'absent'; the first is 'clip0'"),
        (["--timeline", "clip0", "o.jpg"], "expected an output name that ends in .png"),
        (["--report", "o.txt"], "expected an output name that ends in .html"),
        (["--report", "no/where.html"], "cannot be written"),
        (["--report", "o.html", "--videos", "absent"], "absent: no such folder of videos"),
        (["--videos", "iter_0"], "--videos: only with --report"),
        (["--report", "o.html", "--interpolation", "none"], "leave out --ambiguous and --interpolation none"),
        (["--diagnose", "why", "--ambiguous", "truth.csv"], "leave out --ambiguous and --interpolation none"),
        (["--model", "m.onnx"], "--model and --features: both together"),
        (["--report", "o.html", "--compare", "iter_1/detections.csv"], "two are called 'iter_1'"),
        (["--report", "o.html", "--compare", "absent.json"], "absent.json: no such file"),
        (["--diagnose", "truth.csv"], "cannot be made a folder"),
        (["--diagnose", "truth.csv/below"], "truth.csv is no folder"),
        (["--compare", "iter_0/detections.csv"], "only with --diagnose, --timeline or --report"),
        (["--name", "x"], "only with --diagnose, --timeline or --report"),
        (["--bins", "quantile"], "--bins: only with --diagnose or --report"),
        (["--timeline", "clip0", "o.png", "--bins", "quantile"], "--bins: only with --diagnose or --report"),
        (["--timeline", "clip0", "o.png", "--model", "m.onnx", "--features", "f.h5"], "--model: m.onnx: no such file"),
    ],
)
def test_what_a_user_can_get_wrong(
    here: Path, run: Run, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(here.rglob("*"))
    # It is told before the evaluation, not after.
    monkeypatch.setattr("refineloc.evaluation.cli.evaluate.evaluate", None)
    code, told = run(*arguments)
    assert code == 2
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert message in line
    assert sorted(here.rglob("*")) == before


def test_each_set_of_detections_is_matched_once(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel = matching.match
    monkeypatch.setattr(matching, "match", lambda *arguments: calls.append(1) or kernel(*arguments))
    assert run("--bootstrap", "5", "--recall", "1,10")[0] == 0
    assert len(calls) == 1
    assert (
        run("--report", "r.html", "--diagnose", "why", "--bootstrap", "5", "--compare", "iter_0/detections.csv")[0] == 0
    )
    assert len(calls) == 1 + 2


def test_scores_alone_load_no_pictures(here: Path) -> None:
    import subprocess

    code = (
        "import sys; sys.argv = ['refineloc-eval', 'iter_1/detections.csv', 'truth.csv']\n"
        "from refineloc.evaluation.cli.evaluate import main\n"
        "try: main()\n"
        "except SystemExit: print([n for n in sys.modules if n.startswith(('matplotlib', 'refineloc.runtime.diag', "
        "'refineloc.evaluation.report', 'refineloc.evaluation.cli.views'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

"""`refineloc-eval` as a person and as a program run it."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import programs
import pytest

from refineloc.evaluation import matching
from refineloc.evaluation.cli.common import parse_tious
from refineloc.evaluation.cli.evaluate import main
from refineloc.runtime.errors import ConfigError

Run = Callable[..., CompletedProcess[str]]

TRUTH = """video-name,t-start,t-end,label,video-duration,fps,video-num-frames
v1,0,4,jump,10,25,250
v1,5,9,run,10,25,250
v2,0,4,jump,10,25,250
"""
DETECTIONS = "video-name,t-start,t-end,label,score\nv1,0,4,jump,0.9\nv2,0,3,jump,0.8\nv1,5,9,run,0.7\nv1,0,9,run,0.9\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "truth.csv").write_text(TRUTH)
    (tmp_path / "found.csv").write_text(DETECTIONS)
    return tmp_path


@pytest.fixture
def run(folder: Path, call_program: Callable[..., CompletedProcess[str]]) -> Run:
    return functools.partial(call_program, main)


def test_in_a_pipe_it_is_one_table_of_tabs(run: Run) -> None:
    done = run("found.csv", "truth.csv", "--tiou", "0.5,0.8", "--per-class")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["class", "instances", "average", "0.50", "0.80"]
    # jump: both found at 0.5, one of two at 0.8. run: a false positive stands before the hit.
    assert rows[1] == ["all", "3", "0.625000", "0.750000", "0.500000"]
    assert rows[2] == ["jump", "2", "0.750000", "1.000000", "0.500000"]
    assert rows[3] == ["run", "1", "0.500000", "0.500000", "0.500000"]


def test_json_is_the_contract(folder: Path, run: Run) -> None:
    assert run("found.csv", "truth.csv", "--tiou", "0.5:0.8:0.3", "--json", "out.json").returncode == 0
    out = json.loads((folder / "out.json").read_text())
    assert set(out) >= {"average_mAP", "mAP", "per_class"}
    assert out["average_mAP"] == pytest.approx(0.625)
    assert out["mAP"] == {"0.50": 0.75, "0.80": 0.5}
    assert set(out["per_class"]) == {"jump", "run"}


def test_on_a_terminal_it_fits_80_columns(folder: Path) -> None:
    code, text = programs.on_terminal(
        "refineloc-eval", "found.csv", "truth.csv", "--per-class", cwd=folder, COLUMNS="80", NO_COLOR="1"
    )
    assert code == 0
    assert "…" not in text
    for wanted in ("0.50", "0.95", "average", "jump", "run"):
        assert wanted in text


def test_compare_prints_differences_and_writes_them(folder: Path, run: Run) -> None:
    (folder / "iter_0").mkdir()
    (folder / "iter_0" / "detections.csv").write_text(DETECTIONS.replace("v2,0,3,jump,0.8\n", ""))
    options = ("--tiou", "0.5,0.8", "--compare", "iter_0/detections.csv", "--compare", "same=found.csv")
    done = run("found.csv", "truth.csv", *options, "--json", "out.json", "--bootstrap", "50")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: iter_0: lacks 1 of 2 annotated videos, the first is 'v2'")
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.startswith(("compared", "iter_0", "same"))]
    assert rows[0] == ["compared with", "measure", "its mAP", "difference", "95 % low", "95 % high"]
    assert [row[:2] for row in rows[1:]] == [
        [name, measure] for name in ("iter_0", "same") for measure in ("mAP@0.50", "mAP@0.80", "average mAP")
    ]
    # jump: one of two is found, 0.5 instead of 1 at 0.5; as before at 0.8.
    assert rows[1][2:4] == ["0.500000", "0.250000"]
    assert [row[3:] for row in rows[4:]] == [["0.000000"] * 3] * 3
    out = json.loads((folder / "out.json").read_text())["compared"]
    assert list(out) == ["iter_0", "same"]
    assert out["iter_0"]["mAP"]["0.50"] == 0.5
    difference = out["iter_0"]["difference"]
    assert difference["mAP"]["0.50"][0] == 0.25
    assert (difference["resamples"], len(difference["average_mAP"])) == (50, 3)


def test_a_comparison_fits_80_columns(folder: Path) -> None:
    code, text = programs.on_terminal(
        "refineloc-eval", "found.csv", "truth.csv", "--compare", "b=found.csv", cwd=folder, COLUMNS="80", NO_COLOR="1"
    )
    assert code == 0
    assert "…" not in text
    assert "compared with b" in text
    assert "+0.00 to +0.00" in text


def test_what_is_left_out_is_counted(folder: Path, run: Run) -> None:
    (folder / "found.csv").write_text(DETECTIONS + "v1,0,4,swim,0.9\nv9,0,4,jump,0.1\n")
    done = run("found.csv", "truth.csv")
    assert done.returncode == 0
    assert "found.csv: 1 detection has a class that truth.csv does not have" in done.stderr
    assert "found.csv: 1 video is not in truth.csv" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json", "truth.csv"], "absent.json: no such file"),
        (["found.csv", "absent.csv"], "absent.csv: no such file"),
        (["broken.json", "truth.csv"], "broken.json: not valid JSON"),
        (["found.csv", "weak.csv"], "weak.csv: has labels but no segments with times"),
        (["found.csv", "truth.csv", "--compare", "absent.json"], "absent.json: no such file"),
        (["found.csv", "truth.csv", "--compare", "broken.json"], "broken.json: not valid JSON"),
        (["found.csv", "truth.csv", "--compare", "a=found.csv", "--compare", "a=found.csv"], "two are called 'a'"),
        (["found.csv", "truth.csv", "--tiou", "0.5:0.9"], "--tiou '0.5:0.9': expected FIRST:LAST:STEP"),
        (["found.csv", "truth.csv", "--json", "absent/out.json"], "absent/out.json: cannot be written"),
        (["found.csv", "truth.csv", "--subset", "validation"], "a CSV has no subsets"),
    ],
)
def test_bad_input_is_one_line(folder: Path, run: Run, arguments: list[str], message: str) -> None:
    (folder / "weak.csv").write_text("video-name,label\nv1,jump\n")
    (folder / "broken.json").write_text('{"results": ')
    before = sorted(folder.iterdir())
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert sorted(folder.iterdir()) == before


def test_tious() -> None:
    assert parse_tious("0.5:0.95:0.05") == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert parse_tious("0.3,0.5") == [0.3, 0.5]
    for text in ("", "a", "0:1:0.5", "0.5:0.9:0", "0.5:0.9:-1", "1.5", "nan", "0.5:inf:0.1", "0.9:0.5:0.1"):
        with pytest.raises(ConfigError, match="--tiou"):
            parse_tious(text)


def test_detections_are_matched_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel = matching.match
    monkeypatch.setattr(matching, "match", lambda *arguments: calls.append(1) or kernel(*arguments))
    assert run("found.csv", "truth.csv", "--bootstrap", "5", "--recall", "1,10").returncode == 0
    assert len(calls) == 1


def test_scores_load_no_pictures(folder: Path) -> None:
    code = (
        "import sys; sys.argv = ['refineloc-eval', 'found.csv', 'truth.csv']\n"
        "from refineloc.evaluation.cli.evaluate import main\n"
        "try: main()\n"
        "except SystemExit: print([name for name in sys.modules if name.startswith(('matplotlib', "
        "'refineloc.evaluation.pictures', 'refineloc.evaluation.report'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_on_standard_output_is_alone_there(folder: Path) -> None:
    done = programs.run("refineloc-eval", "found.csv", "truth.csv", "--tiou", "0.5,0.8", "--json", "-", cwd=folder)
    assert done.returncode == 0
    assert json.loads(done.stdout)["average_mAP"] == pytest.approx(0.625)
    assert done.stderr.startswith("class\tinstances\taverage\t0.50\t0.80\nall\t3\t0.625000")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (",", "v_{},", "no video in common: the first are 'v_v1' and 'v1'; 'v_v1' is 'v1' there"),
        (",", "{}.mp4,", "no video in common: the first are 'v1.mp4' and 'v1'; 'v1.mp4' is 'v1' there"),
        (
            "jump",
            "Jump",
            "no class in common: the first are 'Jump' and 'jump'; 'Jump' is 'jump' there (they differ in case",
        ),
    ],
)
def test_nothing_shared_is_an_error_with_its_reason(
    folder: Path, run: Run, before: str, after: str, message: str
) -> None:
    rows = [row for row in DETECTIONS.splitlines()[1:] if "jump" in row]
    if "{}" in after:
        rows = [after.format(*row.split(before, 1)) + row.split(before, 1)[1] for row in rows]
    else:
        rows = [row.replace(before, after) for row in rows]
    (folder / "other.csv").write_text("\n".join([DETECTIONS.splitlines()[0], *rows, ""]))
    done = run("other.csv", "truth.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: other.csv and truth.csv have {message}" in done.stderr


def test_ambiguous_regions_of_other_videos_are_an_error(folder: Path, run: Run) -> None:
    (folder / "regions.txt").write_text("v_v1 0 4\n")
    done = run("found.csv", "truth.csv", "--ambiguous", "regions.txt")
    assert done.returncode == 2
    assert "error: regions.txt and truth.csv have no video in common: the first are 'v_v1' and 'v1'" in done.stderr

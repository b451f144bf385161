"""`refineloc-convert --clips`: which films are meant, what the clips are called, and what a user can get wrong."""

import csv
import functools
import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytest.importorskip("av")

from films import write_film

from refineloc.evaluation.cli.convert import main

Run = Callable[..., CompletedProcess[str]]


def segment(start: float, end: float, label: str = "run", score: float = 0.5) -> dict[str, object]:
    return {"label": label, "score": score, "segment": [start, end]}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Three films of 2 s with a key frame at 0 s alone, and detections in these and in one that is not there."""
    (tmp_path / "films/day 1").mkdir(parents=True)
    for name in ("a.mp4", "day 1/it's.mkv", "day 1/бег.mp4"):
        write_film(tmp_path / "films" / name, range(0, 2000, 40), Fraction(1, 1000), options={"g": "99"})
    results = {
        "a": [segment(1, 1.5, "jump / run"), segment(-1, 0.8, score=0.25)],
        "day 1/it's": [segment(0, 0.4)],
        "бег": [segment(0.5, 9)],
        "gone": [segment(0, 1)],
        "none": [],
    }
    (tmp_path / "d.json").write_text(json.dumps({"results": results}))
    return tmp_path


@pytest.fixture
def run(here: Path, call_program: Callable[..., CompletedProcess[str]]) -> Run:
    return functools.partial(call_program, main)


def test_segments_that_nearly_coincide_have_a_clip_each(here: Path, run: Run) -> None:
    close = [segment(0.501, 0.9, score=0.9), segment(0.502, 0.9, score=0.8), segment(0.503, 0.9, score=0.7)]
    (here / "d.json").write_text(json.dumps({"results": {"a": close}}))
    assert run("d.json", "clips", "--clips", "films").returncode == 0
    with open(here / "clips/clips.csv", encoding="utf-8", newline="") as file:
        clips = [row[5] for row in list(csv.reader(file))[1:]]
    assert clips == [f"a_0000.50-0000.90_run{number}.mp4" for number in ("", "_2", "_3")]
    assert {path.name for path in (here / "clips").iterdir()} == {*clips, "clips.csv"}


def test_clips_and_their_list(here: Path, run: Run) -> None:
    done = run("d.json", "clips", "--clips", "films")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "left out: 1 of 4 videos, which have no film in films; the first is 'gone'",
        "clips: 4 clips, 2 copied and 2 re-encoded (clips/clips.csv)",
    ]
    with open(here / "clips/clips.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["video-name", "label", "t-start", "t-end", "score", "clip", "made"],
        ["a", "run", "0.000", "0.800", "0.2500", "a_0000.00-0000.80_run.mp4", "copied"],
        ["a", "jump / run", "1.000", "1.500", "0.5000", "a_0001.00-0001.50_jump _ run.mp4", "re-encoded"],
        ["day 1/it's", "run", "0.000", "0.400", "0.5000", "day 1_it's_0000.00-0000.40_run.mkv", "copied"],
        ["бег", "run", "0.500", "9.000", "0.5000", "бег_0000.50-0009.00_run.mp4", "re-encoded"],
    ]  # fmt: skip
    assert sorted(path.name for path in (here / "clips").iterdir()) == sorted(
        ["clips.csv", *(row[5] for row in rows[1:])]
    )
    # Again, and only the best: clips that are there already are written anew.
    assert run("d.json", "clips", "--clips", "films", "--video", "a", "--cap", "1").returncode == 0
    assert (here / "clips/clips.csv").read_text().count("\n") == 2


def test_annotations_have_clips_too(here: Path, run: Run) -> None:
    (here / "t.csv").write_text("video-name,label,t-start,t-end\na,run,0.2,0.6\n")
    done = run("t.csv", "clips", "--clips", "films")
    assert (done.returncode, done.stderr) == (0, "clips: 1 clip, 0 copied and 1 re-encoded (clips/clips.csv)\n")
    assert ",0.600,,a_0000.20-0000.60_run.mp4,re-encoded" in (here / "clips/clips.csv").read_text()


def test_a_bad_film_does_not_stop_the_others(here: Path, run: Run) -> None:
    (here / "films/day 1/бег.mp4").write_bytes(b"no film")
    done = run("d.json", "clips", "--clips", "films")
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: films/day 1/бег.mp4: not a film that FFmpeg reads")
    assert last.endswith("; clips: 3 clips, 2 copied and 1 re-encoded (clips/clips.csv)")
    assert len(list((here / "clips").iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["d.json", "clips", "--clips", "gone"], "--clips: gone is no folder; give that of the films"),
        (["d.json", "clips", "--clips", "films/a.mp4"], "--clips: films/a.mp4 is no folder"),
        (["d.json", "films", "--clips", "films"], "--clips: films is the folder of the films; give another one"),
        (["d.json", "clips", "--clips", "films", "--to", "srt"], "--clips: OUT is a folder of clips; leave --to out"),
        (["d.json", "d.json", "--clips", "films"], "d.json: cannot be made a folder"),
        (["d.json", ".", "--clips", "films"], "holds 'd.json', which is not of clips"),
        (["d.json", "clips", "--clips", "films", "--video", "gone"], "d.json and films have no video in common"),
        (["d.json", "clips", "--clips", "twice"], "either could be video 'a'"),
        (["late.csv", "clips", "--clips", "films"], "ends before 5.00 s, where a clip is to begin"),
    ],
)
def test_what_a_user_can_get_wrong(here: Path, run: Run, arguments: list[str], message: str) -> None:
    for place in ("twice/b", "twice/c"):
        (here / place).mkdir(parents=True)
        (here / place / "a.mp4").write_bytes((here / "films/a.mp4").read_bytes())
    (here / "late.csv").write_text("video-name,label,t-start,t-end\na,run,5,6\n")
    done = run(*arguments)
    assert done.returncode == 2
    assert re.search(re.escape(message), done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(here.glob("clips/*.mp4"))


def test_a_full_disk_is_one_line(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = run("d.json", "clips", "--clips", "films")
    assert done.returncode == 2
    assert done.stderr == "error: clips/a_0000.00-0000.80_run.mp4: cannot be written: no space left on device\n"
    assert not list((here / "clips").iterdir())

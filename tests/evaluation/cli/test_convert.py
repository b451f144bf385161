"""`refineloc-convert`: formats by name and content, limits, and what a user can get wrong."""

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import programs
import pytest

from refineloc.evaluation.cli.convert import main
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.detections import read_detections

Run = Callable[..., CompletedProcess[str]]
DETECTIONS = {
    "version": "VERSION 1.3",
    "results": {
        "a": [
            {"label": "run", "score": 0.9, "segment": [0, 4]},
            {"label": "jump", "score": 1.7, "segment": [2, 6]},
            {"label": "run", "score": 0.2, "segment": [5, 9]},
        ],
        "b": [{"label": "swim", "score": 0.4, "segment": [1, 3]}],
    },
}
LABELS = "video-name,label,fps,video-duration\na,run,25,10\nb,swim,30,20\n"
TRUTH = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\nc,1,2,run,8,25,200\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "found.json").write_text(json.dumps(DETECTIONS))
    (tmp_path / "labels.csv").write_text(LABELS)
    (tmp_path / "truth.csv").write_text(TRUTH)
    return tmp_path


@pytest.fixture
def run(here: Path, call_program: Callable[..., CompletedProcess[str]]) -> Run:
    return functools.partial(call_program, main)


@pytest.fixture
def converted(here: Path, run: Run) -> Callable[..., Path]:
    """The program where nothing is wrong; gives its output."""

    def convert(*arguments: str) -> Path:
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        return here / arguments[1]

    return convert


def test_json_and_csv_stay_what_they_are(here: Path, converted: Callable[..., Path]) -> None:
    found = read_detections(converted("found.json", "found.csv"))
    assert list(found["a"])[1] == (2.0, 6.0, "jump", 1.7)
    again = converted("found.csv", "again.json")
    assert json.loads(again.read_text())["results"]["b"] == DETECTIONS["results"]["b"]  # type: ignore[index]
    truth = json.loads(converted("truth.csv", "truth.json").read_text())
    assert truth["database"]["c"] == {
        "duration": 8.0,
        "fps": 25.0,
        "frame": 200,
        "annotations": [{"label": "run", "segment": [1.0, 2.0]}],
    }
    back = read_annotations(converted("truth.json", "back.csv"))["c"]
    assert (back.segment_labels, back.frames) == (("run",), 200)


def test_score_and_cap_limit_each_video(here: Path, converted: Callable[..., Path]) -> None:
    path = converted("found.json", "few.csv", "--cap", "2", "--min-score", "0.3")
    rows = [(row["video-name"], row["label"], row["score"]) for row in csv.DictReader(path.open())]
    assert rows == [("a", "run", "0.9"), ("a", "jump", "1.7"), ("b", "swim", "0.4")]  # in the order of the file
    path = converted("found.json", "one.csv", "--cap", "1")
    assert [row["score"] for row in csv.DictReader(path.open())] == ["1.7", "0.4"]
    path = converted("found.json", "known.csv", "--videos", "labels.csv", "--known-labels")
    assert [row["label"] for row in csv.DictReader(path.open())] == ["run", "run", "swim"]  # a does not jump


def test_one_video_or_a_folder_of_them(here: Path, converted: Callable[..., Path]) -> None:
    one = converted("found.json", "a.srt", "--video", "a")
    assert one.read_text().startswith("1\n00:00:00,000 --> 00:00:04,000\nrun  0.90\n")
    folder = converted("found.json", "subs", "--to", "vtt")
    assert sorted(path.name for path in folder.iterdir()) == ["a.vtt", "b.vtt"]
    folder = converted("found.json", "elan", "--to", "elan", "--media", "file:///v/")
    assert 'MEDIA_URL="file:///v/b.mp4"' in (folder / "b.eaf").read_text()


def test_training_data(here: Path, converted: Callable[..., Path]) -> None:
    (here / "classes.txt").write_text("swim\nrun\njump\n")
    path = converted(
        "found.json", "train.json", "--to", "training", "--videos", "labels.csv", "--known-labels",
        "--classes", "classes.txt", "--validation", "truth.csv",
    )  # fmt: skip
    database = json.loads(path.read_text())["database"]
    assert {name: video["subset"] for name, video in database.items()} == {
        "a": "training",
        "b": "training",
        "c": "validation",
    }
    assert database["a"]["annotations"][0] == {"label": "run", "label_id": 1, "segment": [0.0, 4.0], "score": 0.9}
    assert (database["a"]["duration"], database["a"]["fps"], database["a"]["frame"]) == (10.0, 25.0, 250)


def test_parquet_and_label_studio(here: Path, converted: Callable[..., Path]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = converted("found.json", "found.parquet", "--videos", "labels.csv")
    assert parquet.read_table(path).column("fps").to_pylist() == [25.0, 25.0, 25.0, 30.0]
    tasks = json.loads(converted("found.json", "ls.json", "--to", "label-studio", "--fps", "25").read_text())
    assert [task["data"]["video"] for task in tasks] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json", "o.csv"], "absent.json: no such file"),
        (["found.json", "o.txt"], "o.txt: expected a name that ends in"),
        (["found.json", "o.srt"], "srt holds one video, and there are 2"),
        (["found.json", "o.srt", "--video", "z"], "has no video 'z'"),
        (["found.json", "o.json", "--to", "label-studio"], "--videos LABELS or --fps"),
        (["found.json", "o.json", "--to", "training"], "its duration is not known"),
        (["found.json", "o.json", "--videos", "truth.csv"], "lacks 2 of 2 videos, the first is 'a'"),
        (["found.json", "o.json", "--known-labels"], "needs --videos"),
        (["found.json", "o.json", "--fps", "0"], "expected a positive number"),
        (["found.json", "o.json", "--classes", "labels.csv"], "only with --to training"),
        (["found.json", "nowhere/o.json"], "nowhere/o.json: cannot be written"),
        (["found.json", "o.csv", "--to", "training", "--fps", "5"], "expected an output name that ends in .json"),
        (["found.json", "o.mp4", "--to", "srt"], "expected a name that ends in .srt, or a folder"),
        (["found.json", "labels.csv/x", "--to", "srt"], "cannot be made a folder"),
        (["found.json", "x" * 300 + ".srt", "--video", "a"], "file name too long"),
        ([".", "o.csv"], "a folder without W-TALC's"),
        (["found.json", "o.json", "--fps", "inf"], "expected a positive number"),
        (["found.json", "o.json", "--min-score", "nan"], "--min-score: expected a number"),
        (["truth.csv", "o.json", "--min-score", "0.5"], "only for detections, and truth.csv holds annotations"),
        (["truth.csv", "o.json", "--cap", "5"], "only for detections, and truth.csv holds annotations"),
        (["found.json", "o.csv", "--media", "file:///"], "--media: only with --to label-studio and elan"),
    ],
)
def test_what_a_user_can_get_wrong(here: Path, run: Run, arguments: list[str], message: str) -> None:
    before = sorted(here.iterdir())
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("form", ["srt", "elan"])
def test_names_of_videos_become_names_of_files(here: Path, run: Run, form: str) -> None:
    names = ["../../evil", "a/b", "a\\b", "..", ".", "con\nline", "x" * 300, "跳" * 200, "fine"]
    (here / "odd.json").write_text(json.dumps({name: DETECTIONS["results"]["b"] for name in names if name != "a\\b"}))  # type: ignore[index]
    done = run("odd.json", "out", "--to", form)
    assert done.returncode == 0
    assert "7 of 8 videos have other names as files, the first: '../../evil' is '.._.._evil." in done.stderr
    ending = {"srt": ".srt", "elan": ".eaf"}[form]
    files = {path.name.removesuffix(ending) for path in (here / "out").iterdir()}
    assert files == {".._.._evil", "a_b", "__", "_", "con_line", "x" * 251, "跳" * 83, "fine"}
    assert not (here.parent / f"evil{ending}").exists()
    # Two that would be one file: told before any is written.
    (here / "odd.json").write_text(json.dumps(dict.fromkeys(names, DETECTIONS["results"]["b"])))  # type: ignore[index]
    done = run("odd.json", "again", "--to", form)
    assert done.returncode == 2
    assert "videos 'a/b' and 'a\\\\b' would both be 'a_b" in done.stderr
    assert not (here / "again").exists()


def told(run: Run, *arguments: str) -> list[str]:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_what_a_format_cannot_hold_is_told(here: Path, run: Run) -> None:
    results = {
        "a": [{"label": "x", "score": 1, "segment": [0, 4]}, {"label": "x", "score": 1, "segment": [4, 4]}],
        "b": [],
        "c": [{"label": "x", "score": 1, "segment": [9, 2]}],
        " d": [{"label": "x", "score": 1, "segment": [1, 2]}],
    }
    (here / "odd.json").write_text(json.dumps({"results": results}))
    bad = "left out: 2 segments that end by their start or by 0 s, the first in video 'a' (4 to 4 s)"
    assert told(run, "odd.json", "o.csv") == [
        bad,
        "left out: 2 of 4 videos without a segment, as the file has a row a segment; the first is 'b'",
        "warning: spaces around a name do not count in a CSV: ' d' is read as 'd'",
        "o.csv: 2 segments of 4 videos, 2 of them without any (detections)",
    ]
    assert list(read_detections(here / "o.csv")) == ["a", "d"]
    assert told(run, "odd.json", "o.jsonl") == [
        bad,
        "o.jsonl: 2 segments of 4 videos, 2 of them without any (detections)",
    ]
    assert list(read_detections(here / "o.jsonl")) == list(results)


def test_what_annotations_lose_is_told(here: Path, run: Run) -> None:
    database = {
        "a": {"subset": "training", "fps": 25, "annotations": [{"label": "x", "segment": [0, 4]}, {"label": "y"}]},
        "b": {"subset": "training", "annotations": []},
        "c": {"annotations": [{"label": "y"}]},
    }
    (here / "odd.json").write_text(json.dumps({"database": database}))
    summary = "1 segment of 3 videos, 2 of them without any"
    assert told(run, "odd.json", "o.csv") == [
        "left out: 1 of 3 videos without a segment, as the file has a row a segment; the first is 'b'",
        "left out: the videos' subsets, which the CSV has no column for",
        f"o.csv: {summary} (annotations)",
    ]
    assert {name: video.labels for name, video in read_annotations(here / "o.csv").items()} == {
        "a": ("x", "y"),
        "c": ("y",),
    }
    assert told(run, "odd.json", "o.json") == [f"o.json: {summary} (annotations)"]
    assert told(run, "odd.json", "subs", "--to", "srt") == [
        "left out: 2 labels without times, which srt has no place for",
        f"subs/*.srt: {summary} (srt)",
    ]


@pytest.mark.parametrize(
    ("name", "negative", "beyond"),
    [
        ("o.csv", "kept as in IN", "kept as in IN"),
        ("o.srt", "clipped to the video", "kept as in IN"),
        ("o.eaf", "clipped to the video", "kept as in IN"),
        ("training", "clipped to the video", "clipped to the video"),
    ],
)
def test_odd_annotations_are_told(here: Path, run: Run, name: str, negative: str, beyond: str) -> None:
    bounds = [[20, 10], [10, -1], [7, 7], [-9, -2], [-1, 5], [50, 90], [100, 110]]
    entry = {"duration": 60, "fps": 25, "annotations": [{"label": "run", "segment": each} for each in bounds]}
    (here / "odd.json").write_text(json.dumps({"database": {"a": entry}}))
    out = ["o.json", "--to", "training"] if name == "training" else [name]
    *lines, _ = told(run, "odd.json", *out)
    assert lines == [
        "left out: 4 segments that end by their start or by 0 s, the first in video 'a' (20 to 10 s)",
        f"warning: 1 of 3 segments begins before 0 s, the first in video 'a' (-1 to 5 s); {negative}",
        f"warning: 2 of 3 segments end past their video's end, the first in video 'a' (50 to 90 s); {beyond}",
    ]
    if name == "training":
        kept = json.loads((here / "o.json").read_text())["database"]["a"]["annotations"]
        assert [annotation["segment"] for annotation in kept] == [[0, 5], [50, 60]]
    if name == "o.srt":
        assert (here / name).read_text().count("-->") == 3
    if name == "o.csv":
        assert read_annotations(here / name)["a"].start.tolist() == [-1, 50, 100]


def test_training_data_is_read_back_as_annotations(here: Path, run: Run) -> None:
    assert run("found.json", "t.json", "--to", "training", "--videos", "labels.csv").returncode == 0
    first, *_ = told(run, "t.json", "o.csv")
    assert first == "left out: the scores of 4 annotations, which have none here (detections do)"


def test_pickles_of_wtalc_are_read_only_when_the_option_says_so(here: Path, run: Run) -> None:
    folder = here / "wtalc"
    folder.mkdir()
    np.save(folder / "videoname.npy", np.array([b"a"]))
    for name, values in (("segments", [[0.5, 1.5]]), ("labels", [b"run"])):
        rows = np.empty(1, dtype=object)
        rows[0] = values
        np.save(folder / f"{name}.npy", rows)
    refused = run("wtalc", "out.json")
    assert refused.returncode == 2
    assert "segments.npy: holds Python objects" in refused.stderr
    assert "--allow-pickle" in refused.stderr
    assert refused.stderr.count("\n") == 1
    done = run("wtalc", "out.json", "--allow-pickle")
    assert done.returncode == 0, done
    assert read_annotations(here / "out.json")["a"].segment_labels == ("run",)


def test_standard_output_has_the_input_s_kind_or_that_of_to(here: Path) -> None:
    done = programs.run("refineloc-convert", "found.json", "-", cwd=here)
    assert json.loads(done.stdout)["results"].keys() == {"a", "b"}
    done = programs.run("refineloc-convert", "truth.csv", "/dev/stdout", cwd=here)
    assert json.loads(done.stdout)["database"].keys() == {"c"}
    done = programs.run("refineloc-convert", "found.json", "-", "--to", "vtt", "--video", "b", cwd=here)
    assert done.stdout.startswith("WEBVTT\n\n1\n00:00:01.000 --> 00:00:03.000\nswim")

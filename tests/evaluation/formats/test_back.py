"""Back from the tools: what `refineloc-convert` writes it reads again, also after a person's work in the tool."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from refineloc.evaluation.cli.convert import main
from refineloc.evaluation.formats.label_studio import read_label_studio
from refineloc.evaluation.formats.reading import read_source
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.detections import Detections, read_detections, write_detections
from refineloc.runtime.errors import InputError

Run = Callable[..., CompletedProcess[str]]

LABELS = "video-name,label,fps,video-duration\na,run,25,60\nb,run,30,60\n"
TRUTH = (
    "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\n"
    "a,1,2,run,60,25,1500\na,1.2,4,high jump,60,25,1500\nb,3,4.2,run,60,30,1800\n"
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    # Two that overlap, a class of two words, two frame rates; times on whole frames and scores of two digits.
    classes = ("high jump", "run")
    columns = [np.array(column) for column in ([1.0, 1.2, 30.0], [2.0, 4.0, 31.4], [0.9, 1.25, -0.5])]
    a = Detections(*columns, np.array([1, 1, 0]), classes)
    b = Detections(np.array([3.0]), np.array([4.2]), np.array([0.75]), np.array([1]), classes)
    write_detections(tmp_path / "found.json", {"a": a, "b": b})
    (tmp_path / "labels.csv").write_text(LABELS)
    (tmp_path / "truth.csv").write_text(TRUTH)
    return tmp_path


@pytest.fixture
def run(here: Path, call_program: Callable[..., CompletedProcess[str]]) -> Run:
    return functools.partial(call_program, main)


def converted(run: Run, *arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    if path.name.startswith("truth"):
        return {
            name: sorted(zip(video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True))
            for name, video in read_annotations(path).items()
        }
    return {name: sorted(video) for name, video in read_detections(path).items()}


@pytest.mark.parametrize("source", ["found.json", "truth.csv"])
@pytest.mark.parametrize(
    ("there", "to"),
    [("subs", "srt"), ("subs", "vtt"), ("eaf", "elan"), ("tasks.json", "label-studio"), ("all.parquet", "parquet")],
)
def test_round_trip(here: Path, run: Run, source: str, there: str, to: str) -> None:
    if to == "parquet":
        pytest.importorskip("pyarrow")
    converted(run, source, there, "--to", to, "--videos", "labels.csv")
    back = source.replace(".", "_back.")
    converted(run, there, back)
    assert rows(here / back) == rows(here / source)
    # A file of one video has the name that --video gives it.
    if to == "srt":
        converted(run, "subs/a.srt", back, "--video", "film")
        assert list(rows(here / back)) == ["film"]


def test_two_frame_rates_are_stated_by_each_task(here: Path, run: Run) -> None:
    told = converted(run, "found.json", "tasks.json", "--to", "label-studio", "--videos", "labels.csv")
    assert 'several frame rates: the project needs <Video ... framerate="$fps"/>' in told
    tasks = json.loads((here / "tasks.json").read_text())
    assert [task["data"]["fps"] for task in tasks] == [25, 30]
    assert isinstance(tasks[0]["data"]["fps"], int)


REGION = {
    "id": "r1",
    "type": "timelinelabels",
    "from_name": "actions",
    "to_name": "video",
    "value": {"ranges": [{"start": 251, "end": 500}], "timelinelabels": ["run"]},
}


@pytest.mark.parametrize(
    "document",
    [
        [{"id": 1, "data": {"video": "a1.mp4"}, "annotations": [{"result": [REGION]}]}],
        [{"id": 1, "data": {"video": "/data/upload/3/0123abcd-a1.mp4"}, "annotations": [{"result": [REGION]}]}],
        [
            {
                "id": 1,
                "data": {"video": "/data/local-files/?d=my%20videos/a1.mp4"},
                "annotations": [{"result": [REGION]}],
            }
        ],
        {"id": 1, "data": {"name": "a1", "video": "x.mp4"}, "annotations": [{"result": [REGION]}]},
        [{"id": 1, "video": "a1.mp4", "actions": [REGION["value"]], "annotator": 1}],
        # Of several annotations the last that was not given up; predictions count only where there is no annotation.
        [
            {
                "data": {"video": "a1.mp4"},
                "predictions": [{"result": []}],
                "annotations": [{"result": []}, {"result": [REGION]}, {"result": [], "was_cancelled": True}],
            }
        ],
    ],
)
def test_exports_of_label_studio(here: Path, run: Run, document: Any) -> None:
    (here / "export.json").write_text(json.dumps(document))
    done = run("export.json", "truth_back.csv")
    assert done.returncode == 2
    assert "export.json: task 1 (video 'a1'): Label Studio counts frames, and its fps is not known" in done.stderr
    assert "--fps X" in done.stderr
    told = converted(run, "export.json", "truth_back.csv", "--fps", "25")
    assert ("several annotations, the first is 'a1'; the last of each is read" in told) == (
        "predictions" in str(document)
    )
    assert rows(here / "truth_back.csv") == {"a1": [(10.0, 20.0, "run")]}


def test_corrected_predictions_are_annotations(here: Path, run: Run) -> None:
    converted(run, "found.json", "tasks.json", "--to", "label-studio", "--videos", "labels.csv")
    tasks = json.loads((here / "tasks.json").read_text())
    tasks[0]["annotations"] = [{"result": tasks[0]["predictions"][0]["result"][:1]}]  # b is not yet looked at
    (here / "export.json").write_text(json.dumps(tasks))
    told = converted(run, "export.json", "truth_back.json").splitlines()
    assert told[0] == "left out: 1 task without an annotation, the first of video 'b'"
    assert told[1] == "left out: the scores of 1 annotation, which have none here (detections do)"
    assert rows(here / "truth_back.json") == {"a": [(1.0, 2.0, "run")]}


def test_regions_of_other_kinds_are_passed_over_and_odd_ones_named() -> None:
    def read(*regions: Any) -> list[tuple[float, ...]]:
        task = {"data": {"name": "a", "fps": "25"}, "annotations": [{"result": [*regions]}]}
        (track,) = read_label_studio(Path("e.json"), [task]).tracks
        return list(zip(track.start.tolist(), track.end.tolist(), strict=True))

    two = {"ranges": [{"start": 1, "end": 25}, {"start": 51, "end": 75}], "timelinelabels": ["run", "jump"]}
    assert read({"type": "choices", "value": {"choices": ["x"]}}, {"value": two}) == [(0, 1), (2, 3)] * 2
    for value, message in [
        ({"ranges": [{"start": 1}], "timelinelabels": ["run"]}, "expected 'ranges' of start and end"),
        ({"ranges": [{"start": 1, "end": 2}], "timelinelabels": [3]}, "a label: expected a text, got the number 3"),
    ]:
        with pytest.raises(InputError, match=f"e.json: task 1 .*{message}"):
            read({"value": value})


def test_subtitles_of_others(here: Path, run: Run) -> None:
    (here / "a.srt").write_text(
        "\ufeff1\r\n00:00:10,000 --> 00:00:20,5\r\nhigh\r\njump\r\n\r\n00:01:00.000 --> 00:01:02.000\r\nrun\r\n",
        "utf-8",
    )
    converted(run, "a.srt", "truth_back.csv")
    assert rows(here / "truth_back.csv") == {"a": [(10.0, 20.5, "high jump"), (60.0, 62.0, "run")]}
    (here / "a.vtt").write_text(
        "WEBVTT\n\nNOTE\nno --> cue\n\nintro\n00:10.000 --> 00:20.000 align:start\n<v Anna>run &amp; jump</v>\n"
    )
    converted(run, "a.vtt", "truth_back.csv")
    assert rows(here / "truth_back.csv") == {"a": [(10.0, 20.0, "run & jump")]}
    # One cue that a person added has no score: annotations then.
    (here / "b.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nrun  0.90\n\n2\n00:00:03,000 --> 00:00:04,000\nrun\n"
    )
    assert "left out: the scores of 1 annotation" in converted(run, "b.srt", "truth_back.csv")
    assert rows(here / "truth_back.csv") == {"b": [(1.0, 2.0, "run"), (3.0, 4.0, "run")]}


ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts2" {second}/></TIME_ORDER>
<TIER LINGUISTIC_TYPE_REF="t" TIER_ID="{tier}"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
</TIER></ANNOTATION_DOCUMENT>"""


@pytest.mark.parametrize(
    ("tier", "value", "label"),
    [("Actions", "run", "run"), ("run", "", "run"), ("run (2)", "run", "run"), ("Actions", "10 m 2.50", "10 m 2.50")],
)
def test_elan_files_of_others(here: Path, run: Run, tier: str, value: str, label: str) -> None:
    (here / "a.eaf").write_text(ELAN.format(tier=tier, value=value, second='TIME_VALUE="2500"'))
    converted(run, "a.eaf", "truth_back.csv")
    assert rows(here / "truth_back.csv") == {"a": [(1.0, 2.5, label)]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.srt", "1\n00:00:10 --> 00:00:20\nrun\n", "a.srt: line 2: expected times such as 00:00:10,000"),
        ("a.srt", "1\n00:00:10,000 --> 00:00:20,000\n\n", "a.srt: line 2: a cue without a text"),
        ("a.srt", "run at ten\n", "a.srt: holds no cue"),
        ("a.eaf", "<a/>", "a.eaf: not an ELAN file: its first element is 'a'"),
        ("a.eaf", "<a", "a.eaf: not an ELAN file"),
        ("a.eaf", '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "a.eaf: has a document type"),
        ("a.eaf", ELAN.format(tier="t", value="x", second=""), "tier 't': annotation 'a1': has no times"),
        ("a.json", "[3]", "expected ActivityNet's form"),
        ("a.json", '[{"id": 7}]', "task 7: has neither 'name' nor 'video'"),
        ("a.json", '[{"id": 7, "video": 3}]', "task 7: its video: expected a text, got the number 3"),
        ("a.json", '[{"id": 7, "video": "a.mp4", "video": "b.mp4"}]', "the key 'video' is there twice"),
        ("a.parquet", "x", "a.parquet: cannot be read as Parquet"),
    ],
)
def test_what_is_wrong_is_one_line(here: Path, run: Run, name: str, text: str, message: str) -> None:
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    (here / name).write_text(text)
    done = run(name, "o.csv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (here / "o.csv").exists()


def test_folders_and_subsets_that_are_not_there(here: Path) -> None:
    (here / "mixed").mkdir()
    for name in ("a.srt", "b.vtt"):
        (here / "mixed" / name).write_text("")
    with pytest.raises(InputError, match=r"several formats \(\.srt, \.vtt\)"):
        read_source(here / "mixed")
    with pytest.raises(InputError, match="have no subsets"):
        read_source(here / "mixed" / "a.srt", subset="validation")

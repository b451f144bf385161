"""Formats: each file is read back by the format's own library, and hostile names and values stay inside it."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refineloc.evaluation.formats.database import write_activitynet, write_training_data
from refineloc.evaluation.formats.elan import write_elan
from refineloc.evaluation.formats.label_studio import write_label_studio
from refineloc.evaluation.formats.media import media_address, media_type
from refineloc.evaluation.formats.parquet import write_parquet
from refineloc.evaluation.formats.reading import read_source
from refineloc.evaluation.formats.subtitles import write_subtitles
from refineloc.evaluation.formats.tracks import Track, to_annotations, to_detections
from refineloc.runtime.annotations import read_annotations, write_annotations_csv
from refineloc.runtime.detections import read_detections
from refineloc.runtime.errors import InputError, MissingExtraError


def track(rows: list[tuple[float, float, str, float]], video: str = "clip", scores: bool = True, **about: Any) -> Track:
    return Track(
        video,
        np.array([row[0] for row in rows], dtype=np.float64),
        np.array([row[1] for row in rows], dtype=np.float64),
        tuple(row[2] for row in rows),
        np.array([row[3] for row in rows], dtype=np.float64) if scores else None,
        **about,
    )


# Out of order, overlapping, hours long, hostile and multi-line labels.
ROWS = [
    (3661.5, 3700.25, "High jump", 1.875),
    (0.0, 2.5, "<b>run</b> & walk --> jump", 0.25),
    (1.0, 2.0, "two\nlines", 0.5),
    (1.5, 4.0, "two\nlines", 0.125),
]


def test_srt_is_read_by_the_srt_library(tmp_path: Path) -> None:
    srt = pytest.importorskip("srt")
    write_subtitles(tmp_path / "a.srt", track(ROWS), "srt")
    cues = list(srt.parse((tmp_path / "a.srt").read_text(encoding="utf-8")))
    assert [(cue.index, cue.start.total_seconds(), cue.end.total_seconds()) for cue in cues] == [
        (1, 0.0, 2.5),
        (2, 1.0, 2.0),
        (3, 1.5, 4.0),
        (4, 3661.5, 3700.25),
    ]
    assert cues[0].content == "<b>run</b> & walk → jump  0.25"
    assert cues[1].content == "two lines  0.50"
    assert cues[3].content == "High jump  1.88"


def test_vtt_is_read_by_the_webvtt_library(tmp_path: Path) -> None:
    webvtt = pytest.importorskip("webvtt")
    write_subtitles(tmp_path / "a.vtt", track(ROWS, scores=False), "vtt")
    cues = list(webvtt.read(tmp_path / "a.vtt"))
    assert [(cue.start, cue.end) for cue in cues] == [
        ("00:00:00.000", "00:00:02.500"),
        ("00:00:01.000", "00:00:02.000"),
        ("00:00:01.500", "00:00:04.000"),
        ("01:01:01.500", "01:01:40.250"),
    ]
    assert cues[0].raw_text == "&lt;b&gt;run&lt;/b&gt; &amp; walk --&gt; jump"
    assert cues[3].text == "High jump"


def test_a_cue_lasts_at_least_a_millisecond(tmp_path: Path) -> None:
    srt = pytest.importorskip("srt")
    write_subtitles(tmp_path / "a.srt", track([(1.0, 1.0001, "x", 1.0), (-0.2, 0.1, "y", 1.0)]), "srt")
    first, second = srt.parse((tmp_path / "a.srt").read_text())
    assert first.start.total_seconds() == 0
    assert (second.end - second.start).total_seconds() == pytest.approx(0.001)


def test_eaf_is_read_by_pympi(tmp_path: Path) -> None:
    elan = pytest.importorskip("pympi").Elan
    write_elan(tmp_path / "a.eaf", track(ROWS), media="file:///videos/clip & more.mp4")
    read = elan.Eaf(str(tmp_path / "a.eaf"))
    assert sorted(read.get_tier_names()) == sorted(
        ["High jump", "<b>run</b> & walk --> jump", "two lines", "two lines (2)"]  # ELAN's tiers hold no overlap
    )
    assert read.get_annotation_data_for_tier("High jump") == [(3661500, 3700250, "High jump 1.88")]
    assert read.get_annotation_data_for_tier("two lines") == [(1000, 2000, "two lines 0.50")]
    assert read.get_annotation_data_for_tier("two lines (2)") == [(1500, 4000, "two lines 0.12")]
    assert [media["MEDIA_URL"] for media in read.get_linked_files()] == ["file:///videos/clip & more.mp4"]
    again = tmp_path / "again.eaf"
    read.to_file(str(again))  # pympi can write what it read
    assert elan.Eaf(str(again)).get_annotation_data_for_tier("High jump")


@pytest.mark.parametrize(
    ("place", "video", "address", "kind"),
    [
        ("", "clip", "clip.mp4", "video/mp4"),
        ("", "v.2", "v.2.mp4", "video/mp4"),  # a dot makes no file's name of it
        ("/data/?d=", "v_1.WebM", "/data/?d=v_1.WebM", "video/webm"),
        ("file:///my videos/", "a b#1?.mov", "file:///my%20videos/a%20b%231%3F.mov", "video/quicktime"),
        ("file:///my%20videos/", "sub/跳", "file:///my%20videos/sub/%E8%B7%B3.mp4", "video/mp4"),
        ("https://host/?x=1&d=", "100%", "https://host/?x=1&d=100%25.mp4", "video/mp4"),
    ],
)
def test_addresses_of_media(tmp_path: Path, place: str, video: str, address: str, kind: str) -> None:
    assert (media_address(place, video), media_type(address)) == (address, kind)
    write_label_studio(tmp_path / "a.json", [track(ROWS, video, fps=25.0)], media=place)
    assert json.loads((tmp_path / "a.json").read_text())[0]["data"] == {"video": address, "name": video, "fps": 25}
    elan = pytest.importorskip("pympi").Elan
    write_elan(tmp_path / "a.eaf", track(ROWS), media=address)
    (linked,) = elan.Eaf(str(tmp_path / "a.eaf")).get_linked_files()
    assert (linked["MEDIA_URL"], linked["MIME_TYPE"]) == (address, kind)


def test_equal_input_gives_equal_eaf(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_elan(tmp_path / f"{name}.eaf", track([(0.0, 1.0, "bell\x07", 1.0)]))
    assert (tmp_path / "a.eaf").read_bytes() == (tmp_path / "b.eaf").read_bytes()
    assert b"\x07" not in (tmp_path / "a.eaf").read_bytes()


def test_parquet_is_read_by_pyarrow(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    detections = track(ROWS, fps=25.0, duration_s=4000.0)
    truth = track([(1.0, 2.0, "run", 0.0)], video="other", scores=False, subset="validation")
    write_parquet(tmp_path / "a.parquet", [detections, track([], video="empty"), truth])
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["video"] for row in rows] == ["clip"] * 4 + ["other"]
    assert rows[0] == {
        "video": "clip",
        "start_s": 3661.5,
        "end_s": 3700.25,
        "label": "High jump",
        "score": 1.875,
        "duration_s": 4000.0,
        "fps": 25.0,
        "subset": None,
    }
    assert (rows[4]["score"], rows[4]["subset"], rows[4]["fps"]) == (None, "validation", None)
    write_parquet(tmp_path / "none.parquet", [])
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_without_pyarrow_the_error_has_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'refineloc\[formats\]'"):
        write_parquet(tmp_path / "a.parquet", [track(ROWS)])
    assert not list(tmp_path.iterdir())


def test_label_studio_counts_frames_from_one(tmp_path: Path) -> None:
    rows = [(0.0, 1.0, "x", 1.9), (0.12, 0.16, "x", 0.1), (0.1, 0.101, "y", 0.1)]
    write_label_studio(tmp_path / "a.json", [track(rows, fps=25.0)], media="/data/?d=")
    (task,) = json.loads((tmp_path / "a.json").read_text())
    assert task["data"] == {"video": "/data/?d=clip.mp4", "name": "clip", "fps": 25}
    results = task["predictions"][0]["result"]
    # Frame k is shown from (k-1)/25 to k/25: the first second is frames 1 to 25; 0.12 to 0.16 is frame 4 alone.
    assert [result["value"]["ranges"][0] for result in results] == [
        {"start": 1, "end": 25},
        {"start": 4, "end": 4},
        {"start": 3, "end": 3},
    ]
    assert {result["value"]["timelinelabels"][0] for result in results} == {"x", "y"}
    write_label_studio(tmp_path / "b.json", [track(rows, scores=False, fps=25.0)])
    assert "annotations" in json.loads((tmp_path / "b.json").read_text())[0]
    with pytest.raises(InputError, match=r"video 'clip'.*fps is not known; give the track's"):
        write_label_studio(tmp_path / "c.json", [track(rows)])


def test_label_studio_regions_are_read_by_its_own_library(tmp_path: Path) -> None:
    """With its exporter: its validator has no rules for TimelineLabels, and calls every value of them invalid."""
    converter = pytest.importorskip(
        "label_studio_sdk.converter", reason="label-studio-sdk is not installed (38 packages, 450 MB)"
    )
    write_label_studio(tmp_path / "a.json", [track([(0.0, 1.0, "x", 0), (2.0, 3.0, "y", 0)], scores=False, fps=25.0)])
    (task,) = json.loads((tmp_path / "a.json").read_text())
    task["id"] = task["annotations"][0]["id"] = 1  # as its server gives them when it imports the file
    (tmp_path / "a.json").write_text(json.dumps([task]))
    config = (
        '<View><TimelineLabels name="actions" toName="video"><Label value="x"/><Label value="y"/></TimelineLabels>'
        '<Video name="video" value="$video" framerate="25"/></View>'
    )
    reader = converter.Converter(config, str(tmp_path), download_resources=False)
    reader.convert(str(tmp_path / "a.json"), str(tmp_path / "out"), "JSON_MIN", is_dir=False)
    (read,) = json.loads((tmp_path / "out" / "result.json").read_text())
    assert read["video"] == "clip.mp4"
    assert read["actions"] == [
        {"ranges": [{"start": 1, "end": 25}], "timelinelabels": ["x"]},
        {"ranges": [{"start": 51, "end": 75}], "timelinelabels": ["y"]},
    ]


def test_training_data(tmp_path: Path) -> None:
    """`test_training_data.py` reads such a file as the loaders of ActionFormer and OpenTAD do."""
    pseudo = track(
        [(-1.0, 5.0, "run", 1.5), (8.0, 12.0, "jump", 0.5), (11.0, 12.0, "run", 0.1)], fps=30.0, duration_s=10.0
    )
    truth = track(
        [(1.0, 2.0, "jump", 0.0)], "val", scores=False, fps=25.0, duration_s=4.0, frames=99, subset="validation"
    )
    path = tmp_path / "pseudo.json"
    write_training_data(path, [pseudo, truth], ["jump", "run"])
    # Clipped to the video; what lies outside it is gone.
    assert json.loads(path.read_text())["database"] == {
        "clip": {
            "subset": "training",
            "duration": 10.0,
            "fps": 30.0,
            "frame": 300,
            "annotations": [
                {"label": "run", "label_id": 1, "segment": [0.0, 5.0], "score": 1.5},
                {"label": "jump", "label_id": 0, "segment": [8.0, 10.0], "score": 0.5},
            ],
        },
        "val": {
            "subset": "validation",
            "duration": 4.0,
            "fps": 25.0,
            "frame": 99,
            "annotations": [{"label": "jump", "label_id": 0, "segment": [1.0, 2.0]}],
        },
    }
    # Its reader counts the scores that it does not read: they are annotations.
    (video, *_), scored, unread, _ = read_source(path)
    assert (video.score, scored, unread, video.frames) == (None, False, 2, 300)
    for tracks, message in (
        ([pseudo], "label 'run' is not one of the 1 class"),
        ([track(ROWS, duration_s=5.0)], "its fps is not known"),
        ([track(ROWS, fps=5.0)], "its duration is not known"),
    ):
        with pytest.raises(InputError, match=message):
            write_training_data(path, tracks, ["jump"])


def test_activitynet_json_and_csv_both_ways(tmp_path: Path, shared_data: Path) -> None:
    released = shared_data / "refineloc-release" / "thumos14_valid_groundtruth.csv"
    there, back = tmp_path / "there.json", tmp_path / "back.csv"
    write_activitynet(there, read_source(released).tracks)
    write_annotations_csv(back, to_annotations(read_source(there).tracks))
    first, last = read_annotations(released), read_annotations(back)
    assert list(first) == list(last)
    for name, video in first.items():
        other = last[name]
        assert video.start.tolist() == other.start.tolist()
        assert video.end.tolist() == other.end.tolist()
        assert (video.segment_labels, video.duration_s) == (other.segment_labels, other.duration_s)
        assert (video.fps, video.frames) == (other.fps, other.frames)
    assert all(video.frames for video in first.values())


@pytest.mark.parametrize(("rows", "segment_labels"), [("a,,,run\na,,,jump\n", ()), ("a,1,2,run\na,,,jump\n", ("run",))])
def test_labels_without_times_survive(tmp_path: Path, rows: str, segment_labels: tuple[str, ...]) -> None:
    (tmp_path / "a.csv").write_text("video-name,t-start,t-end,label\n" + rows)
    write_activitynet(tmp_path / "a.json", read_source(tmp_path / "a.csv").tracks)
    write_annotations_csv(tmp_path / "back.csv", to_annotations(read_source(tmp_path / "a.json").tracks))
    for name in ("a.json", "back.csv"):
        video = read_annotations(tmp_path / name)["a"]
        assert (video.labels, video.segment_labels) == (("jump", "run"), segment_labels)


def test_a_file_without_detections_is_one_of_detections_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"results": {}}')
    assert read_source(tmp_path / "none.json") == ([], True, 0, ())
    (tmp_path / "none.csv").write_text('"video-name","t-start","t-end","label","score"\n')
    assert read_source(tmp_path / "none.csv").scored


def test_tracks_tell_detections_from_annotations(tmp_path: Path, shared_data: Path) -> None:
    release, sample = shared_data / "refineloc-release", shared_data / "activitynet-sample"
    assert read_source(sample / "sample_detection_prediction.json").tracks[0].score is not None
    assert (
        read_source(sample / "activity_net.v1-2.min-missing-removed.json", subset="validation").tracks[0].score is None
    )
    assert read_source(release / "thumos14_test_groundtruth.csv").tracks[0].score is None
    (tmp_path / "found.csv").write_text("video-name,t-start,t-end,label,score\na,0,1,x,0.5\na,3,3,x,0.5\n")
    (video,) = read_source(tmp_path / "found.csv").tracks
    assert video.score is not None
    assert (len(video), len(video.left_out)) == (1, 1)  # what lasts no time is left out
    with pytest.raises(InputError, match="no such file"):
        read_source(tmp_path / "absent.json")
    with pytest.raises(InputError, match="a folder without W-TALC's"):
        read_source(tmp_path)
    with pytest.raises(InputError, match="detections have no subsets"):
        read_source(tmp_path / "found.csv", subset="test")


def test_detections_keep_every_value(shared_data: Path) -> None:
    source = shared_data / "refineloc-release" / "valid_predictions_iteration_0001.json"
    before, after = read_detections(source), to_detections(read_source(source).tracks)
    assert list(before) == list(after)
    for name, detections in before.items():
        assert list(detections) == list(after[name])


def test_basnet_ground_truth(shared_data: Path) -> None:
    tracks = read_source(shared_data / "basnet-thumos14" / "gt.json", subset="test").tracks
    first = next(track for track in tracks if track.video == "video_test_0000896")
    assert (first.start[0], first.end[0], first.labels[0]) == (18.6, 24.8, "HighJump")  # its bounds are strings
    assert sum(len(track) for track in tracks) > 3000

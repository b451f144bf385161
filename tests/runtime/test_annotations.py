"""Labels and segments, from each form that others publish."""

import json
from pathlib import Path

import pytest

from refineloc.runtime.annotations import read_annotations, write_annotations_csv
from refineloc.runtime.errors import AnnotationError, InputWarning

RELEASED = """video-name,t-start,t-end,label,video-duration,fps,video-num-frames
v1,1.0,2.5,jump,10.0,25.0,250
v1,4.0,5.0,dive,10.0,25.0,250
v2,0.0,3.0,jump,8.0,30.0,240
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_released_csv(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path / "a.csv", RELEASED))
    assert list(annotations) == ["v1", "v2"]
    assert annotations.classes == ("dive", "jump")
    assert annotations.has_times
    video = annotations["v1"]
    assert video.labels == ("dive", "jump")
    assert (video.duration_s, video.fps, video.frames) == (10.0, 25.0, 250)
    assert video.start.tolist() == [1.0, 4.0]
    assert video.end.tolist() == [2.5, 5.0]
    assert video.segment_labels == ("jump", "dive")


def test_times_can_be_left_unread(tmp_path: Path) -> None:
    # Weak means weak: text where the times stand is not even looked at.
    path = write(tmp_path / "a.csv", RELEASED.replace("1.0,2.5", "secret,secret"))
    annotations = read_annotations(path, times=False)
    assert not annotations.has_times
    assert annotations["v1"].labels == ("dive", "jump")
    with pytest.raises(AnnotationError, match=r"line 2: t-start: .*'secret'"):
        read_annotations(path)


@pytest.mark.parametrize(
    "header", ["video-name,label", "label,video-name", "video-name,label,fps", "\ufeffvideo-name,label"]
)
def test_weak_csv(tmp_path: Path, header: str) -> None:
    values = {"video-name": "v", "label": "jump", "fps": "25"}
    row = ",".join(values[name.lstrip("\ufeff")] for name in header.split(","))
    annotations = read_annotations(write(tmp_path / "a.csv", f"{header}\n{row}\n"))
    assert not annotations.has_times
    assert annotations["v"].labels == ("jump",)


def test_csv_round_trip(tmp_path: Path) -> None:
    first = read_annotations(write(tmp_path / "a.csv", RELEASED + "v3,,,walk,,,\n"))
    write_annotations_csv(tmp_path / "b.csv", first)
    second = read_annotations(tmp_path / "b.csv")
    assert list(second) == list(first)
    for name, video in first.items():
        other = second[name]
        assert (video.labels, video.segment_labels, video.fps) == (other.labels, other.segment_labels, other.fps)
        assert video.start.tolist() == other.start.tolist()


def test_csv_round_trip_of_odd_names(tmp_path: Path) -> None:
    # Ends of lines of every kind, which str.splitlines() takes for ends of rows, and what a CSV quotes.
    odd = 'a\u2028b\x0cc\x85d\ne\rf\r\ng,"h"'
    path = write(tmp_path / "a.json", json.dumps({"database": {odd: {"annotations": [{"label": f"{odd}!"}]}}}))
    write_annotations_csv(tmp_path / "b.csv", read_annotations(path))
    again = read_annotations(tmp_path / "b.csv")
    assert list(again) == [odd]
    assert again[odd].labels == (f"{odd}!",)


def test_csv_round_trip_of_a_label_without_times_beside_segments(tmp_path: Path) -> None:
    first = read_annotations(write(tmp_path / "a.csv", RELEASED + "v1,,,walk,,,\n"))
    write_annotations_csv(tmp_path / "b.csv", first)
    again = read_annotations(tmp_path / "b.csv")["v1"]
    assert again.labels == first["v1"].labels == ("dive", "jump", "walk")
    assert again.segment_labels == ("jump", "dive")


def test_spaces_around_names_in_a_csv_do_not_count_and_in_a_json_do(tmp_path: Path) -> None:
    # As for detections (test_detections.py), so that the two match.
    annotations = read_annotations(write(tmp_path / "a.csv", "video-name, label\n v ,\tjump \nv,jump\n"))
    assert {name: video.labels for name, video in annotations.items()} == {"v": ("jump",)}
    path = write(tmp_path / "a.json", json.dumps({"database": {" v ": {"annotations": [{"label": " x"}]}}}))
    assert {name: video.labels for name, video in read_annotations(path).items()} == {" v ": (" x",)}


def test_bsn_s_json(tmp_path: Path) -> None:
    entry = {
        "duration_second": 60.5,
        "duration_frame": 1500,
        "feature_frame": 1488,
        "annotations": [{"label": "run", "segment": [10, 20]}],
    }
    video = read_annotations(write(tmp_path / "a.json", json.dumps({"a1": entry})))["a1"]
    assert (video.duration_s, video.frames, video.fps, video.labels) == (60.5, 1500, None, ("run",))
    assert (video.start.tolist(), video.end.tolist()) == ([10.0], [20.0])


def test_activitynet_json(tmp_path: Path) -> None:
    database = {
        "v1": {
            "subset": "training",
            "duration": 9.5,
            "frame": 285,
            "annotations": [{"label": "jump", "segment": ["1.0", 2]}],
        },
        "v2": {"subset": "testing", "duration": 3.0, "annotations": []},
    }
    path = write(tmp_path / "a.json", json.dumps({"database": database}))
    assert list(read_annotations(path)) == ["v1", "v2"]
    assert read_annotations(path).subsets == {"testing": 1, "training": 1}
    with pytest.raises(AnnotationError, match=r"subset 'val'; there are testing \(1 video\), training \(1 video\)"):
        read_annotations(path, subset="val")
    annotations = read_annotations(path, subset="training")
    assert list(annotations) == ["v1"]
    assert annotations["v1"].start.tolist() == [1.0]
    assert annotations["v1"].frames == 285
    assert not read_annotations(path, times=False).has_times


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("video-name,label\n", "holds no video"),
        ("name,label\nv,x\n", "the columns video-name, label, got name,label"),
        ("video-name,label\nv\n", "line 2: expected 2 columns, got 1"),
        ("video-name,label\nv,\n", "line 2: a video name or a label is empty"),
        ("video-name,label,fps\nv,x,fast\n", "line 2: fps: expected a number"),
        ("video-name,label,fps\nv,x,0\n", "line 2: fps: expected a positive number"),
        ("video-name,label,t-start,t-end\nv,x,1,nan\n", "finite"),
        ("video-name,label,t-start,t-end\nv,x,1,\n", "only one of t-start and t-end"),
        ("video-name,label\nv," + "x" * 200_000 + "\n", "line 2: not a CSV: field larger than field limit"),
    ],
)
def test_one_line_for_each_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(write(tmp_path / "a.csv", text))
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "'database' of videos; got a list"),
        ('{"results": {}}', "got 'results', which are detections"),
        ('{"a": {"annotations": []}, "b": 3}', "got an object with 'a', 'b'"),
        ('{"database": {"v": {}, "v": {}}}', "the key 'v' is there twice"),
        ('{"database": {"v": {"annotations": [{"label": "x"}, {"label": 3}]}}}', "annotation 2: its label: .*number 3"),
        ('{"database": {"v": {"annotations": [{"label": null}]}}}', "'v': annotation 1: its label: .* got null"),
        ('{"database": {"v": {"annotations": [{"label": "x", "segment": [1, 1e308]}]}}}', r"segment: 1e\+308 s is no"),
        ('{"database": {"v": {"duration": 1e10}}}', r"duration: 1e\+10 s is no time of a video"),
        ('{"database": {"v": {"fps": 1e308}}}', r"fps: expected frames a second, at most 1,000,000, got 1e\+308"),
        ('{"database": {"v": 3}}', "video 'v'"),
        ('{"database": {"v": {"annotations": [{"segment": [1, 2]}]}}}', "no 'label'"),
        ('{"database": {"v": {"annotations": [{"label": "x", "segment": [1]}]}}}', r"\[start, end\]"),
        ('{"database": {"v": {"annotations": [{"label": "x", "segment": [1, "b"]}]}}}', "expected a number"),
        ('{"database": {"v": {"duration": 1%s}}}' % ("0" * 400), "duration: expected a number"),
        (
            '{"database": {"v": {"subset": 5}}}',
            "video 'v': its subset: expected a text, got the number 5; put it in quotes",
        ),
        ('{"database": {"v": {"subset": "\\ud800"}}}', "its subset .* holds half a character"),
        ('{"database": {"v\\ud800": {}}}', "its name .* holds half a character"),
        ('{"database": {"v": {"annotations": [{"label": "\\udc00x"}]}}}', "its label .* holds half a character"),
    ],
)
def test_one_line_for_each_wrong_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_annotations(write(tmp_path / "a.json", text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no such file"):
        read_annotations(tmp_path / "absent.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(AnnotationError, match="cannot be read as text"):
        read_annotations(tmp_path / "b.csv")


def test_the_files_that_others_published(shared_data: Path) -> None:
    thumos = read_annotations(shared_data / "refineloc-release" / "thumos14_valid_groundtruth.csv")
    assert len(thumos) == 200
    assert sum(len(video.labels) > 1 for video in thumos.values()) == 27
    assert len(thumos.classes) == 20
    kit = shared_data / "activitynet-sample" / "activity_net.v1-2.min-missing-removed.json"
    assert len(read_annotations(kit, subset="validation").classes) == 100
    basnet = read_annotations(shared_data / "basnet-thumos14" / "gt.json")  # bounds are strings
    assert basnet.has_times


def test_blank_cells_of_a_video_are_filled_from_its_other_rows(tmp_path: Path) -> None:
    text = "video-name,label,video-duration,fps,video-num-frames\nv,x,,,\nv,y,10,,250\nv,x,10.0004,25,\nw,x,8,,\n"
    annotations = read_annotations(write(tmp_path / "a.csv", text))
    video = annotations["v"]
    assert (video.duration_s, video.fps, video.frames) == (10.0, 25.0, 250)
    assert (annotations["w"].duration_s, annotations["w"].fps) == (8.0, None)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("fps", ("", "25", "30"), "line 4: fps of video 'v' is 30, and 25 in line 3; correct one of them"),
        ("video-duration", ("9.5", "", "10"), "line 4: video-duration of video 'v' is 10, and 9.5 in line 2"),
        ("video-num-frames", ("250", "251", ""), "line 3: video-num-frames of video 'v' is 251, and 250 in line 2"),
    ],
)
def test_rows_of_a_video_that_disagree(tmp_path: Path, column: str, values: tuple[str, ...], message: str) -> None:
    rows = "".join(f"v,x,{value}\n" for value in values)
    with pytest.raises(AnnotationError, match=message):
        read_annotations(write(tmp_path / "a.csv", f"video-name,label,{column}\n{rows}"), times=False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("Run", "jump", "run"), r"a\.csv: line 4: class 'run' and 'Run' \(line 2\) differ in case alone"),
        (("High Jump", "HighJump"), r"line 3: class 'HighJump' and 'High Jump' \(line 2\) differ in spaces alone"),
        (("High  Jump", "high jump"), "differ in case and spaces alone; write them alike"),
        (("Caf\u00e9", "Cafe\u0301"), r"differ in Unicode's form of letters \(NFC, NFD\) alone"),
    ],
)
def test_classes_that_are_written_in_two_ways(tmp_path: Path, labels: tuple[str, ...], message: str) -> None:
    rows = "".join(f"v{index},{label}\n" for index, label in enumerate(labels))
    with pytest.raises(AnnotationError, match=message):
        read_annotations(write(tmp_path / "a.csv", f"video-name,label\n{rows}"))


def test_classes_of_a_json_that_are_written_in_two_ways(tmp_path: Path) -> None:
    database = {"a": {"annotations": [{"label": "run"}]}, "b": {"annotations": [{"label": "run "}]}}
    path = write(tmp_path / "a.json", json.dumps({"database": database}))
    with pytest.raises(AnnotationError, match=r"video 'b': class 'run ' and 'run' \(video 'a'\) differ in spaces"):
        read_annotations(path)


@pytest.mark.parametrize("cell", ["jump;run", "jump | run", "run, jump", "['jump', 'run']", "jump; run;"])
def test_several_labels_in_a_cell(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "a.csv", f'video-name,label,t-start,t-end\nv,"{cell}",1,2\nw,run,,\nx,jump,,\n')
    with pytest.warns(InputWarning, match=r"a\.csv: line 2: label .* is read as 2 labels$"):
        annotations = read_annotations(path)
    assert annotations.classes == annotations["v"].labels == ("jump", "run")
    assert sorted(annotations["v"].segment_labels) == ["jump", "run"]
    assert annotations["v"].start.tolist() == [1, 1]


@pytest.mark.parametrize("cells", [("jump;run", "run"), ("a|b", "c"), ("a, b", "b, c"), ("['a', 'b']", "b")])
def test_cells_that_may_have_several_labels(tmp_path: Path, cells: tuple[str, ...]) -> None:
    rows = "".join(f'v,"{cell}"\n' for cell in cells)
    with pytest.raises(
        AnnotationError, match=r"line 2: label .*: several labels in one cell\? Give each a row of its own"
    ):
        read_annotations(write(tmp_path / "a.csv", f"video-name,label\n{rows}"))


@pytest.mark.parametrize("label", ["talk to (e.g., self, a person)", "Run, jump and roll", "(a; b)", "[x]"])
def test_labels_with_commas_in_their_names(tmp_path: Path, label: str) -> None:
    text = f'video-name,label\nv,"{label}"\nw,"listen to (e.g., self, a person)"\n'
    assert label in read_annotations(write(tmp_path / "a.csv", text)).classes

"""Names of videos and labels: refused on opening where no output could hold them, and written so that nothing runs."""

import csv
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from refineloc.evaluation.formats.wtalc_arrays import read_wtalc_arrays
from refineloc.runtime import (
    AnnotationError,
    DetectionError,
    Detections,
    FeatureError,
    VideoAnnotation,
    open_features,
    read_annotations,
    read_detections,
    write_detections,
)
from refineloc.runtime.annotations import write_annotations_csv

RECORD = '{"label": "x", "score": 1, "segment": [0, 1]}'
FEATURES = np.zeros((2, 4), np.float32)
CSV = "video-name,t-start,t-end,label,score\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"b\xff", r"video 'b\\udcff': its name is not UTF-8"),
        (b"", r"video '': its name is empty"),
        (b" ", r"video ' ': its name is empty"),
    ],
)
def test_names_in_a_folder_of_features(tmp_path: Path, name: bytes, message: str) -> None:
    np.save(tmp_path / "a.npy", FEATURES)
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name + b".npy"))).write_bytes(
        (tmp_path / "a.npy").read_bytes()
    )
    with pytest.raises(FeatureError, match=message):
        open_features(tmp_path)


def test_names_in_an_hdf5_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"] = file["b"] = FEATURES
    for old, new, message in ((b"b\0", b"\xff\0", r"'\\udcff': its name is not UTF-8"), (b"b\0", b"a\0", "twice")):
        content = (tmp_path / "f.h5").read_bytes()
        assert content.count(b"a\0\0\0\0\0\0\0" + old) == 1  # the heap of names
        (tmp_path / "g.h5").write_bytes(content.replace(b"a\0\0\0\0\0\0\0" + old, b"a\0\0\0\0\0\0\0" + new))
        with pytest.raises(FeatureError, match=message):
            open_features(tmp_path / "g.h5")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.csv", f"{CSV}v,0,1,x,1\n ,0,1,x,1\n", r"d\.csv: line 3: a video name or a label is empty"),
        ("d.csv", f"{CSV}v,0,1,,1\n", r"d\.csv: line 2: a video name or a label is empty"),
        ("d.json", '{"": [RECORD]}', "video '': is empty"),
        (
            "d.json",
            '{"a": [RECORD], "v": [{"label": " ", "score": 1, "segment": [0, 1]}]}',
            "label ' ' of video 'v': is empty",
        ),
        ("d.json", '{"v": [RECORD], "v": [RECORD]}', "'v' is there twice"),
        ("d.json", '{"results": {"v": [RECORD], "w": [], "v": []}}', "'v' is there twice"),
        (
            "d.jsonl",
            '{"video": "v", "detections": [RECORD]}\n' * 2,
            r"d\.jsonl: line 2: video 'v' is there twice",
        ),
    ],
)
def test_names_in_detections(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text.replace("RECORD", RECORD))
    with pytest.raises(DetectionError, match=message):
        read_detections(tmp_path / name)


def test_a_label_called_segment_is_a_label(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(f'{{"v": [{RECORD.replace("x", "segment")}]}}')
    assert read_detections(tmp_path / "d.json")["v"].classes == ("segment",)


VIDEO = '{"annotations": [{"label": "x", "segment": [0, 1]}]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"database": {"": VIDEO}}', "video '': its name is empty"),
        ('{"database": {"v": {"annotations": [{"label": " "}]}}}', "video 'v': annotation 1: its label is empty"),
        ('{"database": {"v": VIDEO, "v": VIDEO}}', "'v' is there twice"),
    ],
)
def test_names_in_annotations(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text.replace("VIDEO", VIDEO))
    with pytest.raises(AnnotationError, match=message):
        read_annotations(tmp_path / "t.json")


@pytest.mark.parametrize(("video", "label"), [(b"", b"x"), (b"v", b" ")])
def test_names_in_w_talc_s_arrays(tmp_path: Path, video: bytes, label: bytes) -> None:
    np.save(tmp_path / "videoname.npy", np.array([video]))
    for name, row in (("segments", [[0.0, 1.0]]), ("labels", [label])):
        rows = np.empty(1, object)
        rows[0] = row
        np.save(tmp_path / f"{name}.npy", rows)
    with pytest.raises(AnnotationError, match="a video name or a label is empty"):
        read_wtalc_arrays(tmp_path, allow_pickle=True)


RUN = ("=1+1", "+x", "-IMXSEIabMM", "@SUM(A1)", "＝x", "'=x", "''-x", "=a\rb", '=HYPERLINK("http://x")')
PLAIN = ("x", "'x", "'", "a=b", "x-1")


@pytest.mark.parametrize("name", [*RUN, *PLAIN])
def test_a_spreadsheet_runs_no_name_and_readers_get_it_back(tmp_path: Path, name: str) -> None:
    zero, one = np.zeros(1), np.ones(1)
    detections = Detections(zero - 1.5, one, one, np.zeros(1, np.int64), (name,))
    write_detections(tmp_path / "d.csv", {name: detections})
    annotation = VideoAnnotation(name, (name, "weak"), start=zero - 1.5, end=one, segment_labels=(name,))
    write_annotations_csv(tmp_path / "t.csv", {name: annotation})
    for path in (tmp_path / "d.csv", tmp_path / "t.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            row = dict(zip(*list(csv.reader(file))[:2], strict=True))
        expected = f"'{name}" if name in RUN else name
        assert (row["video-name"], row["label"], row["t-start"]) == (expected, expected, "-1.5")
    assert {video: list(found.label) for video, found in read_detections(tmp_path / "d.csv").items()} == {name: [name]}
    assert {video: set(found.labels) for video, found in read_annotations(tmp_path / "t.csv").items()} == {
        name: {name, "weak"}
    }


def test_names_of_other_programs_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"{CSV}-IMXSEIabMM,0,1,=x,1\n")
    (found,) = read_detections(tmp_path / "d.csv").items()
    assert (found[0], found[1].classes) == ("-IMXSEIabMM", ("=x",))
    assert json.dumps(found[0]) == '"-IMXSEIabMM"'

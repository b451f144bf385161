"""`refineloc-doctor FEATURES --labels LABELS`: what it says of a data set, good and with each thing that is wrong."""

import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import programs
import pytest
from small_model import write_features

from refineloc.runtime.cli import dataset
from refineloc.runtime.cli.dataset import Stated, examine_data
from refineloc.runtime.cli.findings import Finding

HEAD = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\n"
LENGTHS = {"a": 40, "b": 50, "c": 90, "d": 70}


def rows(**changes: str) -> str:
    """Labels of the videos: a row each, 16 frames a snippet at 25 fps."""
    labels = {"a": "run", "b": "jump", "c": "run", "d": "jump"}
    lines = {
        name: f"{name},1,4,{labels[name]},{round(length * 16 / 25, 2)},25," for name, length in LENGTHS.items()
    } | changes
    return HEAD + "".join(f"{line}\n" for line in lines.values())


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    videos = {name: rng.standard_normal((length, 8), np.float32) for name, length in LENGTHS.items()}
    write_features(tmp_path / "f.h5", videos, snippet_frames=16)
    (tmp_path / "l.csv").write_text(rows())
    return tmp_path


def of(data: Path, stated: Stated = Stated(), labels: tuple[str, ...] = ("l.csv",)) -> list[Finding]:  # noqa: B008
    return list(examine_data(data / "f.h5", [data / name for name in labels], stated))


def odd(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(each.level, each.subject) for each in findings if each.level != "ok"]


def text(findings: list[Finding], subject: str) -> str:
    return " | ".join(f"{each.result}; {each.cure}" for each in findings if each.subject == subject)


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return programs.run("refineloc-doctor", *arguments, cwd=cwd)


def test_good_data_are_described_and_end_well(data: Path) -> None:
    done = run("f.h5", "--labels", "l.csv", cwd=data)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "4 videos, 250 snippets",
        "40 to 90 a video, the median is 70",
        "float32 (4 videos)",
        "the features state none; 25 in the labels",
        "in 4 of 4 videos with a duration",
        "4 videos with features",
        "2 classes",
        "run (2 videos), jump (2)",
    ):
        assert words in done.stdout, words
    assert "warn" not in done.stdout
    assert "engine" not in done.stdout, "the data alone"


def test_it_reads_one_video_at_a_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Callable[..., np.ndarray] = dataset.FeatureStore.read
    arrays: list[weakref.ref[np.ndarray]] = []

    def watched(self: object, name: str) -> np.ndarray:
        assert [array() for array in arrays[:-1]] == [None] * (len(arrays[:-1])), "the one before may still be there"
        array = read(self, name)
        arrays.append(weakref.ref(array))
        return array

    monkeypatch.setattr(dataset.FeatureStore, "read", watched)
    assert odd(of(data)) == []
    assert len(arrays) == 4


def _change(data: Path, name: str, features: object) -> None:
    with h5py.File(data / "f.h5", "a") as file:
        del file[name]
        file[name] = features
        file[name].attrs["snippet_frames"] = 16


def test_features_of_another_stride(data: Path) -> None:
    with h5py.File(data / "f.h5", "a") as file:
        for video in file.values():
            video.attrs["fps"] = 100.0
    (data / "l.csv").write_text(rows())
    findings = of(data)
    assert odd(findings) == [("fail", "times")]
    assert "40 snippets x 16 frames at 100 fps = 6.4 s, " in text(findings, "times")
    assert run("f.h5", "--labels", "l.csv", cwd=data).returncode == 2
    assert odd(of(data, Stated(stride_frames=64))) == []


def test_values_that_are_not_finite_and_rows_without_variation(data: Path, rng: np.random.Generator) -> None:
    features = rng.standard_normal((40, 8), np.float32)
    features[3, 2] = np.nan
    _change(data, "a", features)
    features = rng.standard_normal((50, 8), np.float32)
    features[10:12] = 0
    _change(data, "b", features)
    findings = of(data)
    assert odd(findings) == [("fail", "values"), ("warn", "constant rows")]
    assert "video 'a': snippet 3 holds nan" in text(findings, "values")
    assert "2 snippets have the same value in all columns, in 1 video, the first 2 in 'b'" in text(
        findings, "constant rows"
    )


def test_shapes_that_differ(data: Path) -> None:
    _change(data, "b", np.ones((50, 6), np.float32))
    _change(data, "c", np.empty((0, 8), np.float32))
    _change(data, "d", np.ones(5, np.float32))
    findings = of(data)
    assert ("fail", "width") in odd(findings)
    assert "the first of another width is 'b'" in text(findings, "width")
    assert "expected features of shape T x D" in text(findings, "videos")
    assert "1 video without snippets, the first is 'c'" in text(findings, "videos")


def test_features_saved_as_columns(data: Path) -> None:
    with h5py.File(data / "f.h5", "a") as file:
        for name in LENGTHS:
            features = file[name][:]
            del file[name]
            file[name] = features.T
    findings = of(data)
    assert "saved as D x T?" in text(findings, "width")
    assert "save them transposed" in text(findings, "width")


def test_names_labels_and_segments(data: Path) -> None:
    (data / "l.csv").write_text(rows(b="x,4,1,run,32,25,", c="c,-1,90,swim,57.6,25,"))
    findings = of(data)
    assert ("fail", "names") in odd(findings)
    assert "'x'" in text(findings, "names")
    assert "2 classes have one video, the first is 'jump'" in text(findings, "classes")
    assert "1 of 4 annotations ends before its start, the first in video 'x'" in text(findings, "segments")
    assert "begins before 0 s" in text(findings, "segments")


def test_videos_in_several_files_and_without_labels(data: Path) -> None:
    (data / "m.json").write_text('{"database": {"a": {"subset": "training", "annotations": []}}}')
    findings = of(data, labels=("l.csv", "m.json"))
    assert ("fail", "splits") in odd(findings)
    assert "1 video in several of the files of labels, the first is 'a'" in text(findings, "splits")
    assert "1 video without labels, the first is 'a'" in text(findings, "unlabelled")
    assert "training (1" in text(findings, "subsets")


def test_what_cannot_be_read_is_a_finding(data: Path) -> None:
    (data / "f.h5").write_bytes(b"no")
    (data / "l.csv").write_text("no")
    findings = of(data)
    assert [(each.level, each.subject) for each in findings] == [("fail", "labels"), ("fail", "features")]


def test_options_of_data_need_data(data: Path) -> None:
    done = run("--fps", "25", cwd=data)
    assert done.returncode == 2
    assert "of FEATURES, which are not given" in done.stderr

"""Detections of training videos as training data for others: `refineloc-detect`, `refineloc-convert`, their loaders.

What ActionFormer's and OpenTAD's loaders ask of the file is written down here from reading them, and every video goes
through it. `test_formats.py` has the writer's own cases.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from refineloc.evaluation.cli.convert import main as convert
from refineloc.runtime.cli.detect import main as detect
from refineloc.runtime.detections import read_detections

H = 16  # frames a snippet
CLASSES = ("jump", "run", "swim", "throw", "walk")
MIN_SCORE, CAP = 0.9, 4


class Sample(NamedTuple):
    """One video as a detector is trained with it."""

    segments: np.ndarray  # [n, 2], in features
    ids: list[int]
    fps: float
    duration: float


def actionformer(path: Path, split: tuple[str, ...], snippets: dict[str, int], masked: int | None) -> dict[str, Sample]:
    """Its two loaders' rules, in training mode, for features of H frames without overlap.

    label_id by label over the whole file, one for each class and none twice; videos whose subset in small letters is
    in the split; fps, duration and at least one annotation; the THUMOS14 loader passes over one label_id, and needs
    another annotation then; bounds in features are (s * fps - H / 2) / H, and one has to begin before the last feature.
    """
    database = json.loads(path.read_text())["database"]
    ids: dict[str, int] = {}
    for video in database.values():
        for annotation in video["annotations"]:
            assert ids.setdefault(annotation["label"], annotation["label_id"]) == annotation["label_id"]
    assert sorted(ids.values()) == list(range(len(CLASSES)))
    samples = {}
    for name, video in database.items():
        if video["subset"].lower() not in split:
            continue
        kept = [entry for entry in video["annotations"] if entry["label_id"] != masked]
        bounds = np.array([entry["segment"] for entry in kept], dtype=np.float32)
        assert bounds.shape == (len(kept), 2)
        segments = (bounds * video["fps"] - 0.5 * H) / H
        assert (segments[:, 0] < snippets[name]).any()
        samples[name] = Sample(segments, [ids[entry["label"]] for entry in kept], video["fps"], video["duration"])
    return samples


def opentad(path: Path, subset: str, class_map: tuple[str, ...]) -> dict[str, list[tuple[int, int, int]]]:
    """Its THUMOS14 rules: whole frames by "duration" and "frame", classes by place in a list, empty videos skipped."""
    samples = {}
    for name, video in json.loads(path.read_text())["database"].items():
        if video["subset"] != subset:
            continue
        rate = video["frame"] / video["duration"]
        frames = [(*(int(s * rate) for s in a["segment"]), class_map.index(a["label"])) for a in video["annotations"]]
        if frames:
            samples[name] = frames
    return samples


@pytest.fixture
def here(tmp_path: Path, rng: np.random.Generator) -> Path:
    """train.h5 and weak train.csv of eight videos, each of another length, rate and labels; val.csv with times."""
    rows = ["video-name,label,fps,video-duration"]
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for index in range(8):
            snippets, fps = 25 + 7 * index, (25.0, 30.0)[index % 2]
            file[f"v{index}"] = rng.standard_normal((snippets, 24)).astype(np.float32)
            duration = snippets * H / fps - 0.2  # the last snippet ends after the video
            rows += [f"v{index},{CLASSES[(index + k) % 5]},{fps},{duration}" for k in range(3)]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    times = [f"w,{3 * k},{3 * k + 2},{label},20,25,500" for k, label in enumerate(CLASSES)]
    header = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames"
    (tmp_path / "val.csv").write_text("\n".join([header, *times]) + "\n")
    return tmp_path


@pytest.fixture
def run(here: Path, call_program: Callable[..., CompletedProcess[str]]) -> Callable[..., str]:
    """A program where nothing is wrong; gives what it said."""

    def run(*arguments: object) -> str:
        done = call_program(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def test_from_features_of_training_videos_to_their_loaders(
    here: Path, run: Callable[..., str], model_path: Path
) -> None:
    run(detect, "train.h5", "--model", model_path, "--videos", "train.csv", "-o", "found.json", "--provider", "cpu")
    told = run(
        convert, "found.json", "pseudo.json", "--to", "training", "--videos", "train.csv", "--known-labels",
        "--min-score", MIN_SCORE, "--cap", CAP, "--validation", "val.csv",
    )  # fmt: skip

    # What should be in it: of each video the best detections of its own classes, above the score.
    labels: dict[str, set[str]] = {}
    for row in csv.DictReader((here / "train.csv").open()):
        labels.setdefault(row["video-name"], set()).add(row["label"])
    detections, expected = read_detections(here / "found.json"), {}
    for name, video in detections.items():
        good = [entry for entry in video if entry.label in labels[name] and entry.score >= MIN_SCORE]
        best = sorted(good, key=lambda entry: -entry.score)[:CAP]
        if best:
            expected[name] = sorted((entry.start, entry.end, CLASSES.index(entry.label)) for entry in best)
    kept = sum(map(len, expected.values()))
    without = f", {8 - len(expected)} of them without any" if len(expected) < 8 else ""
    assert f"pseudo.json: {kept} segments of 8 videos{without} (training)" in told
    assert 8 < kept < sum(map(len, detections.values()))

    with h5py.File(here / "train.h5") as file:
        snippets = {name: len(file[name]) for name in file} | {"w": 31}
    loaded = actionformer(here / "pseudo.json", ("training",), snippets, masked=None)
    assert loaded.keys() == expected.keys()
    for name, sample in loaded.items():
        seconds = (sample.segments * H + 0.5 * H) / sample.fps
        rows = sorted((*bounds, label) for bounds, label in zip(seconds.tolist(), sample.ids, strict=True))
        np.testing.assert_allclose(rows, expected[name], rtol=1e-5, atol=1e-4)
        assert seconds.max() <= sample.duration + 1e-3
    assert actionformer(here / "pseudo.json", ("validation",), snippets, masked=4)["w"].ids == [0, 1, 2, 3]

    frames = opentad(here / "pseudo.json", "training", CLASSES)
    assert frames.keys() == expected.keys()
    for name, segments in frames.items():
        fps = loaded[name].fps
        rows = [(first / fps, last / fps, label) for first, last, label in sorted(segments)]
        np.testing.assert_allclose(rows, expected[name], atol=1.5 / fps)  # whole frames


def test_what_their_loaders_could_not_take_is_told(here: Path, run: Callable[..., str]) -> None:
    rows = ["v0,1,3,run,1.9", "v1,1,3,run,0.2", "v2,0,2,walk,0.3"]
    (here / "found.csv").write_text("\n".join(["video-name,t-start,t-end,label,score", *rows]) + "\n")
    told = run(convert, "found.csv", "p.json", "--to", "training", "--videos", "train.csv", "--min-score", "1")
    database = json.loads((here / "p.json").read_text())["database"]
    assert list(database) == ["v0"]
    assert "left out: 2 of 3 videos, without a segment; the first is 'v1'" in told
    assert "4 of 5 classes have no segment, the first is 'jump'" in told
    # The threshold has not changed the ids: they follow the classes of train.csv.
    assert database["v0"]["annotations"][0]["label_id"] == CLASSES.index("run")

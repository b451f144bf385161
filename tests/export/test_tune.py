"""`refineloc-tune`: what it writes, what it leaves alone, and what it refuses."""

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest
from small_data import files, train, write_data
from small_model import STUDENT, WIDTH, student_graph, write_features, write_model

from refineloc.export.cli.tune import main
from refineloc.runtime import Detector, open_features, write_detections
from refineloc.runtime.errors import ConfigError
from refineloc.training.settings.config import resolve

Run = Callable[..., CompletedProcess[str]]
OWN = {"alpha_c": 0.005, "alpha_a": 0.9, "widen": 2}
TRUE = {"alpha_c": 0.35, "alpha_a": 0.9, "widen": 0}


@pytest.fixture
def run(call_program: Run) -> Run:
    return lambda *arguments: call_program(main, *arguments)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A model with a poor rule, and six videos whose annotations are what a better rule detects in them."""
    write_model(tmp_path / "m.onnx", **OWN)
    model = onnx.load(tmp_path / "m.onnx")
    model.metadata_props.add(key="someone.else", value="stays")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    steps = rng.standard_normal((6, 15, WIDTH)).repeat(6, axis=1)  # scores stay alike for some snippets
    videos = {f"v{index}": each.astype(np.float32) for index, each in enumerate(steps)}
    write_features(tmp_path / "f.h5", {**videos, "unlabelled": steps[0]}, fps=16.0, duration=90.0)
    detector = Detector(tmp_path / "m.onnx", provider="cpu", **TRUE)
    rows = ["video-name,t-start,t-end,label,video-duration,fps"]
    for name, features in videos.items():
        for start, end, label, _ in detector.detect(features, fps=16.0):
            rows.append(f"{name},{start},{end},{label},90,16")
    (tmp_path / "l.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def graph_of(path: Path) -> bytes:
    graph: bytes = onnx.load(path).graph.SerializeToString(deterministic=True)
    return graph


def test_it_changes_the_rule_and_nothing_else(folder: Path, run: Run) -> None:
    done = run("m.onnx", "f.h5", "l.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tuned.onnx: m.onnx, on 6 videos of l.csv\n  ")
    assert "widen: 2 -> 0" in done.stdout
    before, now = (Detector(folder / name, provider="cpu").metadata for name in ("m.onnx", "tuned.onnx"))
    assert graph_of(folder / "tuned.onnx") == graph_of(folder / "m.onnx")
    assert now.detection.widen == 0
    assert replace(now, detection=before.detection, tuning=None) == before
    props = {each.key: each.value for each in onnx.load(folder / "tuned.onnx").metadata_props}
    assert props["someone.else"] == "stays"
    tuning = now.tuning
    assert tuning is not None
    assert (tuning.labels, tuning.videos, tuning.folds) == ("l.csv", tuple(f"v{index}" for index in range(6)), 6)
    assert datetime.date.fromisoformat(tuning.date)
    assert "widen: 2 -> 0" in tuning.changed
    assert tuning.own_map < tuning.map
    assert tuning.gain > 1.5 * tuning.noise


def test_the_rule_of_a_student(folder: Path, run: Run) -> None:
    """Its own segments are annotated; suppression at a lower tIoU loses some of them."""
    model = folder / "m.onnx"
    write_model(model, student_graph(), **STUDENT, suppression="hard", tiou=0.6)
    rows = ["video-name,t-start,t-end,label,video-duration,fps"]
    with open_features(folder / "f.h5") as store:
        for name, detections in Detector(model, provider="cpu").detect_many(store):
            rows += [f"{name},{start},{end},{label},90,16" for start, end, label, _ in detections]
    (folder / "l.csv").write_text("\n".join(rows) + "\n")
    write_model(model, student_graph(), **STUDENT, suppression="hard", tiou=0.1)
    done = run("m.onnx", "f.h5", "l.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiou: 0.1 -> " in done.stdout
    now = Detector(folder / "tuned.onnx", provider="cpu")
    before = Detector(model, provider="cpu").settings
    assert now.settings == replace(before, tiou=now.settings.tiou)
    assert now.metadata.tuning is not None
    assert now.metadata.tuning.own_map < now.metadata.tuning.map


def test_a_rule_that_is_good_stays(folder: Path, run: Run) -> None:
    write_model(folder / "m.onnx", **TRUE)
    done = run("m.onnx", "f.h5", "l.csv", "-o", "out.onnx")
    assert done.returncode == 0
    assert "the own rule stays" in done.stdout
    metadata = Detector(folder / "out.onnx", provider="cpu").metadata
    assert metadata.detection == Detector(folder / "m.onnx", provider="cpu").metadata.detection
    assert metadata.tuning is not None
    assert metadata.tuning.changed == ()


def test_an_operating_point_is_taken_where_asked_for(folder: Path, run: Run) -> None:
    done = run("m.onnx", "f.h5", "l.csv", "--keep-rule", "--precision", "0.3,0.5", "--tiou", "0.3")
    assert done.returncode == 0
    assert "precision 0.5 at tIoU 0.3: min_score " in done.stdout
    detector = Detector(folder / "tuned.onnx", provider="cpu")
    assert detector.metadata.detection == Detector(folder / "m.onnx", provider="cpu").metadata.detection
    assert detector.metadata.tuning is None
    points = detector.metadata.operating_points
    assert points is not None
    assert [(point.name, point.tiou, point.videos) for point in points] == [
        ("precision 0.3", 0.3, 6),
        ("precision 0.5", 0.3, 6),
    ]
    assert detector.settings.min_score is None  # mAP needs all detections
    chosen = Detector(folder / "tuned.onnx", provider="cpu", min_score="precision 0.5", max_detections=1000)
    assert chosen.settings.min_score == points[1].min_score
    with open_features(folder / "f.h5") as store:
        names = [f"v{index}" for index in range(6)]
        detections = dict(chosen.detect_many(store, names=names))
        everything = dict(detector.detect_many(store, names=names))
    count = sum(map(len, detections.values()))
    assert count == points[1].true_positives + points[1].false_positives < sum(map(len, everything.values()))
    write_detections(folder / "d.json", detections)


def test_what_an_operating_point_does_not_go_with(folder: Path, run: Run) -> None:
    run("m.onnx", "f.h5", "l.csv", "--keep-rule", "--precision", "0.5")
    path = folder / "tuned.onnx"
    for model, settings, message in (
        (path, {"min_score": "precision 0.8"}, "it has 'precision 0.5'"),
        (folder / "m.onnx", {"min_score": "precision 0.5"}, "it has none; refineloc-tune writes them"),
        (path, {"min_score": "precision 0.5", "widen": 0}, "not for widen"),
        ([path, path], {"min_score": "precision 0.5"}, "not for several models"),
    ):
        with pytest.raises(ConfigError, match=message):
            Detector(model, provider="cpu", **settings)


def test_an_operating_point_of_another_rule_goes(folder: Path, run: Run) -> None:
    run("m.onnx", "f.h5", "l.csv", "--keep-rule", "--precision", "0.5", "-o", "m.onnx")
    assert run("m.onnx", "f.h5", "l.csv").returncode == 0
    assert Detector(folder / "tuned.onnx", provider="cpu").metadata.operating_points is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.onnx", "f.h5", "weak.csv"], "weak.csv: has labels but no segments with times"),
        (["m.onnx", "f.h5", "two.csv"], "2 videos are too few to choose on"),
        (["m.onnx", "f.h5", "more.csv"], "1 video of more.csv without features in f.h5, the first is 'w'"),
        (["m.onnx", "f.h5", "others.csv"], "others.csv: none of its classes is one of the model"),
        (["m.onnx", "f.h5", "l.csv", "--keep-rule"], "--keep-rule: goes with --precision"),
        (["m.onnx", "f.h5", "l.csv", "--precision", "90"], "--precision '90': expected numbers above 0"),
        (["m.onnx", "f.h5", "l.csv", "-o", "absent/x.onnx"], "absent/x.onnx: cannot be written"),
        (["absent.onnx", "f.h5", "l.csv"], "absent.onnx: no such file"),
        (["empty", "f.h5", "l.csv"], "empty: not a run of refineloc-train"),
    ],
)
def test_bad_input_is_one_line(folder: Path, run: Run, arguments: list[str], message: str) -> None:
    lines = (folder / "l.csv").read_text().splitlines()
    (folder / "weak.csv").write_text("video-name,label\nv0,jump\n")
    (folder / "two.csv").write_text("\n".join(line for line in lines if line.startswith(("video", "v0", "v1"))))
    (folder / "more.csv").write_text("\n".join([*lines, "w,0,1,jump,90,16"]))
    (folder / "others.csv").write_text("video-name,t-start,t-end,label\nv0,0,1,fly\nv1,0,1,fly\nv2,0,1,fly\n")
    (folder / "empty").mkdir()
    before = sorted(folder.iterdir())
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.long
def test_of_a_run_the_iteration_is_chosen(folder: Path, run: Run, rng: np.random.Generator) -> None:
    data = write_data(folder, rng)
    train(data, folder / "run", resolve({}, {"training": {"iterations": 2, "epochs": 5}}))
    given = files(data)
    done = run("run", given.val_features, given.val_labels, "-o", "out.onnx")
    assert done.returncode == 0
    metadata = Detector(folder / "out.onnx", provider="cpu").metadata
    assert metadata.tuning is not None
    assert metadata.iteration in (0, 1)
    assert metadata.parity is not None
    assert metadata.parity.source == "val.h5"

"""`refineloc.training.train` and `refineloc.export.export`: the program's training, from Python and without files."""

import inspect
import io
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from small_data import CLASSES, files, write_data

import refineloc.export
import refineloc.training
from refineloc.evaluation import evaluate, match_detections
from refineloc.export import export
from refineloc.runtime import (
    Annotations,
    ConfigError,
    Detector,
    InputError,
    ModelError,
    VideoAnnotation,
    open_features,
    read_annotations,
)
from refineloc.training import TrainedRun, train
from refineloc.training.run import display
from refineloc.training.run.files import Run, load_iteration
from refineloc.training.settings.config import resolve
from refineloc.training.train_run import train_run

pytestmark = pytest.mark.filterwarnings("ignore:iteration")  # so short a training is in no order

SHORT: dict[str, Any] = {"preset": "sample", "iterations": 2, "epochs": 3, "settings": {"training.batch_videos": 4}}
# The public names and what they take: a change here is one that users of the library must be told of.
TRAIN = """
(features, labels, val_features=None, val_labels=None, *, val_share=None, val_seed=None, subset=None, val_subset=None,
preset=None, base=None, generator=None, iterations=None, epochs=None, student_from=None, seed=None,
settings=None, fps=None, allow_missing=False, allow_leaks=False, unlabelled='refuse', device='auto', memory_gib=None,
run=None, resume=False, show=True)
"""
EXPORT = "(run, path, *, iteration='best', precision='fp32', single=False, allow_loss=False, base=None, licence='')"
EXPORT_NAMES = ["export", "model_card", "push_to_hub", "write_card"]
RUN = ["best", "classes", "config", "data", "detections", "epochs", "folder", "iterations", "records", "scores"]


def arrays(data: Path, split: str) -> tuple[dict[str, np.ndarray], Annotations]:
    with h5py.File(data / f"{split}.h5") as file:
        return {name: file[name][()] for name in file}, read_annotations(data / f"{split}.csv")


def in_memory(data: Path, **options: Any) -> TrainedRun:
    return train(*arrays(data, "train"), *arrays(data, "val"), **(SHORT | {"show": False} | options))


@pytest.fixture(scope="module")
def module_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data, for what is only read."""
    return write_data(tmp_path_factory.mktemp("data"), np.random.default_rng(11))


@pytest.fixture(scope="module")
def run(module_data: Path) -> TrainedRun:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return in_memory(module_data)


def test_arrays_train_as_files_do(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trainer: the numbers of the program, whatever form the data have; and nothing is written."""
    monkeypatch.chdir(data)
    before = sorted(data.rglob("*"))
    run = in_memory(data)
    assert sorted(data.rglob("*")) == before
    paths = train("train.h5", Path("train.csv"), "val.h5", "val.csv", run="folder", show=False, **SHORT)
    settings = resolve(
        {"preset": "sample", "training": {"iterations": 2, "epochs": 3, "min_steps": 0, "batch_videos": 4}}
    )
    program = train_run(lambda: settings, files(data), data / "program", show=False)
    assert run.records == paths.records == program.records
    assert run.epochs == paths.epochs == program.epochs
    assert paths.folder == Path("folder")
    for other in (paths, program):
        for mine, its in zip(run.iterations, other.iterations, strict=True):
            state = its.model.state_dict()
            assert all(torch.equal(value, state[name]) for name, value in mine.model.state_dict().items())
            for name, detections in its.detections.items():  # files have scores of float32
                assert [d[:3] for d in detections] == [d[:3] for d in mine.detections[name]]
                np.testing.assert_allclose(detections.score, mine.detections[name].score, rtol=1e-7)
    assert load_iteration(data / "folder", 1).record == run.records[1]


def test_an_open_store_is_taken_and_stays_open(data: Path, run: TrainedRun) -> None:
    with open_features(data / "train.h5") as features, open_features(data / "val.h5") as val:
        labels, val_labels = (read_annotations(data / f"{split}.csv") for split in ("train", "val"))
        assert train(features, labels, val, val_labels, show=False, **SHORT).records == run.records
        assert len(features.read("train00"))


def test_a_share_is_held_out_without_validation_videos(data: Path) -> None:
    """The same videos as the program holds out of the same files."""
    features, labels = arrays(data, "train")
    short = SHORT | {"iterations": 1}
    run = train(features, labels, val_share=0.25, show=False, **short)
    assert set(run.detections) == set(run.val.names) < set(features)
    files_run = train(data / "train.h5", data / "train.csv", val_share=0.25, run=data / "run", show=False, **short)
    assert run.val.names == files_run.val.names
    assert run.records == files_run.records
    assert (data / "run/split.json").exists()


def test_what_a_run_tells(data: Path, run: TrainedRun) -> None:
    assert run.folder is None
    assert run.classes == CLASSES
    assert [each.number for each in run.iterations] == [0, 1]
    assert run.best in (0, 1)
    assert run.detections is run.iterations[run.best].detections
    assert [row["mAP@0.50"] for row in run.scores] == [record["mAP"]["0.50"] for record in run.records]
    assert all(isinstance(value, (int, float)) for row in run.scores for value in row.values())
    evaluation = evaluate(match_detections(run.detections, read_annotations(data / "val.csv")))
    assert evaluation.average_mAP == pytest.approx(run.scores[run.best]["average_mAP"])
    lines = repr(run).splitlines()
    assert len([line for line in lines if line.split()[:1] in (["0"], ["1"])]) == 2
    assert "--" not in repr(run)
    assert max(map(len, lines)) <= 80
    assert repr(run.iterations[1]).startswith("<iteration 1: validation loss ")
    assert not run.iterations[1].model.training


def test_labels_without_times_are_a_mapping_of_classes(data: Path, run: TrainedRun) -> None:
    """The same losses: nothing is trained with times. Without fps there are no detections, and that is said."""
    features, labels = arrays(data, "train")
    val, val_labels = arrays(data, "val")
    names: dict[str, Any] = {name: list(video.labels) for name, video in labels.items()}
    val_names: dict[str, Any] = {name: video.labels[0] for name, video in val_labels.items()}
    with pytest.warns(UserWarning, match="its fps is not known, so no detections and no mAP; give fps"):
        weak = train(features, names, val, val_names, show=False, **SHORT)
    assert [record["validation_loss"] for record in weak.records] == [
        record["validation_loss"] for record in run.records
    ]
    with pytest.raises(InputError, match="fps of a validation video is not known"):
        _ = weak.detections
    with_fps = train(features, names, val, val_names, fps=16, show=False, **SHORT)
    assert {name: list(found) for name, found in with_fps.detections.items()}.keys() == val.keys()
    assert "average_mAP" not in with_fps.scores[0]


def test_settings_are_given_in_any_form(data: Path) -> None:
    (data / "mine.toml").write_text('preset = "sample"\n[pseudo]\nbeta = 2.0\n[training]\nepochs = 1\niterations = 1\n')
    toml = in_memory(data, settings=data / "mine.toml", preset=None, iterations=None, epochs=None).config
    forms: list[dict[str, Any]] = [
        {"pseudo.beta": 2},
        {"pseudo": {"beta": 2.0}, "features.snippet_frames": None},
    ]
    for settings in forms:
        config = in_memory(data, settings=settings, iterations=1, epochs=1).config
        assert config.pseudo == toml.pseudo
        assert config.pseudo.beta == 2
    seeded = in_memory(data, settings={"training": {"seed": 5}, "training.epochs": 1}, iterations=1, seed=3).config
    assert seeded.training.seed == 5, "settings lie over keywords"
    assert in_memory(data, preset=None, iterations=1, epochs=1, settings={"training.models": 1}).config.preset == "auto"


def test_export_writes_what_was_trained(run: TrainedRun, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    other = 1 - run.best
    assert export(run, path, iteration=other).metadata.iteration == other
    written = export(run, path)
    assert written.metadata.iteration == run.best
    assert written.metadata.parity is not None
    assert written.metadata.parity.videos == 6
    assert written.metadata.parity.map is not None
    detector = Detector(path, provider="cpu")
    (index,) = [index for index, name in enumerate(run.val.names) if name == "val03"]
    (batch,) = run.val.batches([torch.tensor([index])])
    detections = detector.detect(batch.features.numpy(), fps=16)
    trained = run.iterations[written.metadata.iteration].detections["val03"]
    assert [d.label for d in detections] == [d.label for d in trained]
    np.testing.assert_allclose(detections.start, trained.start)
    np.testing.assert_allclose(detections.score, trained.score, atol=1e-5)


def test_export_takes_a_folder_and_refuses_the_rest(data: Path, run: TrainedRun, tmp_path: Path) -> None:
    in_memory(data, run=tmp_path / "run", iterations=1, epochs=1)
    written = export(tmp_path / "run", tmp_path / "a.onnx")
    assert written.metadata.iteration == 0
    assert written.metadata.parity is not None
    assert written.metadata.parity.source == "generated", "arrays are not in the folder"
    with pytest.raises(ModelError, match="iteration: has to be one of 0 to 1, or best, got 3"):
        export(run, tmp_path / "c.onnx", iteration=3)
    with pytest.raises(InputError, match=r"expected what refineloc\.training\.train gives, or a folder, got dict"):
        export({}, tmp_path / "c.onnx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="onnx"):
        export(run, tmp_path / "c.txt")
    assert not (tmp_path / "c.onnx").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_labels": None}, "val_features: features for validation need labels of their own; give val_labels"),
        ({"val_features": None, "val_labels": None, "val_share": 2}, "val_share: expected a share above 0 and below 1"),
        ({"features": {}}, "features: holds no video"),
        (
            {"features": 3},
            "features: expected a path, a store of open_features or a mapping of arrays by video, got int",
        ),
        ({"features": {3: np.ones((3, 4))}}, "features: expected names of videos as keys, got 3"),
        ({"train00": np.ones(4)}, "features: video 'train00': expected features of shape T x D"),
        ({"train00": np.full((15, 16), np.nan, np.float32)}, "features: video 'train00': snippet 0 holds nan"),
        ({"train00": np.ones((3, 7))}, "features: video 'train01': features have width 16, those of 'train00' have 7"),
        ({"labels": {"train00": 3}}, r"labels: video 'train00': expected its classes, such as \['run'\], got 3"),
        ({"labels": {"train00": ["a", ""]}}, "labels: video 'train00': expected its classes"),
        ({"labels": ["a"]}, "labels: expected a path, annotations or a mapping of classes by video, got list"),
        ({"labels": {}}, "labels: holds no video"),
        ({"settings": {"pseudo.betta": 2}}, "pseudo.*betta"),
        ({"settings": {3: 2}}, "settings: expected names such as 'pseudo.beta', got 3"),
        ({"settings": 3}, "settings: expected a mapping such as"),
        ({"preset": "nothing"}, "preset 'nothing': not known"),
        ({"resume": True}, "resume: a run without a folder"),
        ({"run": " "}, "run: expected the name of a folder"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_what_cannot_be_used_is_one_line(data: Path, change: dict[str, Any], message: str) -> None:
    features, labels = arrays(data, "train")
    val, val_labels = arrays(data, "val")
    if "train00" in change:
        features, change = features | change, {}
    given = {"features": features, "labels": labels, "val_features": val, "val_labels": val_labels, **SHORT} | change
    with pytest.raises(InputError, match=message) as error:
        train(**given, show=False)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


def test_a_folder_goes_on_with_resume(data: Path) -> None:
    in_memory(data, run=data / "run", iterations=1)
    with pytest.raises(ConfigError, match="holds a run already"):
        in_memory(data, run=data / "run")
    longer = in_memory(data, run=data / "run", resume=True)
    assert longer.records == in_memory(data).records


def test_it_runs_beside_the_main_thread_and_says_nothing(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs: list[TrainedRun] = []
    thread = threading.Thread(target=lambda: runs.append(in_memory(data, iterations=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread.start()
        thread.join()
    assert len(runs[0].records) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("default")
def test_warnings_of_a_silent_training_are_python_s(data: Path) -> None:
    with pytest.warns(UserWarning, match="^iteration 0, validation videos: the attention has no order"):
        in_memory(data, epochs=1, iterations=1)


def test_progress_in_a_pipe_is_a_line_an_iteration(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_memory(data, show=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("iteration ")][1].startswith("iteration 1: validation")
    assert err.startswith("training: 12 + 6 videos")


def test_more_epochs_than_were_set_are_told_with_the_reason(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"training.batch_videos": 4, "training.min_steps": 10}
    in_memory(data, iterations=1, settings=settings, show=True)
    assert (
        "few training videos (12): 4 epochs instead of 3, so that the optimiser takes at least 10 steps "
        "(training.min_steps)"
    ) in capsys.readouterr().err.splitlines()


def test_progress_in_a_notebook_is_one_line_that_changes(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    in_memory(data, show=True)
    out, err = capsys.readouterr()
    assert err == ""
    # What a page shows: of each line what stands after the last carriage return that something follows.
    shown = [[part for part in line.split("\r") if part.strip()] for line in out.split("\n")]
    assert [len(parts) for parts in shown if parts and "loss" in parts[0] and "left" in parts[0]] == [4, 4], out
    assert shown[1][0].startswith("iteration 0/1 epoch 0/2  train loss ")
    assert all("left" not in parts[-1] for parts in shown if parts)
    assert any(parts[-1].startswith("iteration 1: validation loss") for parts in shown if parts)


def test_ctrl_c_ends_a_live_display(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on to the caller, as a notebook's stop button expects; the terminal is left as it was."""
    run = Run(data / "run", resolve({"preset": "sample"}), in_memory(data, iterations=1, epochs=1).data)
    console = display.Console(file=io.StringIO(), force_terminal=True)
    reporter = display.RunReporter(run, console)
    with pytest.raises(KeyboardInterrupt), reporter:
        raise KeyboardInterrupt
    assert reporter._progress is not None
    assert not reporter._progress.live.is_started


def test_the_public_names_are_pinned() -> None:
    assert refineloc.training.__all__ == dir(refineloc.training) == ["TrainedIteration", "TrainedRun", "train"]
    assert refineloc.export.__all__ == dir(refineloc.export) == EXPORT_NAMES
    assert signature(train) == " ".join(TRAIN.split())
    assert signature(export) == EXPORT
    public = {name for name in vars(TrainedRun) if not name.startswith("_")} | {"folder"}
    assert sorted(public) == RUN
    for module in (refineloc.training, refineloc.export):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing


def signature(function: Any) -> str:
    """Names, kinds and defaults, without types."""
    given = inspect.signature(function)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in given.parameters.values()]
    return str(given.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def test_a_video_annotation_is_taken_as_it_is(data: Path) -> None:
    features, labels = arrays(data, "train")
    mixed: dict[str, Any] = {name: video if name < "train06" else video.labels for name, video in labels.items()}
    assert isinstance(mixed["train00"], VideoAnnotation)
    run = train(features, mixed, *arrays(data, "val"), show=False, **SHORT)
    assert run.records[0]["validation_loss"] == in_memory(data).records[0]["validation_loss"]

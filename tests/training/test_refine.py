"""The loop as a whole: it learns, it is repeatable, weak means weak, and runs survive."""

import itertools
import json
import os
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import small_data
import torch
from safetensors.torch import load_file
from small_data import assert_same_run, drop_times, files
from waiting import wait_until

from refineloc.runtime.errors import ConfigError, ModelError, OutputError, RefineLocError
from refineloc.training import fit
from refineloc.training.data.inputs import read_inputs
from refineloc.training.data.split import Split
from refineloc.training.fit import Labelled, TrainingError
from refineloc.training.run.display import Silent
from refineloc.training.run.files import Run, load_iteration, read_epochs
from refineloc.training.settings.config import resolve

SETTINGS: dict[str, Any] = {
    "detection": {"alpha_c": 0.4, "widen": 0},
    "pseudo": {"class_activation": 0.4},
    "training": {"iterations": 3, "epochs": 12, "batch_videos": 4, "learning_rate": 0.01},
}


class Remembering(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.epochs: list[tuple[int, int]] = []

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs.append((record["iteration"], record["epoch"]))


def train(data: Path, folder: Path, *layers: dict[str, Any], **options: Any) -> Run:
    return small_data.train(data, folder, resolve(SETTINGS, *layers), **options)


def weights(folder: Path, iteration: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"iter_{iteration}" / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_learns_and_records(data: Path, tmp_path: Path) -> None:
    display = Remembering()
    train(data, tmp_path / "run", display=display)
    assert display.warnings == []
    records = json.loads((tmp_path / "run/iterations.json").read_text())
    assert [record["iteration"] for record in records] == [0, 1, 2]
    assert max(record["average_mAP"] for record in records) > 0.3
    assert records[0]["pseudo_labels"] is None
    assert records[1]["pseudo_labels"]["train"]["precision"] > 0.5
    assert set(records[0]["mAP"]) == {f"{tiou:.2f}" for tiou in np.linspace(0.5, 0.95, 10)}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 36
    first = [line["train_loss"] for line in lines if line["iteration"] == 0]
    assert first[-1] < 0.7 * first[0]
    for iteration in range(3):
        loaded = load_iteration(tmp_path / "run", iteration)
        assert equal(dict(loaded.model.state_dict()), weights(tmp_path / "run", iteration))
        own = [line for line in lines if line["iteration"] == iteration]
        best = min(own, key=lambda line: line["validation_loss"])
        assert records[iteration]["best_epoch"] == best["epoch"]
        assert (tmp_path / f"run/iter_{iteration}/detections.json").exists()
    assert load_iteration(tmp_path / "run", 1).config == resolve(SETTINGS, {"features": {"snippet_frames": 16}})
    with pytest.raises(ModelError, match="no finished iteration 3; finished: 0 to 2"):
        load_iteration(tmp_path / "run", 3)


def test_the_best_weights_are_those_of_the_best_epoch(data: Path, tmp_path: Path) -> None:
    """The released code keeps them by reference, so that it saves the last epoch's; ours must be the best epoch's."""
    steep = {"training": {"learning_rate": 0.3, "epochs": 8, "iterations": 1}}
    train(data, tmp_path / "best", steep)
    best_epoch = json.loads((tmp_path / "best/iterations.json").read_text())[0]["best_epoch"]
    assert best_epoch < 7, "a learning rate at which the last epoch is best shows nothing"
    train(data, tmp_path / "short", steep, {"training": {"epochs": best_epoch + 1, "select": "last"}})
    assert equal(weights(tmp_path / "best", 0), weights(tmp_path / "short", 0))
    train(data, tmp_path / "last", steep, {"training": {"select": "last"}})
    assert not equal(weights(tmp_path / "best", 0), weights(tmp_path / "last", 0))


def test_the_validation_videos_are_scored_once_an_iteration(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Besides the pass for each epoch's loss: its scores become the detections and the pseudo labels."""
    passes: list[str] = []
    batches = Split.batches

    def counted(split: Split, *arguments: Any) -> Any:
        passes.append(split.source.stem)
        return batches(split, *arguments)

    monkeypatch.setattr(Split, "batches", counted)
    train(data, tmp_path / "run", {"training": {"iterations": 3, "epochs": 2, "evaluate_every": 1, "stop_after": 0}})
    assert passes.count("val") == 3 * (2 + 1)
    # The training videos are scored where pseudo labels follow, which is not after the last iteration.
    assert passes.count("train") == 3 * 2 + 2
    # A run that goes on scores what its last finished iteration says, and no other.
    passes.clear()
    train(data, tmp_path / "run", {"training": {"iterations": 4, "epochs": 2, "evaluate_every": 1}}, resume=True)
    assert (passes.count("val"), passes.count("train")) == (1 + 2 + 1, 1 + 2)


def test_what_others_draw_between_epochs_changes_nothing(data: Path) -> None:
    """And an iteration leaves torch's global generator as it was; W-TALC draws from it (dropout)."""
    settings = {"model": {"base": "wtalc"}, "training": {"epochs": 3}}
    config = resolve(settings)
    split = read_inputs(files(data), config, 2**30).train
    learned = Labelled(split, None, torch.ones(2))
    whole = [epoch.record for epoch in fit.fit(config, learned, learned, 0)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    records = []
    for epoch in fit.fit(config, learned, learned, 0):
        assert torch.equal(torch.get_rng_state(), state)
        records.append(epoch.record)
        torch.rand(3)
        state = torch.get_rng_state()
    assert records == whole


def test_the_same_seed_gives_the_same_files(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(data, tmp_path / name, {"training": {"seed": seed}})
    assert_same_run(tmp_path / "a", tmp_path / "b")
    for iteration in range(3):
        assert not equal(weights(tmp_path / "a", iteration), weights(tmp_path / "c", iteration))


@pytest.mark.parametrize("generator", ["uniform", "distribution-aware", "class-activation", "attention", "segment"])
def test_weak_means_weak(data: Path, tmp_path: Path, generator: str) -> None:
    """Bit-equal weights with times in the labels, with other times, and with none; and as many iterations of them."""
    settings = {
        # The one generator that takes a share from the times unless it is told one.
        "pseudo": {"generator": generator, "class_activation": 0.5, "foreground_share": 0.3},
        "training": {"epochs": 4, "iterations": 5, "stop_after": 1},
    }
    run = train(data, tmp_path / "with", settings)
    iterations = len(run.records)
    for name in ("train", "val"):
        path = data / f"{name}.csv"
        head, *rows = path.read_text().splitlines()
        other = [",".join([video, "0.5", "1.5", *rest]) for video, _, _, *rest in (row.split(",") for row in rows)]
        path.write_text("\n".join([head, *other]) + "\n")
    other_run = train(data, tmp_path / "other", settings)
    assert [one["mAP"] for one in other_run.records] != [one["mAP"] for one in run.records], "times that change nothing"
    drop_times(data)
    train(data, tmp_path / "without", settings)
    for name in ("other", "without"):
        assert len(json.loads((tmp_path / name / "iterations.json").read_text())) == iterations
        for iteration in range(iterations):
            assert equal(weights(tmp_path / "with", iteration), weights(tmp_path / name, iteration))
    assert "average_mAP" not in json.loads((tmp_path / "without/iterations.json").read_text())[0]


def test_labels_of_one_kind_warn_and_go_on(data: Path, tmp_path: Path) -> None:
    display = Remembering()
    settings = {"pseudo": {"class_activation": 1.0}, "training": {"epochs": 3}}
    run = train(data, tmp_path / "run", settings, display=display)
    assert len(run.records) == 3
    assert any("all pseudo labels are background" in warning for warning in display.warnings)
    assert all(np.isfinite(record["validation_loss"]) for record in run.records)


def test_a_loss_that_is_not_finite_ends_with_one_line_and_keeps_what_was_done(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"iteration 0, epoch 0: the loss is .*begin another run with a lower training\.lea"
    ):
        train(data, tmp_path / "at once", {"training": {"learning_rate": 1e30}})
    assert not (tmp_path / "at once/iter_0").exists()
    # β overflows where it first counts: in iteration 1. What is there before is that of a run that goes well.
    settings = {"training": {"iterations": 2, "epochs": 3, "checkpoint_s": 1e9}}
    with pytest.raises(TrainingError, match=r"iteration 1, epoch 0: .*1 finished iterations are kept"):
        train(data, tmp_path / "later", settings, {"pseudo": {"beta": 1e39}})
    train(data, tmp_path / "well", settings)
    assert equal(weights(tmp_path / "later", 0), weights(tmp_path / "well", 0))
    assert not (tmp_path / "later/iter_1").exists()
    lines = (tmp_path / "later/metrics.jsonl").read_text()
    assert lines.splitlines() == (tmp_path / "well/metrics.jsonl").read_text().splitlines()[:3]


def test_the_last_good_state_is_kept_when_a_loss_is_not_finite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN in the third epoch: the checkpoint is that of two epochs, bit for bit, though none was due."""
    settings = {"training": {"iterations": 1, "epochs": 4, "checkpoint_s": 1e9, "select": "last"}}
    validate, calls = fit._validate, itertools.count()

    def third_is_nan(*arguments: Any) -> Any:
        losses, scores = validate(*arguments)
        return losses | ({"validation_loss": float("nan")} if next(calls) == 2 else {}), scores

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_validate", third_is_nan)
        with pytest.raises(TrainingError, match=r"epoch 2: .*the state before this epoch are kept"):
            train(data, tmp_path / "bad", settings)
    train(data, tmp_path / "two", settings, {"training": {"epochs": 2}})
    kept = load_file(tmp_path / "bad/checkpoint.safetensors")
    model = {name.removeprefix("model."): one for name, one in kept.items() if name.startswith("model.")}
    assert equal(model, weights(tmp_path / "two", 0))
    # A passing fault (of memory, say) is no reason to begin anew.
    train(data, tmp_path / "bad", settings, resume=True)
    train(data, tmp_path / "well", settings)
    assert_same_run(tmp_path / "well", tmp_path / "bad")


def test_refinement_stops_early(data: Path, tmp_path: Path) -> None:
    settings = {"training": {"iterations": 9, "epochs": 2, "stop_after": 1}}
    run = train(data, tmp_path / "loss", settings)
    losses = [record["validation_loss"] for record in run.records]
    assert 3 <= len(losses) < 9
    assert losses[0] < min(losses[1:]), "iteration 0, which has one loss less, would always win"
    assert 1 + int(np.argmin(losses[1:])) == len(losses) - 2
    run = train(data, tmp_path / "mAP", settings, {"training": {"stop_by": "mAP"}})
    quality = [record["average_mAP"] for record in run.records]
    assert len(quality) < 9
    assert int(np.argmax(quality)) == len(quality) - 2


def test_what_needs_times_is_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set pseudo\.foreground_share"):
        train(data, tmp_path / "run", {"pseudo": {"generator": "distribution-aware"}}, truth=False)
    assert not (tmp_path / "run").exists()


def test_the_share_of_foreground_is_the_true_one_unless_it_is_given(data: Path, tmp_path: Path) -> None:
    short = {"training": {"iterations": 2, "epochs": 1}, "pseudo": {"generator": "distribution-aware"}}
    train(data, tmp_path / "true", short)
    train(data, tmp_path / "uniform", short, {"pseudo": {"generator": "uniform"}})
    assert not equal(weights(tmp_path / "true", 1), weights(tmp_path / "uniform", 1))
    shares = [
        json.loads((tmp_path / name / "iterations.json").read_text())[1]["pseudo_labels"]["train"]["foreground"]
        for name in ("true", "uniform")
    ]
    # A third of each video; a fair coin.
    assert shares == pytest.approx([1 / 3, 1 / 2], abs=0.08)


def test_other_data_at_the_same_paths_are_refused(data: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    short = {"training": {"iterations": 1, "epochs": 1}}
    train(data, tmp_path / "run", short)
    config = tmp_path / "run/config.toml"
    assert "train_digest" in config.read_text()
    labels = (data / "val.csv").read_text()
    (data / "val.csv").write_text(labels.replace(",dive,", ",x,").replace(",jump,", ",dive,").replace(",x,", ",jump,"))
    with pytest.raises(
        ConfigError, match=r"was begun with other data: .*val\.h5 and .*val\.csv had other videos, lengths"
    ):
        train(data, tmp_path / "run", short, resume=True)
    (data / "val.csv").write_text(labels)
    train(data, tmp_path / "run", short, resume=True)
    with h5py.File(data / "train.h5", "a") as file:
        longer = np.concatenate([file["train00"][:], file["train00"][:1]])
        del file["train00"]
        file["train00"] = longer
    with pytest.raises(ConfigError, match=r"was begun with other data: .*train\.h5 and"):
        train(data, tmp_path / "run", short, resume=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("iterations.json", "[3]", "expected the records of iterations 0, 1, "),
        ("iterations.json", '{"a": 1}', "expected the records of iterations"),
        (
            "iterations.json",
            '[{"iteration": 1, "validation_loss": 1, "best_epoch": 0}]',
            "expected the records of iter",
        ),
        ("iterations.json", '[{"iteration": 0}]', "expected the records of .* with validation_loss, best_epoch"),
        ("iterations.json", "[", "iterations.json: cannot be read"),
        ("metrics.jsonl", '{"a": 1}\n', "expected lines with an iteration and an epoch"),
        ("metrics.jsonl", "[1]\n", "expected lines with an iteration and an epoch"),
        ("config.toml", "data = 3\n", "not the settings of a run"),
    ],
)
def test_damaged_files_of_a_run_are_one_line(data: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    short = {"training": {"iterations": 1, "epochs": 1}}
    train(data, tmp_path / "run", short)
    (tmp_path / "run" / name).write_text(text)
    with pytest.raises(ModelError, match=message):
        train(data, tmp_path / "run", short, resume=True)
    assert (tmp_path / "run" / name).read_text() == text


def test_the_learning_rate_falls_when_the_validation_loss_does_not(data: Path, tmp_path: Path) -> None:
    """Its rule, by hand: after more than `patience` epochs without a loss lower by 1e-4 of it, times 0.9."""
    run = train(data, tmp_path / "run", {"training": {"iterations": 1, "epochs": 30, "learning_rate": 0.1}})
    rate, best, bad = 0.1, np.inf, 0
    for line in map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines()):
        assert line["learning_rate"] == pytest.approx(rate, rel=1e-9)
        if line["validation_loss"] < best * (1 - 1e-4):
            best, bad = line["validation_loss"], 0
        elif (bad := bad + 1) > 1:
            rate, bad = 0.9 * rate, 0
    assert rate < 0.08, "a run whose loss always falls shows nothing"


def test_the_loss_is_video_loss_and_beta_times_pseudo_loss(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", {"training": {"iterations": 2, "epochs": 2}, "pseudo": {"beta": 3.0}})
    first, *_, last = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    assert "train_pseudo_loss" not in first
    for split in ("train", "validation"):
        whole = last[f"{split}_video_loss"] + 3.0 * last[f"{split}_pseudo_loss"]
        assert last[f"{split}_loss"] == pytest.approx(whole, rel=1e-5)
        assert last[f"{split}_pseudo_loss"] > 0


def test_classes_of_detections_teach_too(data: Path, tmp_path: Path) -> None:
    settings = {"training": {"iterations": 2, "epochs": 2}, "pseudo": {"generator": "fused", "beta": 3.0}}
    run = train(data, tmp_path / "run", settings, {"pseudo": {"class_weight": 2.0}})
    first, *_, last = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    assert "train_class_loss" not in first
    for split in ("train", "validation"):
        parts = [last[f"{split}_{name}_loss"] for name in ("video", "pseudo", "class")]
        assert last[f"{split}_loss"] == pytest.approx(np.dot([1, 3, 2], parts), rel=1e-5)
        assert min(parts) > 0
    plain = train(data, tmp_path / "plain", settings)
    assert not equal(weights(run.folder, 1), weights(plain.folder, 1))
    smooth = train(data, tmp_path / "smooth", settings, {"pseudo": {"class_weight": 2.0, "class_smoothing": 1.0}})
    assert not equal(weights(run.folder, 1), weights(smooth.folder, 1))
    soft = train(data, tmp_path / "soft", settings, {"pseudo": {"class_weight": 2.0, "softness": 0.5}})
    assert not equal(weights(run.folder, 1), weights(soft.folder, 1))


def test_a_run_goes_on_and_refuses_other_settings(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "whole")
    train(data, tmp_path / "parts", {"training": {"iterations": 1}})
    with pytest.raises(RefineLocError, match="holds a run already; resume it"):
        train(data, tmp_path / "parts")
    with pytest.raises(RefineLocError, match=r"training\.epochs was 12, now 13"):
        train(data, tmp_path / "parts", {"training": {"epochs": 13}}, resume=True)
    train(data, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("trials", [6, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_run_resumes_to_the_same_numbers(
    data: Path, tmp_path: Path, rng: np.random.Generator, trials: int
) -> None:
    """kill -9 at a random moment; then the rest, bit-equal to the undisturbed run."""
    assert run_in_child(data, tmp_path / "whole") == 0
    assert not (tmp_path / "whole/checkpoint.safetensors").exists()
    in_the_middle = 0
    for trial in range(trials):
        folder = tmp_path / f"killed{trial}"
        epochs = int(rng.integers(3 * EPOCHS_OF_CHILD))
        assert run_in_child(data, folder, kill_after=epochs, then_s=rng.uniform(0, 0.01)) == signal.SIGKILL
        in_the_middle += (folder / "checkpoint.safetensors").exists()
        assert run_in_child(data, folder) == 0
        assert_same_run(tmp_path / "whole", folder)
    assert in_the_middle >= 3, "trials must have been killed in the middle of an iteration"


def test_epochs_are_appended_and_a_torn_line_is_trained_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"training": {"iterations": 2, "epochs": 4, "checkpoint_s": 0.0}}
    whole = train(data, tmp_path / "whole", settings)

    class Killed(Exception): ...

    def torn(run: Run, record: Any) -> None:
        path, before = run.folder / "metrics.jsonl", b""
        if path.exists():
            before, inode = path.read_bytes(), path.stat().st_ino
        add_epoch(run, record)
        assert path.read_bytes().startswith(before)
        if before:
            assert path.stat().st_ino == inode, "the same file, longer"
        if (record["iteration"], record["epoch"]) == (1, 2):
            path.write_bytes(path.read_bytes()[:-9])
            raise Killed

    add_epoch = Run.add_epoch
    with monkeypatch.context() as patch:
        patch.setattr(Run, "add_epoch", torn)
        with pytest.raises(Killed):
            train(data, tmp_path / "torn", settings)
    assert len(read_epochs(tmp_path / "torn")) == 6
    display = Remembering()
    run = train(data, tmp_path / "torn", settings, resume=True, display=display)
    assert display.epochs[0] == (1, 2), "on from the checkpoint, not from the beginning"
    assert_same_run(whole.folder, run.folder)


@pytest.mark.parametrize("limit", [1_000, 1_900])
def test_a_full_disk_is_one_line_and_leaves_a_run_that_goes_on(data: Path, tmp_path: Path, limit: int) -> None:
    """A limit on the size of files acts as a full disk: first for metrics.jsonl, then for the weights (1,932 bytes)."""
    train(data, tmp_path / "whole", {"training": {"epochs": 4}})
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            train(data, tmp_path / "full", {"training": {"epochs": 4}})
        except OutputError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        message = pipe.read()
    assert "cannot be written: file too large" in message
    assert "\n" not in message
    assert not list((tmp_path / "full").rglob(".*")), "nothing half-written"
    train(data, tmp_path / "full", {"training": {"epochs": 4}}, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "full")


@pytest.mark.parametrize("bits", [16, 32])
def test_features_that_stay_on_disk_give_the_same_weights(data: Path, tmp_path: Path, bits: int) -> None:
    for name in ("train", "val"):
        with h5py.File(data / f"{name}.h5", "a") as file:
            for video in list(file):
                stored = file[video][:].astype(f"f{bits // 8}")
                del file[video]
                file[video] = stored
    short = {"training": {"epochs": 4, "iterations": 2}}
    held = train(data, tmp_path / "held", short)
    read = train(data, tmp_path / "read", short, memory=0)
    for iteration in range(2):
        assert equal(weights(held.folder, iteration), weights(read.folder, iteration))


def test_bf16_learns_too(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "bf16", {"training": {"precision": "bf16"}})
    train(data, tmp_path / "float32")
    scores = [
        [record["average_mAP"] for record in json.loads((tmp_path / name / "iterations.json").read_text())]
        for name in ("bf16", "float32")
    ]
    assert max(scores[0]) > 0.8 * max(scores[1])
    assert not equal(weights(tmp_path / "bf16", 0), weights(tmp_path / "float32", 0)), "it must have made a difference"
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "bf16", 0).values())


EPOCHS_OF_CHILD = 8


def run_in_child(data: Path, folder: Path, kill_after: int | None = None, then_s: float = 0.0) -> int:
    """Train (or go on) in a forked process, killed so long after so many epochs; gives its exit status, 0 if whole."""
    child = os.fork()
    if child == 0:
        add_epoch = Run.add_epoch

        def wait_for_the_kill(run: Run, record: dict[str, Any]) -> None:
            if (record["iteration"], record["epoch"]) == (2, EPOCHS_OF_CHILD - 1):
                signal.pause()
            add_epoch(run, record)

        try:
            if kill_after is not None:
                Run.add_epoch = wait_for_the_kill  # type: ignore[method-assign]
            train(data, folder, {"training": {"checkpoint_s": 0.0, "epochs": EPOCHS_OF_CHILD}}, resume=True)
            os._exit(0)
        finally:
            os._exit(1)
    if kill_after is not None:
        metrics = folder / "metrics.jsonl"
        wait_until(
            lambda: kill_after == 0 or (metrics.exists() and metrics.read_bytes().count(b"\n") >= kill_after),
            "the epochs end",
        )
        time.sleep(then_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

"""`refineloc-train` as a person runs it, and everything that can be wrong with what it is given."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest

PROGRAM = str(Path(sys.executable).with_name("refineloc-train"))
FILES = ["train.h5", "train.csv", "--val-features", "val.h5", "--val-labels", "val.csv"]
SHORT = ["--iterations", "2", "--epochs", "2", "--run", "run"]


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def fails(*arguments: object, cwd: Path, message: str) -> None:
    """One line that says it, exit code 2, and no run begun."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 2, done
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0], errors[0]
    assert not (cwd / "run").exists()


def test_a_run_in_a_pipe(data: Path) -> None:
    done = run(*FILES, *SHORT, cwd=data)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("run: 12 + 6 videos")
    assert [line.split(":")[0] for line in lines[1:]] == ["iteration 0", "iteration 1", "run/timeline.png"]
    assert "mAP" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    config = tomllib.loads((data / "run/config.toml").read_text())
    assert config["data"]["classes"] == ["dive", "jump", "run"]
    assert config["training"]["epochs"] == 2
    assert len(json.loads((data / "run/iterations.json").read_text())) == 2
    assert list((data / "run/tensorboard").iterdir())
    fails_again = run(*FILES, *SHORT, cwd=data)
    assert fails_again.returncode == 2
    assert "--resume goes on with it" in fails_again.stderr
    assert run(*FILES, *SHORT, "--resume", cwd=data).returncode == 0


def test_show_config_is_toml_with_everything(data: Path) -> None:
    done = run("--preset", "thumos14-tsn", "--set", "training.epochs=7", "--show-config", cwd=data)
    assert done.returncode == 0
    config = tomllib.loads(done.stdout)
    assert config["training"]["epochs"] == 7
    assert config["features"]["snippet_frames"] == 15
    (data / "own.toml").write_text(done.stdout)
    again = run("--config", "own.toml", "--show-config", cwd=data)
    assert again.stdout == done.stdout


def test_without_fps_it_trains_and_says_what_is_missing(data: Path) -> None:
    for name in ("train", "val"):
        rows = [line.split(",") for line in (data / f"{name}.csv").read_text().splitlines()]
        (data / f"{name}.csv").write_text("\n".join(f"{row[0]},{row[3]}" for row in rows) + "\n")
    done = run(*FILES, *SHORT, cwd=data)
    assert done.returncode == 0, done.stderr
    assert "its fps is not known, so no detections.json and no mAP; give --fps X" in done.stderr
    assert not (data / "run/iter_0/detections.json").exists()
    assert "mAP@" not in done.stdout
    assert done.stderr.splitlines()[-1] == "no time line: a video's fps is not known"
    assert not (data / "run/timeline.png").exists()


def edit(path: Path, name: str, features: np.ndarray | None) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if features is not None:
            file[name] = features


def test_a_video_of_one_snippet_is_no_problem(data: Path) -> None:
    edit(data / "train.h5", "train00", np.ones((1, 16), np.float32))
    assert run(*FILES, *SHORT, cwd=data).returncode == 0


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        ("train03", None, "1 videos of train.csv have no features in train.h5, the first is 'train03'"),
        (
            "extra",
            np.ones((3, 16), np.float32),
            "1 videos of train.h5 have no labels in train.csv, the first",
        ),
        ("train02", np.ones((3, 17), np.float32), "video 'train02': features have width 17"),
        ("train02", np.ones((0, 16), np.float32), "video 'train02': has no snippets"),
        ("train02", np.full((3, 16), np.nan, np.float32), "video 'train02': snippet 0 holds nan"),
        ("train02", np.ones((3, 16), np.int32), "video 'train02': expected float32 or float16 features"),
        ("train02", np.ones(16, np.float32), "video 'train02': expected features of shape T x D"),
    ],
)
def test_features_that_cannot_be_used(data: Path, name: str, features: np.ndarray | None, message: str) -> None:
    edit(data / "train.h5", name, features)
    fails(*FILES, *SHORT, cwd=data, message=message)


def test_missing_videos_can_be_allowed(data: Path) -> None:
    edit(data / "train.h5", "train03", None)
    edit(data / "train.h5", "extra", np.ones((3, 16), np.float32))
    done = run(*FILES, *SHORT, "--allow-missing", cwd=data)
    assert done.returncode == 0
    assert done.stderr.startswith("run: 11 + 6 videos")


def test_labels_that_cannot_be_used(data: Path) -> None:
    val = (data / "val.csv").read_text()
    (data / "val.csv").write_text(val.replace(",jump,", ",fly,"))
    fails(*FILES, *SHORT, cwd=data, message="label 'fly' does not occur in the training labels")
    (data / "val.csv").write_text(val)
    (data / "train.csv").write_text(
        (data / "train.csv").read_text().replace(",jump,", ",run,").replace(",dive,", ",run,")
    )
    fails(*FILES, *SHORT, cwd=data, message="video labels teach nothing with fewer than 2 classes")


def test_a_class_that_is_never_a_first_label_is_named(data: Path) -> None:
    text = (data / "train.csv").read_text()
    jumps = [line for line in text.splitlines() if ",jump," in line]
    (data / "train.csv").write_text(text + "\n".join(line.replace(",jump,", ",dive,") for line in jumps) + "\n")
    fails(*FILES, *SHORT, "--profile", "release", cwd=data, message="never a video's first label, the first is 'jump'")


def test_splits_of_different_width(data: Path) -> None:
    with h5py.File(data / "val.h5", "a") as file:
        for name in list(file):
            snippets = file[name].shape[0]
            del file[name]
            file[name] = np.ones((snippets, 20), np.float32)
    fails(*FILES, *SHORT, cwd=data, message="val.h5: features have width 20, those of train.h5 16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.h5", *FILES[1:], *SHORT], "absent.h5: no such file"),
        ([*FILES[:2], *SHORT], "--val-features and --val-labels"),
        ([*FILES, *SHORT, "--preset", "thumos"], "preset 'thumos': not known; there are"),
        ([*FILES, *SHORT, "--set", "training.epoch=3"], "training.epoch"),
        ([*FILES, *SHORT, "--set", "features.stream=temporal", "--set", "features.snippet_frames=0"], "snippet_frames"),
        ([*FILES, *SHORT, "--config", "absent.toml"], "absent.toml: no such file"),
        ([*FILES, *SHORT, "--device", "cuda:7"], "--device cuda:7: cannot be used here"),
        ([*FILES, *SHORT, "--generator", "magic"], "pseudo.generator"),
        ([*FILES, "--resume"], "--resume: give the run"),
        ([*FILES, *SHORT[:-1], "/proc/run"], "/proc/run: cannot be written"),
    ],
)
def test_wrong_options(data: Path, arguments: list[str], message: str) -> None:
    fails(*arguments, cwd=data, message=message)


def test_without_the_train_extra_the_error_has_the_install_line(data: Path) -> None:
    code = (
        f"import sys; sys.modules['torch'] = None; sys.argv = ['refineloc-train', *{FILES}]\n"
        "from refineloc.training.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=data)
    assert done.returncode == 2
    assert "pip install 'refineloc[train]'" in done.stderr
    assert "Traceback" not in done.stderr

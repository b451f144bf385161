"""`refineloc-train` as a person runs it, and everything that can be wrong with what it is given."""

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import programs
import pytest
from programs import Program
from small_data import arguments, assert_same_run, drop_times

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.detections import read_detections
from refineloc.training.run.files import count_epochs

FILES = arguments()
SHORT = ["--iterations", "2", "--epochs", "2", "--run", "run"]


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return programs.run("refineloc-train", *arguments, cwd=cwd)


def fails(*arguments: object, cwd: Path, message: str) -> None:
    """One line that says it, exit code 2, and no run begun."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 2, done
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0], errors[0]
    assert not (cwd / "run").exists()
    assert not (cwd / "runs").exists()


def test_a_run_in_a_pipe(data: Path) -> None:
    done = run(*FILES, *SHORT, cwd=data)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("run: 12 + 6 videos")
    # Two epochs teach too little for an attention in order, which is warned of.
    assert [line.split(":")[0] for line in lines[1:] if not line.startswith("warning: ")] == [
        "iteration 0",
        "iteration 1",
        "run/timeline.png",
    ]
    assert "mAP" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    config = tomllib.loads((data / "run/config.toml").read_text())
    assert config["data"]["classes"] == ["dive", "jump", "run"]
    assert config["training"]["epochs"] == 2
    assert len(json.loads((data / "run/iterations.json").read_text())) == 2
    assert list((data / "run/tensorboard").iterdir())
    fails_again = run(*FILES, *SHORT, cwd=data)
    assert fails_again.returncode == 2
    assert "holds a run already; resume it, or begin another in another folder (--resume)" in fails_again.stderr
    assert run(*FILES, *SHORT, "--resume", cwd=data).returncode == 0


def test_without_fps_it_trains_and_says_what_is_missing(data: Path) -> None:
    drop_times(data, fps=False)
    done = run(*FILES, *SHORT, cwd=data)
    assert done.returncode == 0, done.stderr
    assert "its fps is not known, so no detections and no mAP; give fps, or" in done.stderr
    assert not (data / "run/iter_0/detections.json").exists()
    assert "mAP" not in done.stdout
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
    text = (data / "train.csv").read_text().splitlines()
    rows = [",".join([*row.split(",")[:4], "1", "16", "16"]) if row.startswith("train00") else row for row in text]
    (data / "train.csv").write_text("\n".join(rows) + "\n")
    assert run(*FILES, *SHORT, cwd=data).returncode == 0


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        ("train03", None, "1 video of train.csv has no features in train.h5, the first: 'train03'"),
        (
            "extra",
            np.ones((3, 16), np.float32),
            "1 video of train.h5 is not in train.csv, the first",
        ),
        ("train02", np.ones((3, 17), np.float32), "video 'train02': features have width 17"),
        ("train02", np.ones((0, 16), np.float32), "video 'train02': has no snippets"),
        ("train02", np.full((14, 16), np.nan, np.float32), "video 'train02': snippet 0 holds nan"),
    ],
)
def test_features_that_cannot_be_used(data: Path, name: str, features: np.ndarray | None, message: str) -> None:
    edit(data / "train.h5", name, features)
    fails(*FILES, *SHORT, cwd=data, message=message)


def test_missing_videos_can_be_allowed(data: Path) -> None:
    """And the classes are those of the videos that are there."""
    edit(data / "train.h5", "train03", None)
    edit(data / "train.h5", "extra", np.ones((3, 16), np.float32))
    with (data / "train.csv").open("a") as file:
        file.write("missing,1,2,waltz,20,16,320\n")
    done = run(*FILES, *SHORT, "--allow-missing", "--memory", "0", cwd=data)
    assert done.returncode == 0, done.stderr
    assert "run: 11 + 6 videos" in done.stderr
    assert "; read from disk: train.h5, val.h5, so leaks are found by name alone" in done.stderr
    assert "train.csv: no video with features has the label 'waltz'; trained without it" in done.stderr
    assert tomllib.loads((data / "run/config.toml").read_text())["data"]["classes"] == ["dive", "jump", "run"]


def test_without_validation_files_a_share_is_held_out_and_the_run_says_which(data: Path) -> None:
    done = run(*FILES[:2], *SHORT, cwd=data)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("no validation files: 3 of 12 videos (a share of 0.2) are held out")
    assert lines[1] == "run/split.json: which videos, with their labels; its subsets are training and validation"
    assert lines[2].startswith("run: 9 + 3 videos")
    split = read_annotations(data / "run/split.json")
    assert split.subsets == {"training": 9, "validation": 3}
    assert set(read_detections(data / "run/iter_1/detections.json")) == set(split.of_subset("validation"))
    labels = read_annotations(data / "train.csv")
    assert all(split[name].start.tolist() == labels[name].start.tolist() for name in labels)
    # The file gives another run the same split.
    done = run("train.h5", "run/split.json", *SHORT[:-1], "again", cwd=data)
    assert done.returncode == 0, done.stderr
    assert_same_run(data / "run", data / "again")
    assert run(*FILES[:2], *SHORT, "--resume", cwd=data).returncode == 0
    other = run(*FILES[:2], *SHORT, "--val-share", "0.5", "--resume", cwd=data)
    assert "run: was begun with other settings: data.val_share was 0.2, now 0.5" in other.stderr


def test_labels_that_cannot_be_used(data: Path) -> None:
    database = {f"val{index:02}": {"annotations": []} for index in range(6)}
    (data / "val.json").write_text(json.dumps({"database": database}))
    message = "6 of 6 videos have no label, the first is 'val00'; label them, or say what they are"
    fails(*FILES[:5], "val.json", *SHORT, cwd=data, message=message)
    fails(*FILES, *SHORT, "--negatives", "--leave-out-unlabelled", cwd=data, message="--negatives: goes without")
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
        (SHORT, "give training features and labels"),
        ([*FILES[:4], *SHORT], "val.h5: features for validation need labels of their own; give val_labels, or"),
        ([*FILES, *SHORT, "--val-share", "0.3"], "val_share: of what is held out of the training videos, goes without"),
        ([*FILES, *SHORT, "--val-seed", "0"], "val_seed: of what is held out of the training videos, goes without"),
        ([*FILES[:2], *SHORT, "--val-share", "1"], "val_share: expected a share above 0 and below 1, got 1"),
        ([*FILES, *SHORT, "--subset", "training"], "train.csv: holds no video of subset 'training'; it states no subs"),
        ([*FILES, *SHORT, "--set", "training.epoch=3"], "training.epoch"),
        ([*FILES, *SHORT, "--config", "absent.toml"], "absent.toml: no such file (--show-config prints"),
        ([*FILES, *SHORT, "--device", "cuda:7"], "device cuda:7: cannot be used here"),
        ([*FILES, "--resume"], "--resume: give the run"),
        ([*FILES, *SHORT[:-1], "/proc/run"], "/proc/run: cannot be made a folder"),
        ([*FILES, *SHORT, "--memory", "nan"], "--memory: expected 0 or more GiB, got nan"),
        ([*FILES, *SHORT, "--memory", "inf"], "--memory: expected 0 or more GiB, got inf"),
        ([*FILES, *SHORT, "--device", "meta"], "device meta: expected auto, cpu, cuda or cuda:N (--device NAME)"),
        ([*FILES, *SHORT, "--fps", "-1"], "--fps: expected frames a second above 0, got -1"),
        ([*FILES, *SHORT, "--fps", "nan"], "--fps: expected frames a second above 0, got nan"),
        ([*FILES, *SHORT, "--run", ""], "--run: expected the name of a folder"),
        ([*FILES, *SHORT, "--seeds", "1"], "--seeds: of a study alone"),
        ([*FILES, *SHORT, "--betas", "1"], "--betas: of a study alone"),
        ([*FILES, *SHORT, "--jobs", "1"], "--jobs: of a study alone"),
        ([*FILES, *SHORT, "--study", "generators-beta", "--set", "pseudo.beta=3"], "--set pseudo.beta: a study trains"),
        (
            [*FILES, *SHORT, "--preset", "sample", "--set", "preset=thumos14-i3d"],
            "preset: given as 'sample' and as 'thumos14-i3d'",
        ),
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


@pytest.mark.parametrize(
    "options", [["--generator", "oracle"], ["--profile", "release"], ["--preset", "release-thumos14-i3d"]]
)
def test_what_needs_validation_times_is_refused_at_once(data: Path, options: list[str]) -> None:
    drop_times(data, "val")
    fails(*FILES, *SHORT, *options, cwd=data, message="needs times")


def test_a_preset_in_a_file_is_one_and_a_run_s_settings_are_a_file(data: Path) -> None:
    (data / "mine.toml").write_text('preset = "thumos14-tsn"\n[training]\nepochs = 1\niterations = 1\n')
    shown = run("--config", "mine.toml", "--show-config", cwd=data)
    options = ["--preset", "thumos14-tsn", "--epochs", "1", "--set", "training.iterations=1", "--show-config"]
    assert tomllib.loads(shown.stdout) == tomllib.loads(run(*options, cwd=data).stdout)
    assert tomllib.loads(shown.stdout)["features"]["snippet_frames"] == 15
    assert "# value: preset thumos14-tsn: " in shown.stdout
    assert "# value: settings file mine.toml\nepochs = 1" in shown.stdout
    (data / "shown.toml").write_text(shown.stdout)
    assert tomllib.loads(run("--config", "shown.toml", "--show-config", cwd=data).stdout) == tomllib.loads(shown.stdout)
    assert run(*FILES, *SHORT, cwd=data).returncode == 0
    again = run(*FILES, "--config", "run/config.toml", "--run", "again", cwd=data)
    assert again.returncode == 0, again.stderr
    for name in ("iter_1/model.safetensors", "config.toml", "metrics.jsonl"):
        assert (data / "again" / name).read_bytes() == (data / "run" / name).read_bytes()


def test_resuming_what_is_not_there_begins_and_says_so(data: Path) -> None:
    done = run(*FILES, *SHORT, "--resume", cwd=data)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "run: holds no run to resume; one begins"
    assert "one begins" not in run(*FILES, *SHORT, "--resume", cwd=data).stderr
    assert not (data / "run/lock").exists()


LONG = ["--run", "run", "--epochs", "100000", "--iterations", "1"]


def test_one_process_a_folder_and_ctrl_c_says_how_to_go_on(data: Path) -> None:
    with Program("refineloc-train", *FILES, *LONG, cwd=data) as process:
        process.wait_until((data / "run/metrics.jsonl").exists)
        second = run(*FILES, *LONG, "--resume", cwd=data)
        assert second.returncode == 2
        assert "error: run: another process trains there; wait for its end" in second.stderr
        process.send_signal(signal.SIGINT)
        done = process.wait()
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted; the same command with --resume goes on with run"
    assert "Traceback" not in done.stderr


def test_killed_by_the_system_and_resumed_through_the_command(data: Path) -> None:
    """kill -9 of the program itself, in either iteration: the files are those of a run that was not killed."""
    settings = ["--epochs", "10", "--iterations", "2", "--set", "training.checkpoint_s=0", "--run"]
    assert run(*FILES, *settings, "whole", cwd=data).returncode == 0
    # The last epoch does not end before the kill, however late that comes.
    before = (
        "import signal; from refineloc.training.run.files import Run\n"
        "add = Run.add_epoch\n"
        "def waits(run, record):\n"
        "    if (record['iteration'], record['epoch']) == (1, 9): signal.pause()\n"
        "    add(run, record)\n"
        "Run.add_epoch = waits\n"
    )
    for epochs in (5, 14):
        folder = data / f"killed{epochs}"
        with Program("refineloc-train", *FILES, *settings, folder.name, cwd=data, before=before) as process:
            process.wait_until(lambda folder=folder, epochs=epochs: count_epochs(folder) >= epochs)
            process.send_signal(signal.SIGKILL)
            assert process.wait().returncode == -signal.SIGKILL
        assert run(*FILES, *settings, folder.name, "--resume", cwd=data).returncode == 0
        assert_same_run(data / "whole", folder)


def test_too_little_memory_is_one_line(data: Path) -> None:
    before = (
        "import torch; from refineloc.training import fit\n"
        "def fails(*_): torch.empty(1 << 60)\n"
        "fit._train_epoch = fails\n"
    )
    done = programs.run("refineloc-train", *FILES, *SHORT, cwd=data, before=before)
    assert done.returncode == 2, done.stderr
    assert "error: out of memory on cpu: lower memory_gib" in done.stderr
    assert "(--memory GIB)" in done.stderr


def test_importing_the_program_changes_no_environment() -> None:
    code = "import os; before = dict(os.environ); import refineloc.training.cli; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Two processes that train together end where one ends, but for the order of additions."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

FILES = ["train.h5", "train.csv", "--val-features", "val.h5", "--val-labels", "val.csv"]
# Batches of 5: shares of 3 and 2 videos, and a last batch of 2.
SETTINGS = [
    "--iterations",
    "2",
    "--epochs",
    "5",
    "--set",
    "training.batch_videos=5",
    "--set",
    "training.checkpoint_s=0",
]
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "refineloc.training"]


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments; on a timeout its children end with it."""
    child = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=120)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def train(data: Path, name: str, processes: list[str], *further: str) -> subprocess.CompletedProcess[str]:
    return run(data, *processes, *FILES, *SETTINGS, "--run", name, *further)


def same(one: Path, other: Path) -> None:
    for iteration in range(2):
        ours, theirs = (load_file(run / f"iter_{iteration}/model.safetensors") for run in (one, other))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    assert len(lines[0]) == len(lines[1]) == 10
    for ours, theirs in zip(*lines, strict=True):
        assert (ours["iteration"], ours["epoch"]) == (theirs["iteration"], theirs["epoch"])
        assert abs(ours["train_loss"] - theirs["train_loss"]) < 1e-4
        assert abs(ours["validation_loss"] - theirs["validation_loss"]) < 1e-4


def test_two_processes_end_where_one_does(data: Path) -> None:
    alone = train(data, "alone", ["-m", "refineloc.training"])
    assert alone.returncode == 0, alone.stderr
    both = train(data, "both", TOGETHER)
    assert both.returncode == 0, both.stderr
    assert "in 2 processes" in both.stderr
    assert both.stdout.count("Refinement") == 1, "one process writes"
    assert both.stderr.count("time line of a validation video") == 1
    assert (data / "both/timeline.png").exists()
    same(data / "alone", data / "both")
    # A longer run of both goes on from what is there.
    longer = train(data, "both", TOGETHER, "--resume", "--iterations", "3")
    assert longer.returncode == 0, longer.stderr
    assert len(json.loads((data / "both/iterations.json").read_text())) == 3
    same_again = load_file(data / "alone/iter_1/model.safetensors")
    assert same_again.keys() == load_file(data / "both/iter_2/model.safetensors").keys()


def test_several_processes_need_one_folder(data: Path) -> None:
    done = run(data, *TOGETHER, *FILES, *SETTINGS)
    assert done.returncode != 0
    assert "error: several processes need one folder: give --run NAME" in done.stderr
    assert not (data / "runs").exists()

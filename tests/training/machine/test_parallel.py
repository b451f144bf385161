"""Two processes that train together end where one ends, but for the order of additions."""

import json
import os
import signal
import socket
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


def together(data: Path, *arguments: str) -> tuple[list[int], list[str]]:
    """Two processes without torchrun, which would end the one that waits: exit codes, and their error lines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "refineloc.training", *FILES, *SETTINGS, *arguments],
            cwd=data,
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=90)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert not any("Traceback" in text for text in said), said
    errors = [line for text in said for line in text.splitlines() if line.startswith("error: ")]
    return [process.returncode for process in both], errors


def test_what_is_wrong_is_said_once_and_nobody_waits(data: Path) -> None:
    assert train(data, "run", ["-m", "refineloc.training"]).returncode == 0
    codes, errors = together(data, "--run", "run")
    assert codes == [2, 2]
    assert len(errors) == 1
    assert errors[0].startswith("error: run: holds a run already; --resume goes on with it")
    codes, errors = together(data, "--run", "run", "--resume", "--set", "training.epochs=2")
    assert (codes, len(errors)) == ([2, 2], 1)
    assert "training.epochs was 5, now 2" in errors[0]
    codes, errors = together(data, "--run", "new", "--set", "training.learning_rate=1e30")
    assert (codes, len(errors)) == ([2, 2], 1)
    assert "the loss is" in errors[0]


def test_a_file_that_only_the_first_cannot_write_ends_all(data: Path) -> None:
    """The weights of iteration 0 cannot be written, in the midst of a run: a file is where their folder should be."""
    (data / "run").mkdir()
    (data / "run/iter_0").write_text("in the way")
    codes, errors = together(data, "--run", "run")
    assert (codes, len(errors)) == ([2, 2], 1)
    assert errors[0].startswith("error: run/iter_0: cannot be written")


def test_with_dropout_a_resumed_run_of_two_ends_as_one_that_was_not_killed(data: Path) -> None:
    own = ["--base", "basnet", "--iterations", "1"]
    assert together(data, "--run", "whole", *own) == ([0, 0], [])
    code = (
        "import os, sys; from refineloc.training.run.files import Run\n"
        "add = Run.add_epoch\n"
        "def killed(run, record):\n"
        "    add(run, record)\n"
        "    if record['epoch'] == 3: os._exit(9)\n"
        "Run.add_epoch = killed\n"
        "from refineloc.training.cli import main; main()\n"
    )
    (data / "killed.py").write_text(code)
    launch = [*TOGETHER[:-3], "--", "killed.py"]
    killed = train(data, "parts", launch, *own)
    assert "exitcode  : 9" in killed.stderr, killed.stderr
    assert (data / "parts/checkpoint.safetensors").exists()
    assert together(data, "--run", "parts", "--resume", *own) == ([0, 0], [])
    for name in ("metrics.jsonl", "iter_0/model.safetensors"):
        assert (data / "parts" / name).read_bytes() == (data / "whole" / name).read_bytes()

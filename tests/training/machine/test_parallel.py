"""Two processes that train together end where one ends, but for the order of additions."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import programs
import pytest
import torch
from object_store import serving
from programs import Program
from safetensors.torch import load_file
from small_data import arguments, assert_same_run

FILES = arguments()
# Batches of 5: shares of 3 and 2 videos, and a last batch of 2.
SETTINGS = [
    "--epochs",
    "5",
    "--set",
    'preset=""',
    "--set",
    "training.batch_videos=5",
    "--set",
    "training.checkpoint_s=0",
]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "refineloc.training"]


def alone(data: Path, *arguments: str) -> None:
    done = programs.run("refineloc-train", *FILES, *SETTINGS, *arguments, cwd=data)
    assert done.returncode == 0, done.stderr


def environments() -> list[dict[str, str]]:
    """What torchrun tells each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [world | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


@contextlib.contextmanager
def started(data: Path, *options: str, before: str = "") -> Iterator[list[Program]]:
    """Two processes as torchrun starts them; but it would end the one that waits for another."""
    command = [*FILES, *SETTINGS, *options]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Program("refineloc-train", *command, cwd=data, env=environment, before=before))
            for environment in environments()
        ]


def together(data: Path, *arguments: str) -> tuple[list[int], list[str]]:
    """Exit codes, and lines of both on stderr."""
    with started(data, *arguments) as both:
        done = [process.wait() for process in both]
    lines = [line for one in done for line in one.stderr.splitlines()]
    assert "Traceback" not in str(lines), lines
    return [one.returncode for one in done], lines


def fails(data: Path, *arguments: str) -> str:
    """The one error line of the two processes, both of which end with exit code 2."""
    codes, lines = together(data, *arguments)
    assert codes == [2, 2]
    (error,) = [line for line in lines if line.startswith("error: ")]
    return error


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
    alone(data, "--iterations", "2", "--run", "alone")
    codes, lines = together(data, "--iterations", "2", "--run", "both")
    assert codes == [0, 0], lines
    assert sum("in 2 processes" in line for line in lines) == 1, "one process writes"
    assert sum("time line of a validation video" in line for line in lines) == 1
    assert (data / "both/timeline.png").exists()
    same(data / "alone", data / "both")
    # A longer run of both goes on from what is there.
    assert together(data, "--iterations", "3", "--run", "both", "--resume")[0] == [0, 0]
    assert len(json.loads((data / "both/iterations.json").read_text())) == 3


@pytest.mark.long
def test_several_models_and_two_processes(data: Path) -> None:
    options = ["--iterations", "1", "--set", "training.models=2"]
    alone(data, *options, "--run", "alone")
    assert together(data, *options, "--run", "both")[0] == [0, 0]
    ours, theirs = (load_file(data / run / "iter_0/model.safetensors") for run in ("alone", "both"))
    assert {name.split(".")[1] for name in ours} == {"0", "1"}
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
    assert not list((data / "both/iter_0").glob("network_*"))


def test_several_processes_need_one_folder(data: Path) -> None:
    assert fails(data) == "error: several processes need one folder: give --run NAME"
    assert not (data / "runs").exists()


def test_what_is_wrong_is_said_once_and_nobody_waits(data: Path) -> None:
    alone(data, "--iterations", "1", "--run", "run")
    assert fails(data, "--run", "run").endswith("begin another in another folder (--resume)")
    error = fails(data, "--iterations", "1", "--run", "run", "--resume", "--set", "training.epochs=2")
    assert "training.epochs was 5, now 2" in error
    assert "the loss is" in fails(data, "--run", "new", "--set", "training.learning_rate=1e30")


def test_a_file_that_only_the_first_cannot_write_ends_all(data: Path) -> None:
    """The weights of iteration 0 cannot be written, in the midst of a run: a file is where their folder should be."""
    (data / "run").mkdir()
    (data / "run/iter_0").write_text("in the way")
    assert fails(data, "--run", "run").startswith("error: run/iter_0: cannot be made a folder")


def test_with_dropout_a_resumed_run_of_two_ends_as_one_that_was_not_killed(data: Path) -> None:
    basnet = ["--base", "basnet", "--iterations", "1"]
    assert together(data, "--run", "whole", *basnet)[0] == [0, 0]
    before = (
        "import os; from refineloc.training.run.files import Run\n"
        "add = Run.add_epoch\n"
        "def killed(run, record):\n"
        "    add(run, record)\n"
        "    if record['epoch'] == 3: os._exit(9)\n"
        "Run.add_epoch = killed\n"
    )
    with started(data, "--run", "parts", *basnet, before=before) as (first, _):
        assert first.wait().returncode == 9  # and the other is killed, as torchrun would
    assert (data / "parts/checkpoint.safetensors").exists()
    assert together(data, "--run", "parts", "--resume", *basnet)[0] == [0, 0]
    assert_same_run(data / "whole", data / "parts")


@pytest.mark.long
def test_torchrun_starts_them(data: Path) -> None:
    command = [sys.executable, *TORCHRUN, *FILES, *SETTINGS, "--iterations", "1", "--run", "run"]
    done = subprocess.run(command, cwd=data, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "in 2 processes" in done.stderr
    assert done.stdout.count("Refinement") == 1, "one process writes"


TELLS = """
import atexit, os

def tell():
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    print("left:", [name for name in names if "gloo" in name])

atexit.register(tell)  # registered first, called last
from refineloc.training.cli import main
main()
"""


def test_no_thread_of_gloo_is_left_when_python_ends(data: Path) -> None:
    """One that lets go of a tensor then aborts the process, after its work (exit code -6)."""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TELLS, *FILES, *SETTINGS, "--iterations", "1", "--run", "run"],
            cwd=data,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for environment in environments()
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [text.splitlines()[-1] for text in said] == ["left: []"] * 2


@pytest.mark.long
def test_torchrun_trains_from_a_store(data: Path) -> None:
    """Features and labels at s3://, for each rank from the store: the run of two processes with files."""
    with serving() as store:
        addresses = {path.name: store.put(path.name, path.read_bytes()) for path in data.iterdir() if path.is_file()}
        given = [addresses.get(word, word) for word in FILES]
        assert given != FILES
        command = [sys.executable, *TORCHRUN, *given, *SETTINGS, "--iterations", "1", "--run", "there"]
        done = subprocess.run(command, cwd=data, capture_output=True, text=True, env=os.environ | store.env)
        assert done.returncode == 0, done.stderr
        assert "in 2 processes" in done.stderr
    command = [sys.executable, *TORCHRUN, *FILES, *SETTINGS, "--iterations", "1", "--run", "here"]
    assert subprocess.run(command, cwd=data, capture_output=True).returncode == 0
    assert_same_run(data / "here", data / "there")

"""Runs in processes of their own, some at a time: a failed run does not stop the others, none outlives its parent."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from refineloc.runtime.cli.common import fail
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.files import make_folder, writing
from refineloc.training.data.inputs import Files
from refineloc.training.machine.malloc import keep_freed_memory
from refineloc.training.run.files import read_records
from refineloc.training.settings.config import Config
from refineloc.training.train_run import print_iterations, train_run

__all__ = ["Ended", "Job", "run_jobs", "share_of_cores"]

_CONTEXT = multiprocessing.get_context("spawn")
_STEP_S = 1.0
_LOG = "log.txt"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One run to train.

    Attributes:
        folder: of the run; what its process says goes into log.txt there.
        config: all settings.
        files: the data.
        device: as `train_run` takes it.
        memory_gib: for features.
    """

    folder: Path
    config: Config
    files: Files
    device: str = "auto"
    memory_gib: float | None = None

    @property
    def name(self) -> str:
        """Shown."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether the run has all its iterations."""
        return len(read_records(self.folder)) >= self.config.training.iterations


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that ended.

    Attributes:
        job: which.
        seconds: that it took.
        error: why it failed, in one line; "" where it ended well.
    """

    job: Job
    seconds: float
    error: str


def run_jobs(jobs: Sequence[Job], at_a_time: int, threads: int) -> Iterator[tuple[list[Job], list[Ended]]]:
    """Train all jobs, in order. The processes end with the iteration.

    Args:
        jobs: new runs, or begun ones that go on.
        at_a_time: processes.
        threads: torch's threads of each process.

    Yields:
        Each second, and whenever a job ends: the jobs that are running, and those that ended since the last time.

    Raises:
        OutputError: the folder of a job cannot be written.
    """
    waiting, running = list(jobs), dict[Job, tuple[SpawnProcess, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                job = waiting.pop(0)
                running[job] = _start(job, threads), time.monotonic()
            wait([process.sentinel for process, _ in running.values()], _STEP_S)
            ended = []
            for job, (process, began) in list(running.items()):
                if process.exitcode is not None:
                    del running[job]
                    ended.append(Ended(job, time.monotonic() - began, _error(job, process.exitcode)))
            yield list(running), ended
    finally:
        for process, _ in running.values():
            process.kill()  # a run survives it
        for process, _ in running.values():
            process.join()


def share_of_cores(at_a_time: int | None) -> tuple[int, int]:
    """Processes at a time, and threads of each; what is not given follows from the cores.

    One thread each is the best use of the cores while there are enough runs; OMP_NUM_THREADS says otherwise.
    """
    cores, stated = _physical_cores(), os.environ.get("OMP_NUM_THREADS", "")
    threads = max(int(stated), 1) if stated.isdecimal() else 0
    if at_a_time is None:
        return max(cores // (threads or 1), 1), threads or 1
    return at_a_time, threads or max(cores // at_a_time, 1)


def _physical_cores() -> int:
    """Cores that this process may use; two hardware threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    try:
        return len({Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings").read_text() for cpu in usable})
    except OSError:
        return len(usable)


def _start(job: Job, threads: int) -> SpawnProcess:
    make_folder(job.folder)
    with writing(job.folder):
        (job.folder / _LOG).write_bytes(b"")
    process = _CONTEXT.Process(target=_train, args=(job, threads), name=job.name, daemon=True)
    # All processes of a terminal get Ctrl-C. Only the parent takes it, and ends the others, which start without it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


def _train(job: Job, threads: int) -> None:
    """What the process of a job does."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    log = os.open(job.folder / _LOG, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    keep_freed_memory()
    torch.set_num_threads(threads)
    try:
        print_iterations(
            train_run(
                lambda: job.config, job.files, job.folder, device=job.device, resume=True, memory_gib=job.memory_gib
            )
        )
    except RefineLocError as error:
        fail(error)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # also where the parent is killed: its end of a pipe is closed then
    os._exit(1)  # a run survives it


def _error(job: Job, exit_code: int) -> str:
    """Why a job failed: the last line that it said."""
    if exit_code == 0:
        return ""
    if exit_code < 0:
        return f"ended by signal {signal.Signals(-exit_code).name} (out of memory?)"
    lines = (job.folder / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {exit_code}")
    return last.removeprefix("error: ")

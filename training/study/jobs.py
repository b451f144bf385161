"""Runs in processes of their own, some at a time: a failed run does not stop the others, none outlives its parent."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from refineloc.runtime.cli.common import fail
from refineloc.runtime.cores import physical_cores
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.files import make_folder, writing
from refineloc.runtime.jobs.processes import start_process
from refineloc.training.data.inputs import Files
from refineloc.training.machine.malloc import keep_freed_memory
from refineloc.training.run.files import read_records
from refineloc.training.run.folder import LOG
from refineloc.training.settings.config import Config
from refineloc.training.train_run import print_iterations, train_run

__all__ = ["Ended", "Job", "run_jobs", "share_of_cores"]

_STEP_S = 1.0


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
    cores, stated = physical_cores(), os.environ.get("OMP_NUM_THREADS", "")
    threads = max(int(stated), 1) if stated.isdecimal() else 0
    if at_a_time is None:
        return max(cores // (threads or 1), 1), threads or 1
    return at_a_time, threads or max(cores // at_a_time, 1)


def _start(job: Job, threads: int) -> SpawnProcess:
    make_folder(job.folder)
    with writing(job.folder):
        (job.folder / LOG).write_bytes(b"")
    return start_process(_train, job, threads, name=job.name)


def _train(job: Job, threads: int) -> None:
    """What the process of a job does."""
    log = os.open(job.folder / LOG, os.O_WRONLY | os.O_APPEND)
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


def _error(job: Job, exit_code: int) -> str:
    """Why a job failed: the last line that it said."""
    if exit_code == 0:
        return ""
    if exit_code < 0:
        return f"ended by signal {signal.Signals(-exit_code).name} (out of memory?)"
    lines = (job.folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {exit_code}")
    return last.removeprefix("error: ")

"""Runs as processes, some at a time: a failed one does not stop the others, and none outlives the study."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from refineloc.runtime.errors import OutputError

__all__ = ["Job", "Show", "physical_cores", "run_jobs", "share_of_cores"]

_POLL_S = 0.1
_LOG = "log.txt"


@dataclass(frozen=True, slots=True)
class Job:
    """One run to train.

    Attributes:
        name: shown.
        folder: of the run; what the process says goes into its log.txt.
        arguments: of refineloc-train.
        epochs: that it will have, all iterations together.
        after: name of the job that has to end well before this one begins; "" for none.
        prepare: called before the process is started.
    """

    name: str
    folder: Path
    arguments: Sequence[str]
    epochs: int
    after: str = ""
    prepare: Callable[[], None] = lambda: None


class Show(Protocol):
    """Who is told how it goes."""

    def running(self, jobs: Sequence[Job]) -> None:
        """Ten times a second."""

    def ended(self, job: Job, seconds: float, error: str) -> None:
        """After each job; `error` is "" where it ended well."""


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    process: "subprocess.Popen[bytes]"
    began: float


def run_jobs(jobs: Sequence[Job], at_a_time: int, threads: int, show: Show) -> dict[str, str]:
    """Run all jobs, in order as far as they do not wait for others.

    Args:
        jobs: those that others come after must be among them or need no run.
        at_a_time: processes.
        threads: of each of them (OMP_NUM_THREADS).
        show: is told.

    Returns:
        The names of the jobs that failed, and why: what they said last.
    """
    waiting, failed = list(jobs), dict[str, str]()
    running: list[_Running] = []
    try:
        while waiting or running:
            unfinished = {job.name for job in waiting} | {one.job.name for one in running}
            for job in list(waiting):
                if job.after in failed:
                    waiting.remove(job)
                    failed[job.name] = f"{job.after} failed"
                elif job.after not in unfinished and len(running) < at_a_time:
                    waiting.remove(job)
                    running.append(_start(job, threads))
            show.running([one.job for one in running])
            time.sleep(_POLL_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                _close(one)
                error = _why(one.job, one.process.returncode) if one.process.returncode else ""
                if error:
                    failed[one.job.name] = error
                show.ended(one.job, time.monotonic() - one.began, error)
    finally:
        for one in running:
            one.process.kill()  # a run survives it
        for one in running:
            one.process.wait()
            _close(one)
    return failed


def share_of_cores(at_a_time: int | None) -> tuple[int, int]:
    """Processes at a time, and threads of each: what is left out follows from the cores.

    One thread each is the best use of the cores while there are enough runs; OMP_NUM_THREADS says otherwise.
    """
    cores, stated = physical_cores(), os.environ.get("OMP_NUM_THREADS", "")
    threads = max(int(stated), 1) if stated.isdecimal() else 0
    if at_a_time is None:
        return max(cores // (threads or 1), 1), threads or 1
    return at_a_time, threads or max(cores // at_a_time, 1)


def physical_cores() -> int:
    """Cores that this process may use; two hardware threads of one count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    try:
        return len({Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings").read_text() for cpu in usable})
    except OSError:
        return len(usable)


def _start(job: Job, threads: int) -> _Running:
    try:
        job.folder.mkdir(exist_ok=True)
        job.prepare()
        with (job.folder / _LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "refineloc.training.study.cell", *job.arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
    except OSError as error:
        raise OutputError(f"{job.folder}: cannot be written: {error.strerror or error}") from error
    return _Running(job, process, time.monotonic())


def _close(one: _Running) -> None:
    if one.process.stdin:
        one.process.stdin.close()


def _why(job: Job, code: int) -> str:
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name} (out of memory?)"
    lines = (job.folder / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    return said.removeprefix("error: ")

"""How a study is shown: a bar for the cells and one for each running run on a terminal, a line a cell elsewhere."""

import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from refineloc.training.study.jobs import Job

__all__ = ["Display"]


class Display:
    """Tells of a study's jobs.

    Args:
        total: jobs, those that need no run included.
        done: of those, how many need no run.
        outcome: what is said of a job that ended well.
    """

    def __init__(self, total: int, done: int, outcome: Callable[[Job], str]) -> None:
        self._total, self._done, self._outcome = total, done, outcome
        self._tasks: dict[str, TaskID] = {}
        self._looked = 0.0
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._whole = self._progress.add_task("runs", total=total, completed=done)

    def __enter__(self) -> "Display":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def running(self, jobs: Sequence[Job]) -> None:
        """Ten times a second; the files are looked at once a second."""
        if not self._progress or time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        self._progress.update(self._whole, description=f"runs, {len(jobs)} running")
        for job in jobs:
            if job.name not in self._tasks:
                self._tasks[job.name] = self._progress.add_task(f"  {job.name}, epochs", total=job.epochs)
            self._progress.update(self._tasks[job.name], completed=_epochs_of(job))

    def ended(self, job: Job, seconds: float, error: str) -> None:
        """After each job."""
        self._done += 1
        outcome = f"failed: {error}" if error else self._outcome(job)
        line = f"{self._done}/{self._total} {job.name}: {outcome}, {seconds:.0f} s"
        if not self._progress:
            print(line, file=sys.stderr, flush=True)
            return
        self._progress.console.print(line, highlight=False, markup=False)
        self._progress.update(self._whole, completed=self._done)
        if job.name in self._tasks:
            self._progress.remove_task(self._tasks.pop(job.name))


def _epochs_of(job: Job) -> int:
    metrics = job.folder / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

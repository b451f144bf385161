"""How jobs are shown: a bar for all and one for each running run on a terminal, a line for each run that ended."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from refineloc.runtime.cli.common import time_left
from refineloc.training.run.files import count_epochs, read_records
from refineloc.training.study.jobs import Ended, Job

__all__ = ["show"]


def show(steps: Iterable[tuple[list[Job], list[Ended]]], total: int, done: int = 0) -> dict[str, str]:
    """Run jobs and show how far they are.

    Args:
        steps: of `run_jobs`.
        total: jobs, finished ones included.
        done: how many were finished before.

    Returns:
        The names of the jobs that failed, and why.
    """
    failed: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *time_left())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bars:
        whole = bars.add_task("runs", total=total, completed=done)
        tasks: dict[Job, TaskID] = {}
        for running, ended in steps:
            for end in ended:
                done += 1
                if end.error:
                    failed[end.job.name] = end.error
                outcome = f"failed: {end.error}" if end.error else _outcome(read_records(end.job.folder))
                line = f"{done}/{total} {end.job.name}: {outcome}, {end.seconds:.0f} s"
                console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
                bars.update(whole, completed=done)
                if end.job in tasks:
                    bars.remove_task(tasks.pop(end.job))
            for job in running:
                if job not in tasks:
                    epochs = job.config.epochs_before(job.config.training.iterations)
                    tasks[job] = bars.add_task(f"  {job.name}, epochs", total=epochs)
                bars.update(tasks[job], completed=count_epochs(job.folder))
    return failed


def _outcome(records: Sequence[Mapping[str, Any]]) -> str:
    """A finished run in a few words."""
    if records and all("average_mAP" in record for record in records):
        best = max(records, key=lambda record: float(record["average_mAP"]))
        return f"best average mAP {100 * best['average_mAP']:.2f} % (iteration {best['iteration']})"
    return "validation loss " + ", ".join(f"{record['validation_loss']:.4f}" for record in records)

"""Studies without processes."""

from collections.abc import Iterator, Sequence

import pytest

from refineloc.runtime.errors import RefineLocError
from refineloc.training.study.jobs import Ended, Job
from refineloc.training.train_run import train_run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Jobs one after another, without processes. Gives the names of the jobs that fail, to be added to."""
    names: set[str] = set()

    def run_here(given: Sequence[Job], at_a_time: int, threads: int) -> Iterator[tuple[list[Job], list[Ended]]]:
        for job in given:
            error = "refused" if job.name in names else ""
            try:
                if not error:
                    train_run(lambda config=job.config: config, job.files, job.folder, memory_gib=job.memory_gib)
            except RefineLocError as caught:
                error = str(caught)
            yield [], [Ended(job, 0.0, error)]

    for module in ("bases", "run_study"):
        monkeypatch.setattr(f"refineloc.training.study.{module}.run_jobs", run_here)
    return names

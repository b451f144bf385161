"""`refineloc-train --study generators-beta`: the grid of Table 1 and the curves of Table 2, on any data set.

    runs/STUDY/
        settings.toml              of all runs, but for generator, β and seed
        iteration0-seedS/          a run of iteration 0 alone, which knows neither generator nor β
        GENERATOR-betaB-seedS/     a run; its iteration 0 is a copy
        table.md, table.csv, curves.png

Every run is what refineloc-train would train alone, in a process of its own, and goes on after a kill as runs do.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from refineloc.runtime.errors import ConfigError, RefineLocError
from refineloc.runtime.files import atomic_write
from refineloc.training.data.inputs import Files, read_inputs
from refineloc.training.data.record import DataRecord
from refineloc.training.data.truth import true_share
from refineloc.training.refine import settled
from refineloc.training.run.files import Run, locked, read_records
from refineloc.training.settings.config import Config
from refineloc.training.study.display import Display
from refineloc.training.study.grid import Grid, first_name
from refineloc.training.study.jobs import run_jobs, share_of_cores
from refineloc.training.study.plan import cell_job, first_config, first_job
from refineloc.training.study.report import outcome, read_result, write_report

__all__ = ["Files", "Grid", "StudyError", "run_study"]


class StudyError(RefineLocError, RuntimeError):
    """Runs of a study failed; the others are kept and in its table."""


def run_study(
    config: Config,
    grid: Grid,
    files: Files,
    folder: Path,
    *,
    note: Callable[[str], None],
    device: str = "auto",
    at_a_time: int | None = None,
    memory: int = 0,
    resume: bool = False,
) -> None:
    """Train what is missing of a grid of runs, then write its table and curves.

    Args:
        config: of all runs; the grid's values take the place of its generator, β and seed.
        grid: what is trained; a resumed study may have another one.
        files: the data.
        folder: of the study.
        note: is told, in lines, what the user should know.
        device: as refineloc-train takes it.
        at_a_time: processes; as many as there are cores for if left out.
        memory: bytes for features, shared by the processes.
        resume: go on with the study in `folder`.

    Raises:
        ConfigError: fewer than 2 iterations; a folder that holds something else; other settings than the study's.
        InputError: data that cannot be used.
        StudyError: runs failed; the table has the others.
        OutputError: a file cannot be written.
    """
    iterations = config.training.iterations
    if iterations < 2:
        raise ConfigError("--study: expected 2 or more iterations; the first knows neither generator nor β")
    inputs = read_inputs(files, config, 0)  # sizes alone, no features
    settled(
        first_config(config, 0), inputs.train, inputs.val, inputs.truth
    )  # what it cannot give is refused here, not by every run
    # For one generator that is a reference and not weakly supervised (section 3.2), and for nothing else.
    foreground_share = true_share(inputs.train, inputs.truth.train)
    _check_folder(folder, config, inputs.record, resume)
    if foreground_share is None and "distribution-aware" in grid.generators:
        grid = replace(grid, generators=tuple(name for name in grid.generators if name != "distribution-aware"))
        note(
            f"warning: {files.labels}: the true share of foreground is not known, since not every video has times and "
            "fps; the generator distribution-aware is left out"
        )
    if resume and not (folder / _SETTINGS).exists():
        note(f"{folder}: holds no study that --resume could go on with; one begins")
    with locked(folder):
        _train(config, grid, files, folder, foreground_share, note, device, at_a_time, memory)


def _train(
    config: Config,
    grid: Grid,
    files: Files,
    folder: Path,
    foreground_share: float | None,
    note: Callable[[str], None],
    device: str,
    at_a_time: int | None,
    memory: int,
) -> None:
    with atomic_write(folder / _SETTINGS) as file:
        file.write(config.to_toml())
    iterations = config.training.iterations
    # 1. What there is to train: iteration 0 once for each seed, then all that differs.
    at_a_time, threads = share_of_cores(at_a_time)
    common = [*files.arguments(), "--config", str(folder / _SETTINGS), "--device", device]
    common += ["--memory", repr(memory / at_a_time / 2**30)]
    cells = grid.cells()
    firsts = [first_job(folder, seed, common, config) for seed in grid.seeds]
    rest = [cell_job(folder, cell, common, config, foreground_share) for cell in cells]
    missing = [job for job in firsts if not read_records(job.folder)]
    missing += [job for job in rest if len(read_records(job.folder)) < iterations]
    total = len(firsts) + len(rest)
    note(
        f"{folder}: {len(rest)} runs ({len(grid.generators)} generators x {len(grid.betas)} β x {len(grid.seeds)} "
        f"seeds) and {len(firsts)} of iteration 0, {total - len(missing)} finished; {at_a_time} at a time, "
        f"threads each: {threads}"
    )
    # 2. Train it.
    with Display(total, total - len(missing), lambda job: outcome(read_records(job.folder))) as display:
        failed = run_jobs(missing, at_a_time, threads, display)
    # 3. What came of it.
    results = [read_result(folder, cell, iterations) for cell in cells if cell.name not in failed]
    if results:
        write_report(folder, grid, results, config.training.epochs, str(files.val_labels))
        note(f"{folder}: wrote table.md, table.csv and curves.png")
    if failed:
        name, why = next(iter(failed.items()))
        raise StudyError(
            f"{folder}: {len(failed)} of {total} runs failed, the first is {name}: {why}; the others are kept, and "
            "--resume trains these again"
        )


_SETTINGS = "settings.toml"


def _check_folder(folder: Path, config: Config, record: DataRecord, resume: bool) -> None:
    """Refuse a run's folder, and a study of other settings: its runs of iteration 0 have them all."""
    if (folder / "config.toml").exists():
        raise ConfigError(f"{folder}: holds a run; a study needs a folder of its own: --run NAME")
    if (folder / _SETTINGS).exists() and not resume:
        raise ConfigError(f"{folder}: holds a study already; --resume goes on with it, --run NAME begins another")
    stem = first_name("")
    for first in sorted(folder.glob(f"{stem}*/config.toml")):
        seed = first.parent.name.removeprefix(stem)
        if seed.isdecimal():
            Run(first.parent, first_config(config, int(seed)), record, resume=True, writes=False)
